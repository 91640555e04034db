//! DNS messages (RFC 1035): queries in, answers with addresses out.

use std::net::IpAddr;

/// IPv4 address record.
pub const TYPE_A: u16 = 1;
/// IPv6 address record.
pub const TYPE_AAAA: u16 = 28;
/// Any record.
pub const TYPE_ANY: u16 = 255;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const HEADER_LEN: usize = 12;
/// Largest answer over UDP: what passes every link of a lab unfragmented.
pub const MAX_UDP: usize = 1232;
/// Largest answer over TCP.
pub const MAX_TCP: usize = 65_535;

/// Response codes that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rcode {
    /// Fine, also with no records.
    NoError = 0,
    /// The query cannot be understood.
    FormErr = 1,
    /// There is no such name.
    NxDomain = 3,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Lower case, without the final dot.
    pub name: String,
    /// Record type.
    pub kind: u16,
}

/// A query as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    id: u16,
    recursion_desired: bool,
    /// Bytes of the question section, repeated in the answer.
    question_bytes: Vec<u8>,
    /// The one question; `None` when it is malformed or there is not exactly one.
    pub question: Option<Question>,
    /// Whether the client knows EDNS (RFC 6891) and so takes more than 512 bytes over UDP.
    edns: bool,
}

/// An address record for the name of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The address.
    pub address: IpAddr,
    /// Seconds it may be kept.
    pub ttl_s: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Reads a query; `None` for what is none (too short, or an answer).
pub fn parse(bytes: &[u8]) -> Option<Query> {
    let (id, flags, questions) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?, u16_at(bytes, 4)?);
    let additional = u16_at(bytes, 10)?;
    if flags & 0x8000 != 0 {
        return None;
    }
    let mut query = Query {
        id,
        recursion_desired: flags & 0x100 != 0,
        question_bytes: Vec::new(),
        question: None,
        edns: false,
    };
    if questions != 1 || flags & 0x7800 != 0 {
        return Some(query);
    }
    if let Some((question, end)) = parse_question(bytes) {
        bytes[HEADER_LEN..end].clone_into(&mut query.question_bytes);
        query.question = Some(question);
        // The OPT record comes directly after the question in what resolvers send: root name, then the type.
        query.edns = additional > 0 && bytes.get(end) == Some(&0) && u16_at(bytes, end + 1) == Some(TYPE_OPT);
    }
    Some(query)
}

fn parse_question(bytes: &[u8]) -> Option<(Question, usize)> {
    let mut name = String::new();
    let mut at = HEADER_LEN;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => break,
            // Compression has no use in a first name.
            64.. => return None,
            _ => {}
        }
        let label = bytes.get(at..at + length)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        if name.len() > 253 {
            return None;
        }
    }
    let kind = u16_at(bytes, at)?;
    (u16_at(bytes, at + 2)? == CLASS_IN).then_some((Question { name, kind }, at + 4))
}

/// Writes the answer. One that does not fit into `max_len` (512 over UDP without EDNS) is cut and marked, so that the client
/// asks again over TCP.
pub fn encode(query: &Query, rcode: Rcode, answers: &[Answer], max_len: usize) -> Vec<u8> {
    let max_len = if query.edns || max_len == MAX_TCP { max_len } else { 512 };
    let mut records = Vec::new();
    let mut count: u16 = 0;
    let mut truncated = false;
    let opt_len = if query.edns { 11 } else { 0 };
    for answer in answers {
        let mut record = vec![0xc0, 0x0c];
        let (kind, data) = match answer.address {
            IpAddr::V4(ip) => (TYPE_A, ip.octets().to_vec()),
            IpAddr::V6(ip) => (TYPE_AAAA, ip.octets().to_vec()),
        };
        record.extend(kind.to_be_bytes());
        record.extend(CLASS_IN.to_be_bytes());
        record.extend(answer.ttl_s.to_be_bytes());
        record.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        record.extend(data);
        if HEADER_LEN + query.question_bytes.len() + records.len() + record.len() + opt_len > max_len {
            truncated = true;
            break;
        }
        records.extend(record);
        count += 1;
    }
    // Answer, authoritative, recursion available.
    let mut flags: u16 = 0x8480 | rcode as u16;
    if query.recursion_desired {
        flags |= 0x100;
    }
    if truncated {
        flags |= 0x200;
    }
    let questions = u16::from(!query.question_bytes.is_empty());
    let mut out = Vec::with_capacity(HEADER_LEN + query.question_bytes.len() + records.len() + opt_len);
    for word in [query.id, flags, questions, count, 0, u16::from(query.edns)] {
        out.extend(word.to_be_bytes());
    }
    out.extend(&query.question_bytes);
    out.extend(records);
    if query.edns {
        out.push(0);
        out.extend(TYPE_OPT.to_be_bytes());
        out.extend(u16::try_from(MAX_UDP).unwrap_or(512).to_be_bytes());
        out.extend([0; 6]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &[&str], kind: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name {
            bytes.push(u8::try_from(label.len()).expect("a label"));
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        bytes
    }

    #[test]
    fn reads_a_query_and_answers_it() {
        let query = parse(&query(&["Web", "test"], TYPE_A)).expect("a query");
        assert_eq!(query.question, Some(Question { name: "web.test".into(), kind: TYPE_A }));
        let answer = encode(
            &query,
            Rcode::NoError,
            &[Answer { address: "10.0.0.1".parse().expect("an address"), ttl_s: 5 }],
            MAX_UDP,
        );
        assert_eq!(&answer[..12], &[0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(&answer[answer.len() - 4..], &[10, 0, 0, 1]);
    }

    #[test]
    fn a_long_answer_is_cut_and_marked() {
        let query = parse(&query(&["web"], TYPE_A)).expect("a query");
        let many = vec![Answer { address: "10.0.0.1".parse().expect("an address"), ttl_s: 5 }; 100];
        let answer = encode(&query, Rcode::NoError, &many, MAX_UDP);
        assert!(answer.len() <= 512);
        assert_eq!(answer[2] & 2, 2);
        assert!(encode(&query, Rcode::NoError, &many, MAX_TCP).len() > 1600);
    }

    #[test]
    fn malformed_queries_do_no_harm() {
        let good = query(&["web", "test"], TYPE_A);
        for length in 0..good.len() {
            let parsed = parse(&good[..length]);
            assert!(parsed.is_none_or(|q| q.question.is_none()), "{length}");
        }
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        assert_eq!(parse(&pointer).expect("a query").question, None);
        let mut response = good;
        response[2] |= 0x80;
        assert_eq!(parse(&response), None);
    }
}

//! The part of SPDY/3.1 that port-forward needs: streams, data, resets, pings.
//!
//! Source: "SPDY Protocol - Draft 3.1" (Chromium project), sections 2.2 (framing) and 2.6.10 (header blocks).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Header blocks above this are refused.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Frames above this are refused; the length field would allow 16 MiB.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

const FIN: u8 = 1;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The peer opens a stream.
    SynStream { stream: u32, headers: Vec<(String, String)>, fin: bool },
    /// We accept it, without headers.
    SynReply { stream: u32 },
    /// A stream is given up.
    Reset { stream: u32, status: u32 },
    /// To be sent back as it is.
    Ping { id: u32 },
    /// The peer opens no more streams.
    GoAway { last: u32 },
    /// Bytes of a stream, perhaps its last.
    Data { stream: u32, data: Bytes, fin: bool },
    /// Something that does not matter to us.
    Other,
}

/// Why a session cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    /// A frame is longer than we take.
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    /// A frame is shorter than its kind demands.
    #[error("frame is too short")]
    Short,
    /// A header block cannot be decompressed or read.
    #[error("header block is broken")]
    Headers,
}

/// Names and values that header blocks are compressed with (section 2.6.10.1): common words with their lengths, then
/// text without.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age \
        allow authorization cache-control connection content-base content-encoding content-language content-length \
        content-location content-md5 content-range content-type date etag expect expires from host if-match \
        if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
        proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
        user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
        keep-alive origin";
    const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
        404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
        Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
        chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
        publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut out = Vec::new();
    for word in WORDS.split_whitespace() {
        let word = word.replace('_', " ");
        out.put_u32(u32::try_from(word.len()).unwrap_or(0));
        out.put_slice(word.as_bytes());
    }
    out.put_slice(TEXT.as_bytes());
    out
}

/// Makes frames of one direction of a session; header blocks share their compression state.
pub(super) struct Encoder {
    compress: Compress,
}

impl Encoder {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&dictionary()).expect("a fresh compressor takes a dictionary");
        Self { compress }
    }

    pub(super) fn encode(&mut self, frame: &Frame) -> Bytes {
        let mut out = BytesMut::new();
        match frame {
            Frame::SynReply { stream } => {
                let block = self.headers(&[]);
                control(&mut out, 2, 0, 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(&block);
            }
            Frame::SynStream { stream, headers, fin } => {
                let block = self.headers(headers);
                control(&mut out, 1, if *fin { FIN } else { 0 }, 10 + block.len());
                out.put_u32(*stream);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Frame::Reset { stream, status } => {
                control(&mut out, 3, 0, 8);
                out.put_u32(*stream);
                out.put_u32(*status);
            }
            Frame::Ping { id } => {
                control(&mut out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last } => {
                control(&mut out, 7, 0, 8);
                out.put_u32(*last);
                out.put_u32(0);
            }
            Frame::Data { stream, data, fin } => {
                out.put_u32(*stream & 0x7fff_ffff);
                out.put_u8(if *fin { FIN } else { 0 });
                put_u24(&mut out, data.len());
                out.put_slice(data);
            }
            Frame::Other => {}
        }
        out.freeze()
    }

    fn headers(&mut self, headers: &[(String, String)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put_u32(u32::try_from(headers.len()).unwrap_or(0));
        for text in headers.iter().flat_map(|(k, v)| [k, v]) {
            plain.put_u32(u32::try_from(text.len()).unwrap_or(0));
            plain.put_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let before = self.compress.total_in();
        loop {
            let done = usize::try_from(self.compress.total_in() - before).unwrap_or(plain.len());
            let room = out.capacity();
            // Sync, so that the peer can read this block before the next one comes.
            if self.compress.compress_vec(&plain[done..], &mut out, FlushCompress::Sync).is_err()
                || out.len() < room
            {
                return out;
            }
            out.reserve(256);
        }
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8003);
    out.put_u16(kind);
    out.put_u8(flags);
    put_u24(out, length);
}

fn put_u24(out: &mut BytesMut, n: usize) {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    out.put_slice(&n.to_be_bytes()[1..]);
}

/// Takes frames out of one direction of a session.
pub(super) struct Decoder {
    buffer: BytesMut,
    decompress: Decompress,
    primed: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), decompress: Decompress::new(true), primed: false }
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next whole frame, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = self.buffer.first_chunk::<8>().copied() else { return Ok(None) };
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(SpdyError::TooLong(length));
        }
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        let body = self.buffer.split_to(length).freeze();
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let fin = head[4] & FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: first, data: body, fin }));
        }
        self.control(u16::from_be_bytes([head[2], head[3]]), fin, body).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, SpdyError> {
        let need = match kind {
            1 => 10,
            2 | 6 | 8 => 4,
            3 | 7 => 8,
            _ => 0,
        };
        if body.len() < need {
            return Err(SpdyError::Short);
        }
        Ok(match kind {
            1 => {
                let stream = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                Frame::SynStream { stream, headers: self.headers(&body)?, fin }
            }
            // Their headers do not matter, but every block moves the decompressor on.
            2 | 8 => {
                let stream = body.get_u32() & 0x7fff_ffff;
                self.headers(&body)?;
                if kind == 2 { Frame::SynReply { stream } } else { Frame::Other }
            }
            3 => Frame::Reset { stream: body.get_u32() & 0x7fff_ffff, status: body.get_u32() },
            6 => Frame::Ping { id: body.get_u32() },
            7 => Frame::GoAway { last: body.get_u32() & 0x7fff_ffff },
            _ => Frame::Other,
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        let plain = self.inflate(block)?;
        let mut rest = plain.as_slice();
        let mut headers = Vec::new();
        for _ in 0..take_u32(&mut rest)? {
            let name = take_text(&mut rest)?;
            headers.push((name, take_text(&mut rest)?));
        }
        Ok(headers)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::with_capacity(1024);
        let mut input = block;
        loop {
            let (before_in, room) = (self.decompress.total_in(), out.capacity());
            let result = self.decompress.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let used = usize::try_from(self.decompress.total_in() - before_in).unwrap_or(input.len());
            input = &input[used.min(input.len())..];
            match result {
                Err(e) if e.needs_dictionary().is_some() && !self.primed => {
                    self.primed = true;
                    self.decompress.set_dictionary(&dictionary()).map_err(|_| SpdyError::Headers)?;
                }
                Err(_) => return Err(SpdyError::Headers),
                Ok(_) if out.len() > MAX_HEADER_BYTES => return Err(SpdyError::Headers),
                // Room left means that all input has been turned into output.
                Ok(_) if out.len() < room => return Ok(out),
                Ok(_) => out.reserve(4096),
            }
        }
    }
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, SpdyError> {
    rest.try_get_u32().map_err(|_| SpdyError::Headers)
}

fn take_text(rest: &mut &[u8]) -> Result<String, SpdyError> {
    let length = take_u32(rest)? as usize;
    let (text, tail) = rest.split_at_checked(length).ok_or(SpdyError::Headers)?;
    *rest = tail;
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adler-32 (RFC 1950), the name of a dictionary in a compressed stream.
    fn adler32(data: &[u8]) -> u32 {
        let (a, b) = data
            .iter()
            .fold((1_u32, 0_u32), |(a, b), &d| ((a + u32::from(d)) % 65521, (b + a + u32::from(d)) % 65521));
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_the_one_of_spdy_3() {
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(adler32(&dictionary()), 0xe3c6_a7c2);
    }

    #[test]
    fn frames_survive_in_any_pieces() {
        let headers =
            |n: u32| vec![("streamtype".to_owned(), "data".to_owned()), ("port".to_owned(), n.to_string())];
        let frames = [
            Frame::SynStream { stream: 1, headers: headers(80), fin: false },
            Frame::SynStream { stream: 3, headers: headers(8080), fin: true },
            Frame::SynReply { stream: 1 },
            Frame::Data { stream: 1, data: Bytes::from_static(b"hello"), fin: true },
            Frame::Reset { stream: 3, status: 1 },
            Frame::Ping { id: 7 },
            Frame::GoAway { last: 3 },
        ];
        let mut encoder = Encoder::new();
        let wire: Vec<u8> = frames.iter().flat_map(|f| encoder.encode(f)).collect();
        for size in [1, 3, 8, wire.len()] {
            let mut decoder = Decoder::new();
            let mut got = Vec::new();
            for piece in wire.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames);
        }
    }

    #[test]
    fn broken_input_is_an_error() {
        let mut decoder = Decoder::new();
        decoder.push(&[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0]);
        assert_eq!(decoder.next(), Err(SpdyError::Short));
        let mut decoder = Decoder::new();
        decoder.push(&[0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(decoder.next(), Err(SpdyError::Headers));
        let mut decoder = Decoder::new();
        decoder.push(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]);
        assert!(matches!(decoder.next(), Err(SpdyError::TooLong(_))));
    }

    #[test]
    fn spoiled_frames_never_panic() {
        let headers = vec![("port".to_owned(), "80".to_owned())];
        let wire = Encoder::new().encode(&Frame::SynStream { stream: 1, headers, fin: false });
        for i in 0..wire.len() {
            for byte in 0..=255 {
                let mut spoiled = wire.to_vec();
                spoiled[i] = byte;
                let mut decoder = Decoder::new();
                decoder.push(&spoiled);
                while let Ok(Some(_)) = decoder.next() {}
            }
        }
    }
}

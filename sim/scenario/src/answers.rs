//! What answers must be like: who answers traffic and whom they see, and what the API server says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use crate::model::{AnsweredBy, Request};

/// Answers that came, by who gave them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answers(BTreeMap<(IpAddr, IpAddr), u32>);

impl Answers {
    /// Takes in that a server at one address has answered a caller whom it saw at another.
    pub fn add(&mut self, server: IpAddr, caller: IpAddr, count: u32) {
        *self.0.entry((server, caller)).or_default() += count;
    }
}

/// What must be so of them, with the addresses of those who are named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Who must have answered.
    pub by: Option<AnsweredBy>,
    /// Addresses of the pods that it names, and of others that may answer instead, with their names.
    pub servers: BTreeMap<IpAddr, String>,
    /// The addresses that the callers may have been seen at.
    pub callers: Option<BTreeSet<IpAddr>>,
}

impl Wanted {
    /// What is not so, if anything; each family is looked at for itself.
    pub fn wrong(&self, answers: &Answers) -> Option<String> {
        [true, false].into_iter().find_map(|v4| {
            let of_family = answers.0.iter().filter(|((server, _), _)| server.is_ipv4() == v4);
            let of_family: Vec<_> = of_family.collect();
            if of_family.is_empty() { None } else { self.wrong_of(&of_family) }
        })
    }

    fn wrong_of(&self, answers: &[(&(IpAddr, IpAddr), &u32)]) -> Option<String> {
        let name = |ip: &IpAddr| self.servers.get(ip).cloned().unwrap_or_else(|| ip.to_string());
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        for ((server, _), count) in answers {
            *found.entry(name(server)).or_default() += **count;
        }
        let told =
            || found.iter().map(|(name, count)| format!("{name} ({count})")).collect::<Vec<_>>().join(", ");
        let strange =
            |pods: &[String]| found.keys().any(|name| !pods.iter().any(|pod| pod_name(pod) == *name));
        match &self.by {
            Some(AnsweredBy::Each(pods)) if strange(pods) || found.len() != pods.len() => {
                return Some(format!(
                    "each of {} shall answer and nobody else, it was {}",
                    pods.join(", "),
                    told()
                ));
            }
            Some(AnsweredBy::One(pods)) if strange(pods) || found.len() != 1 => {
                return Some(format!("one of {} shall answer all, it was {}", pods.join(", "), told()));
            }
            Some(AnsweredBy::Several(pods)) if strange(pods) || found.len() < 2 => {
                return Some(format!("several of {} shall answer, it was {}", pods.join(", "), told()));
            }
            _ => {}
        }
        let callers = self.callers.as_ref()?;
        let other = answers.iter().map(|((_, caller), _)| caller).find(|caller| !callers.contains(caller))?;
        Some(format!("the caller was seen at {other}, not at {callers:?}"))
    }
}

/// A pod as `namespace/name`, as [`Wanted::servers`] has it.
pub fn pod_name(pod: &str) -> String {
    if pod.contains('/') { pod.to_owned() } else { format!("default/{pod}") }
}

impl Request {
    /// What is wrong with the answer: `status` is that of HTTP, `answer` the object, or the Status of a refusal.
    pub fn wrong(&self, status: u16, answer: &Value) -> Option<String> {
        let what = format!("{} {}", self.method.word(), self.path);
        let told = || answer["message"].as_str().map(|text| format!(": {text}")).unwrap_or_default();
        let is_refused = status >= 400;
        match self.refused {
            Some(code) if code != status => {
                return Some(format!("{what} shall be refused with {code}, it was {status}{}", told()));
            }
            None if is_refused => return Some(format!("{what} was refused with {status}{}", told())),
            _ => {}
        }
        if let Some(words) = self.says.as_ref().filter(|words| !answer.to_string().contains(words.as_str())) {
            return Some(format!("{what} does not say `{words}`, it says {answer}"));
        }
        let at = lacks(answer, self.has.as_ref()?, "")?;
        Some(format!("{what}: {at}"))
    }
}

/// The first place where a value is not as it shall be, with what is there.
fn lacks(found: &Value, wanted: &Value, place: &str) -> Option<String> {
    match (wanted, found) {
        (Value::Object(fields), Value::Object(_)) => {
            fields.iter().find_map(|(name, wanted)| lacks(&found[name], wanted, &format!("{place}.{name}")))
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            let pairs = items.iter().zip(others).enumerate();
            pairs.into_iter().find_map(|(i, (wanted, found))| lacks(found, wanted, &format!("{place}[{i}]")))
        }
        _ if wanted == found => None,
        _ => {
            Some(format!("{} is {found}, not {wanted}", if place.is_empty() { "the answer" } else { place }))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Method;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn who_answers_and_whom_they_see_is_asked_for_each_family() {
        let six = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
        let servers =
            [(ip(1), "default/a"), (six(1), "default/a"), (ip(2), "default/b"), (six(2), "default/b")];
        let servers: BTreeMap<IpAddr, String> =
            servers.into_iter().map(|(ip, name)| (ip, name.to_owned())).collect();
        let both = vec!["a".to_owned(), "b".to_owned()];
        let several = AnsweredBy::Several(both.clone());
        let (each, one) = (AnsweredBy::Each(both.clone()), AnsweredBy::One(both));
        let only_a = AnsweredBy::Each(vec!["a".to_owned()]);
        for (by, came, good) in [
            (&each, vec![ip(1), ip(2)], true),
            (&each, vec![ip(1)], false),
            (&each, vec![ip(1), ip(2), ip(3)], false),
            (&each, vec![ip(1), ip(2), six(1)], false),
            (&one, vec![ip(1)], true),
            (&one, vec![ip(2), six(1)], true),
            (&one, vec![ip(1), ip(2)], false),
            (&one, vec![ip(3)], false),
            (&several, vec![ip(1), ip(2)], true),
            (&several, vec![ip(1)], false),
            (&several, vec![ip(1), ip(3)], false),
            (&only_a, vec![ip(1)], true),
            (&only_a, vec![ip(2)], false),
        ] {
            let mut answers = Answers::default();
            for server in &came {
                answers.add(*server, ip(9), 3);
            }
            let wanted = Wanted { by: Some(by.clone()), servers: servers.clone(), callers: None };
            assert_eq!(wanted.wrong(&answers).is_none(), good, "{by:?} {came:?}");
        }
        let mut answers = Answers::default();
        answers.add(ip(1), ip(9), 1);
        for (caller, good) in [(9, true), (8, false)] {
            let wanted = Wanted { callers: Some([ip(caller)].into()), ..Wanted::default() };
            assert_eq!(wanted.wrong(&answers).is_none(), good);
        }
    }

    #[test]
    fn an_answer_of_the_api_server_has_what_it_shall() {
        let request = Request {
            method: Method::Get,
            path: "/x".to_owned(),
            body: None,
            refused: None,
            has: Some(json!({"spec": {"ports": [{"port": 80}], "clusterIP": null}})),
            says: None,
        };
        let ports = |ports: Value| json!({"kind": "Service", "spec": {"ports": ports}});
        assert_eq!(request.wrong(200, &ports(json!([{"port": 80, "name": "a"}]))), None);
        for (status, answer) in [
            (404, ports(json!([{"port": 80}]))),
            (200, ports(json!([{"port": 81}]))),
            (200, ports(json!([{"port": 80}, {"port": 81}]))),
            (200, json!({"spec": {"ports": [{"port": 80}], "clusterIP": "10.0.0.1"}})),
        ] {
            assert!(request.wrong(status, &answer).is_some(), "{status} {answer}");
        }
        let refused = Request { refused: Some(422), says: Some("taken".to_owned()), has: None, ..request };
        assert_eq!(refused.wrong(422, &json!({"message": "port is taken"})), None);
        for (status, words) in [(200, "taken"), (409, "taken"), (422, "no")] {
            assert!(refused.wrong(status, &json!({"message": words})).is_some(), "{status} {words}");
        }
    }
}

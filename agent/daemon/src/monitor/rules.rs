//! What cookies of events stand for, as the monitor's thread knows it.
//!
//! The control thread says what has changed; nobody waits for anybody. An event is older than its reader, so each name has the
//! time from which it holds, and one that is gone is kept for the events that are still on their way.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};

use agent_control::RuleNames;

/// How long a name that is gone is kept. The ring buffer is read many times in that time.
const KEEP_NS: u64 = 10_000_000_000;

/// What has changed about cookies.
#[derive(Debug)]
pub(crate) struct NamesChanged {
    /// Monotonic time from which it holds.
    pub(crate) since_ns: u64,
    /// What they stand for.
    pub(crate) names: RuleNames,
}

#[derive(Debug)]
struct Name {
    rules: Arc<[String]>,
    from_ns: u64,
    gone_ns: Option<u64>,
}

/// The names of cookies.
#[derive(Debug)]
pub(super) struct Rules {
    changes: mpsc::Receiver<NamesChanged>,
    names: HashMap<u32, Name>,
    /// Some of them are gone.
    any_gone: bool,
}

impl Rules {
    /// Nothing is known yet.
    pub(super) fn new(changes: mpsc::Receiver<NamesChanged>) -> Self {
        Self { changes, names: HashMap::new(), any_gone: false }
    }

    /// Nobody listens any more, or somebody begins to: all will be told anew.
    pub(super) fn forget(&mut self) {
        self.names = HashMap::new();
        self.any_gone = false;
    }

    /// Takes note of what has been said, and lets go of what is gone for long.
    pub(super) fn follow(&mut self, now_ns: u64) {
        while let Ok(changed) = self.changes.try_recv() {
            self.take(changed);
        }
        if self.any_gone {
            let keep = |name: &Name| name.gone_ns.is_none_or(|gone| gone.saturating_add(KEEP_NS) > now_ns);
            self.names.retain(|_, name| keep(name));
            self.any_gone = self.names.values().any(|name| name.gone_ns.is_some());
        }
    }

    fn take(&mut self, changed: NamesChanged) {
        for (cookie, rules) in changed.names {
            match (rules, self.names.get_mut(&cookie)) {
                // It has come back as what it was.
                (Some(rules), Some(known)) if known.rules == rules => known.gone_ns = None,
                (Some(rules), _) => {
                    self.names.insert(cookie, Name { rules, from_ns: changed.since_ns, gone_ns: None });
                }
                (None, Some(known)) => {
                    known.gone_ns = Some(changed.since_ns);
                    self.any_gone = true;
                }
                (None, None) => {}
            }
        }
    }

    /// What a cookie stood for at that time; nothing where that is not sure.
    pub(super) fn at(&mut self, cookie: u32, time_ns: u64) -> Vec<String> {
        if cookie == 0 {
            return Vec::new();
        }
        if !self.names.contains_key(&cookie) {
            self.follow(time_ns);
        }
        let name = self.names.get(&cookie).filter(|name| name.from_ns <= time_ns);
        name.map(|name| name.rules.to_vec()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> (mpsc::Sender<NamesChanged>, Rules) {
        let (sender, receiver) = mpsc::channel();
        (sender, Rules::new(receiver))
    }

    fn say(sender: &mpsc::Sender<NamesChanged>, since_ns: u64, cookie: u32, name: Option<&str>) {
        let name = name.map(|name| Arc::from([name.to_owned()]));
        sender.send(NamesChanged { since_ns, names: [(cookie, name)].into() }).unwrap();
    }

    #[test]
    fn an_event_that_is_older_than_the_name_has_none() {
        let (sender, mut rules) = rules();
        say(&sender, 100, 7, Some("a"));
        assert_eq!(rules.at(7, 99), Vec::<String>::new());
        assert_eq!(rules.at(7, 100), ["a"]);
        assert_eq!(rules.at(0, 100), Vec::<String>::new(), "no cookie stands for nothing");
    }

    #[test]
    fn a_number_that_stands_for_something_else_now_names_nothing_wrong() {
        let (sender, mut rules) = rules();
        say(&sender, 100, 7, Some("a"));
        say(&sender, 200, 7, None);
        say(&sender, 300, 7, Some("b"));
        rules.follow(300);
        assert_eq!(rules.at(7, 150), Vec::<String>::new(), "what it was then is not known any more");
        assert_eq!(rules.at(7, 300), ["b"]);
    }

    #[test]
    fn what_is_gone_is_known_for_events_on_their_way() {
        let (sender, mut rules) = rules();
        say(&sender, 100, 7, Some("a"));
        say(&sender, 200, 7, None);
        rules.follow(250);
        assert_eq!(rules.at(7, 190), ["a"]);
        rules.follow(200 + KEEP_NS);
        assert_eq!(rules.at(7, 190), Vec::<String>::new());
        say(&sender, 300, 8, Some("b"));
        say(&sender, 400, 8, None);
        say(&sender, 500, 8, Some("b"));
        rules.follow(500 + 2 * KEEP_NS);
        assert_eq!(rules.at(8, 350), ["b"], "it has come back");
    }
}

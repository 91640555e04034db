//! What is not possible in a scenario although its form is right.
//!
//! The steps are walked in order with what exists at each of them. A scenario that passes can be carried out; whether its
//! expectations are right for every run is another question, see [`crate::judge`].

mod cluster;
pub(crate) mod fault;
pub(crate) mod objects;
pub(crate) mod traffic;

use std::time::Duration;

use crate::error::{Invalid, Problem, hint};
use crate::model::{Action, Expect, Method, Place, Request, Scenario, Until, Wait, time};
use crate::path::Path;
use objects::{Objects, PodKey};

/// Whether the API server has objects of a kind, by its group (empty: the core group) and name.
pub type KnowsKind = fn(&str, &str) -> bool;

/// The words that the caller knows.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Names of drop reasons.
    pub drop_reasons: &'a [&'a str],
    /// Names of tables.
    pub tables: &'a [&'a str],
    /// Kinds of objects; `None`: any may be there.
    pub kinds: Option<KnowsKind>,
}

impl Scenario {
    /// Judges whether it can be carried out. Places are step numbers; [`Scenario::parse_valid`] has lines.
    ///
    /// # Errors
    /// Everything that is not possible.
    pub fn validate(&self, known: &Known<'_>) -> Result<(), Invalid> {
        let mut walk = Walk {
            scenario: self,
            known,
            objects: Objects::new(self.cluster.nodes),
            at: Path::default(),
            problems: Vec::new(),
        };
        walk.head();
        cluster::check(&mut walk);
        let mut latest = Duration::ZERO;
        for (index, step) in self.steps.iter().enumerate() {
            walk.at = Path::step(index);
            if let Some(at) = step.at {
                if at < latest {
                    walk.wrong(
                        "at",
                        format!("{} is before {} of an earlier step", time::text(at), time::text(latest)),
                    );
                }
                latest = latest.max(at);
            }
            walk.step(index, &step.action);
        }
        if walk.problems.is_empty() { Ok(()) } else { Err(Invalid { problems: walk.problems }) }
    }
}

struct Walk<'a> {
    scenario: &'a Scenario,
    known: &'a Known<'a>,
    objects: Objects,
    /// The step, or another place.
    at: Path,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    /// Something is wrong at a field of the present place; the name may have dots.
    fn wrong(&mut self, field: &str, message: impl Into<String>) {
        let path = field.split('.').filter(|part| !part.is_empty()).fold(self.at.clone(), Path::field);
        self.problems.push(Problem::new(path, message));
    }

    fn head(&mut self) {
        let name = &self.scenario.name;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        {
            self.wrong("name", format!("`{name}` is no name: write lower case letters, digits and `-`"));
        }
    }

    fn step(&mut self, index: usize, action: &Action) {
        match action {
            Action::Pod(pod) => self.pod(pod),
            Action::DeletePod(name) => {
                let key = PodKey::parse(name);
                if let Err(message) = self.objects.delete_pod(&key) {
                    self.wrong("delete-pod", message);
                }
            }
            Action::Apply(items) => {
                for item in items {
                    let known = self
                        .objects
                        .apply(item)
                        .and_then(|()| self.objects.knows_kinds(item, self.known.kinds));
                    if let Err(message) = known {
                        self.wrong("apply", message);
                    }
                }
            }
            Action::Delete(object) => {
                if let Err(message) = self.objects.delete(object) {
                    self.wrong("delete", message);
                }
            }
            Action::Wait(wait) => self.wait(wait),
            Action::Traffic(traffic) => traffic::check(self, traffic),
            Action::Fault(fault) => fault::check(self, index, fault),
            Action::Request(request) => self.request(request),
            Action::Expect(expect) => self.expect(expect),
        }
    }

    fn request(&mut self, request: &Request) {
        if !request.path.starts_with('/') {
            self.wrong("request.path", format!("`{}` is no path: it begins with `/`", request.path));
        }
        if matches!(request.refused, Some(code) if !(400..600).contains(&code)) {
            self.wrong("request.refused", "a request is refused with a status from 400 to 599");
        }
        let makes = matches!(request.method, Method::Post | Method::Put) && request.refused.is_none();
        if let (true, Some(body)) = (makes, &request.body)
            && let Err(message) = self.objects.apply(body)
        {
            self.wrong("request.body", message);
        }
    }

    fn pod(&mut self, pod: &crate::model::Pod) {
        for (field, name) in [("pod.name", &pod.name), ("pod.namespace", &pod.namespace)] {
            if !is_label(name) {
                self.wrong(
                    field,
                    format!(
                        "`{name}` is no name: up to 63 lower case letters, digits and `-`, no `-` at an end"
                    ),
                );
            }
        }
        if let Some(node) = &pod.node {
            self.node("pod.node", node);
        }
        for (i, serve) in pod.serve.iter().enumerate() {
            let udp = |serve: &crate::model::Serve| serve.kind == crate::model::ServeKind::Udp;
            let clash = |other: &&crate::model::Serve| other.port == serve.port && udp(other) == udp(serve);
            if let Some(other) = pod.serve[..i].iter().find(clash) {
                self.wrong("pod.serve", format!("`{serve}` and `{other}` want the same port"));
            }
        }
        for (name, port) in &pod.ports {
            if !pod.serve.iter().any(|serve| serve.port == *port) {
                self.wrong("pod.ports", format!("`{name}` names port {port}, which the pod does not serve"));
            }
        }
        if pod.linger.subsec_nanos() != 0 {
            self.wrong("pod.linger", "a pod lingers for whole seconds");
        }
        if let Err(message) = self.objects.make_pod(PodKey::of(pod), Some(pod.serve.clone())) {
            self.wrong("pod.name", message);
        }
    }

    fn node(&mut self, field: &str, name: &str) {
        if let Err(message) = self.objects.node(name) {
            self.wrong(field, message);
        }
    }

    fn wait(&mut self, wait: &Wait) {
        match &wait.until {
            Until::Ready | Until::Rest => self.objects.everything_settled(),
            Until::Traffic(id) => self.known_traffic("wait.for", id),
            Until::Time(_) if wait.within != Wait::new(Until::Ready).within => {
                self.wrong("wait.within", "`within` makes no sense for a time: it takes as long as it takes");
            }
            Until::Time(_) => {}
        }
    }

    fn known_traffic(&mut self, field: &str, id: &str) {
        if self.objects.traffic.contains(id) {
            return;
        }
        let known: Vec<&str> = self.objects.traffic.iter().map(String::as_str).collect();
        let hint = hint(id, &known);
        self.wrong(field, format!("no traffic with the id `{id}` has begun before this step{hint}"));
    }

    fn expect(&mut self, expect: &Expect) {
        match expect {
            Expect::PodsReady(count) => {
                let most = self.objects.alive();
                if !self.objects.workloads_applied() && usize::try_from(*count).unwrap_or(usize::MAX) > most {
                    self.wrong(
                        "expect.pods-ready",
                        format!("{count} pods cannot be ready: there are {most}"),
                    );
                }
            }
            Expect::Allocated(_) | Expect::NoDrops => {}
            Expect::Drops { reason, at_least } => {
                if !self.known.drop_reasons.contains(&reason.as_str()) {
                    let hint = hint(reason, self.known.drop_reasons);
                    self.wrong("expect.drops.reason", format!("`{reason}` is no drop reason{hint}"));
                }
                if *at_least == 0 {
                    self.wrong("expect.drops.at-least", "at least 0 is always so");
                }
            }
            Expect::Lost { traffic, .. } => self.known_traffic("expect.lost.traffic", traffic),
            Expect::NotReady(name) => {
                if let Err(message) = self.objects.pod(&PodKey::parse(name)) {
                    self.wrong("expect.not-ready", message);
                }
            }
        }
    }

    fn place(&mut self, field: &str, place: &Place) {
        match place {
            Place::Pod { namespace, name } => {
                if let Err(message) = self.objects.pod(&PodKey::new(namespace, name)) {
                    self.wrong(field, message);
                }
            }
            Place::Node(name) | Place::NodePort(name) => self.node(field, name),
            Place::Service { namespace, name } => {
                if !self.objects.has_service(namespace, name) {
                    self.wrong(field, format!("there is no service `{namespace}/{name}` at this step"));
                }
            }
            Place::World(_) | Place::Address(_) => {}
        }
    }

    fn knows_table(&self, name: &str) -> bool {
        self.known.tables.contains(&name)
    }

    fn table(&mut self, field: &str, name: &str) {
        if !self.knows_table(name) {
            let hint = hint(name, self.known.tables);
            self.wrong(
                field,
                format!("`{name}` is no table; there are {}{hint}", self.known.tables.join(", ")),
            );
        }
    }
}

/// A name by RFC 1123, section 2.1, as Kubernetes wants it.
fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

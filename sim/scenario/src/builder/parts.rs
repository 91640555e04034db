//! What belongs to one step.

use std::time::Duration;

use crate::model::{Families, Fault, Kill, Pod, Traffic, TrafficExpect, TrafficKind};

/// A pod in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct PodBuilder {
    pub(super) pod: Pod,
    /// Fields and what is wrong with them.
    pub(super) wrong: Vec<(String, String)>,
}

impl PodBuilder {
    pub(super) fn new(name: &str) -> Self {
        let pod = Pod::new(name);
        Self { pod, wrong: Vec::new() }
    }

    /// Its namespace; `default` otherwise.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.pod.namespace);
        self
    }

    /// Its node; otherwise the scheduler chooses.
    pub fn node(mut self, node: &str) -> Self {
        self.pod.node = Some(node.to_owned());
        self
    }

    /// A label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.pod.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// A server in it: `http:8080`, `tcp:9000`, `udp:5353`.
    pub fn serve(mut self, server: &str) -> Self {
        match server.parse() {
            Ok(serve) => self.pod.serve.push(serve),
            Err(message) => self.wrong.push(("serve".to_owned(), message)),
        }
        self
    }
}

/// Traffic in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct TrafficBuilder(pub(super) Traffic);

impl TrafficBuilder {
    /// Requests to a port.
    pub const fn http(self, port: u16) -> Self {
        self.to(TrafficKind::Http, port)
    }

    /// One connection to a port.
    pub const fn tcp(self, port: u16) -> Self {
        self.to(TrafficKind::Tcp, port)
    }

    /// Datagrams to a port.
    pub const fn udp(self, port: u16) -> Self {
        self.to(TrafficKind::Udp, port)
    }

    const fn to(mut self, kind: TrafficKind, port: u16) -> Self {
        self.0.kind = kind;
        self.0.port = Some(port);
        self
    }

    /// So many.
    pub const fn count(mut self, count: u32) -> Self {
        self.0.count = count;
        self
    }

    /// Pause between two.
    pub const fn every(mut self, interval: Duration) -> Self {
        self.0.interval = interval;
        self
    }

    /// Bytes of each.
    pub const fn size(mut self, bytes: u16) -> Self {
        self.0.size = bytes;
        self
    }

    /// How long each may take.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = timeout;
        self
    }

    /// Family to use.
    pub const fn family(mut self, family: Families) -> Self {
        self.0.family = Some(family);
        self
    }

    /// What must come of it.
    pub const fn expect(mut self, expect: TrafficExpect) -> Self {
        self.0.expect = expect;
        self
    }

    /// Nobody waits for it.
    pub const fn background(mut self) -> Self {
        self.0.background = true;
        self
    }
}

/// A fault in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct FaultBuilder(pub(super) Fault);

impl FaultBuilder {
    /// The node it happens to.
    pub fn node(mut self, node: &str) -> Self {
        self.0.node = Some(node.to_owned());
        self
    }

    /// How long it lasts.
    pub const fn lasts(mut self, time: Duration) -> Self {
        self.0.lasts = Some(time);
        self
    }
}

/// A death in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct KillBuilder(pub(super) Kill);

impl KillBuilder {
    /// It dies after so many more commands.
    pub const fn after_commands(mut self, commands: u32) -> Self {
        self.0.after_commands = Some(commands);
        self
    }

    /// It is started again so much later.
    pub const fn restart_after(mut self, time: Duration) -> Self {
        self.0.restart_after = time;
        self
    }

    /// It finds its state directory as it was so much before.
    pub const fn snapshot_age(mut self, age: Duration) -> Self {
        self.0.snapshot_age = age;
        self
    }
}

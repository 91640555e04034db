//! A software switch in place of the fabric's bridge: every frame between nodes passes a thread that can lose, hold back or change it.
//!
//! Each node's link ends in a network namespace of the switch, where a packet socket reads it. Nothing else is in that namespace, so the
//! kernel there forwards and answers nothing by itself.
//! Start reading at [`Switch`], then [`link`] (what a broken link does to a frame).

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use agent_node::{Netns, NetnsError, PacketSocket};
use nix::sys::eventfd::{EfdFlags, EventFd};

mod forward;
mod frame;
pub mod link;

use forward::Forwarder;
pub use link::{LinkCounters, LinkFault};

/// The switch did not start.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Its namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A socket or the thread.
    #[error("{step}")]
    Io {
        /// What was tried.
        step: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What a port leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortKind {
    /// A node: its link may be broken.
    Node,
    /// The fabric's router and the API server.
    Fabric,
}

/// What is asked of a port now.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    name: String,
    kind: PortKind,
    fault: Option<LinkFault>,
    partitioned: bool,
    connected: bool,
    counters: LinkCounters,
}

#[derive(Debug)]
struct Shared {
    ports: Mutex<Vec<Port>>,
    stop: AtomicBool,
    wake: EventFd,
}

impl Shared {
    fn ports(&self) -> MutexGuard<'_, Vec<Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running switch; it ends when this is dropped.
#[derive(Debug)]
pub struct Switch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts forwarding between links of this namespace, which must be up: one to the fabric and one to each node. Frames to and from the
    /// `exempt` addresses pass whatever is broken. Equal seeds make equal choices for equal frames in equal order.
    ///
    /// # Errors
    /// When a link is missing or the thread cannot be made.
    pub(crate) fn start(
        netns: Netns,
        links: &[(String, PortKind)],
        exempt: Vec<IpAddr>,
        seed: u64,
    ) -> Result<Self, SwitchError> {
        let failed = |step: &str| {
            let step = step.to_owned();
            move |source: io::Error| SwitchError::Io { step, source }
        };
        let sockets = netns
            .run(|| -> io::Result<Vec<PacketSocket>> {
                let mut netlink = agent_node::Netlink::open().map_err(io::Error::other)?;
                let open = |(name, _): &(String, PortKind)| {
                    PacketSocket::open(netlink.link(name).map_err(io::Error::other)?.index)
                };
                links.iter().map(open).collect()
            })?
            .map_err(failed("open the switch's ports"))?;
        let port = |(name, kind): &(String, PortKind)| Port {
            name: name.clone(),
            kind: *kind,
            fault: None,
            partitioned: false,
            connected: true,
            counters: LinkCounters::default(),
        };
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| failed("make the switch's wake-up")(errno.into()))?;
        let shared = Arc::new(Shared {
            ports: Mutex::new(links.iter().map(port).collect()),
            stop: AtomicBool::new(false),
            wake,
        });
        let forwarder = Forwarder::new(Arc::clone(&shared), sockets, exempt, seed);
        let thread = std::thread::Builder::new()
            .name("lab-switch".into())
            // The namespace lives as long as something holds it.
            .spawn(move || forwarder.run(&netns))
            .map_err(failed("start the switch"))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Breaks the link of a node, or mends it (`None`). False if there is no such node.
    pub fn set_fault(&self, node: &str, fault: Option<LinkFault>) -> bool {
        self.change(node, |port| port.fault = fault)
    }

    /// Lets nothing pass between a node and other nodes. False if there is no such node.
    pub fn set_partitioned(&self, node: &str, partitioned: bool) -> bool {
        self.change(node, |port| port.partitioned = partitioned)
    }

    /// Lets nothing pass at all, as with a pulled cable. False if there is no such node.
    pub fn set_connected(&self, node: &str, connected: bool) -> bool {
        self.change(node, |port| port.connected = connected)
    }

    /// What happened to frames on a node's link so far, both ways together.
    pub fn counters(&self, node: &str) -> Option<LinkCounters> {
        self.shared.ports().iter().find(|port| port.name == node).map(|port| port.counters)
    }

    fn change(&self, node: &str, change: impl FnOnce(&mut Port)) -> bool {
        let mut ports = self.shared.ports();
        let port = ports.iter_mut().find(|port| port.kind == PortKind::Node && port.name == node);
        port.map(change).is_some()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            // It panicked: there is nothing left to end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

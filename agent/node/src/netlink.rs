//! A route netlink socket: requests, acknowledgements, dumps.

pub(crate) mod wire;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use self::wire::{Message, Received, messages, read_u32};
use crate::netns::Netns;

/// A netlink request that the kernel refused, or that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}{}", explanation.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct NetlinkError {
    /// What was tried, in the words of `ip`: `add link`, `list routes`.
    pub operation: &'static str,
    /// The thing it was tried on.
    pub object: String,
    /// The kernel's own sentence, where it gave one (extended acknowledgement).
    pub explanation: Option<String>,
    /// The error number.
    #[source]
    pub source: io::Error,
}

impl NetlinkError {
    pub(crate) fn new(
        operation: &'static str,
        object: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self { operation, object: object.into(), explanation: None, source: source.into() }
    }

    /// The kernel's error number.
    pub fn errno(&self) -> Option<Errno> {
        self.source.raw_os_error().map(Errno::from_raw)
    }

    /// True if the thing to be made is there already (`EEXIST`).
    pub fn already_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// True if the thing is not there: device, address, route or neighbour (`ENODEV`, `ENOENT`, `ESRCH`, `EADDRNOTAVAIL`, `ENXIO`).
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENXIO)
        )
    }
}

/// One request with the words for its error.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) operation: &'static str,
    pub(crate) object: String,
    pub(crate) message: Message,
}

impl Request {
    pub(crate) fn new(operation: &'static str, object: impl Into<String>, message: Message) -> Self {
        Self { operation, object: object.into(), message }
    }
}

/// A route netlink socket. It stays with the network namespace in which it was opened, whatever thread uses it.
///
/// The methods are spread over the modules by what they are about: [`crate::link`], [`crate::address`], [`crate::route`],
/// [`crate::neighbour`].
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Large enough for what the kernel puts into one datagram of a dump (it asks for 32 KiB).
const BUFFER_LEN: usize = 64 * 1024;

/// Only a kernel in trouble takes this long; better an error than an agent that hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A dump that another program's changes interrupted is started again this often.
const DUMP_ATTEMPTS: usize = 20;

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket (no descriptors left, no permission by seccomp).
    pub fn open() -> Result<Self, NetlinkError> {
        let error = |errno: Errno| NetlinkError::new("open", "route netlink socket", errno);
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
                .map_err(error)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(error)?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(error)?;
        let timeout = TimeVal::new(ANSWER_TIMEOUT.as_secs().cast_signed(), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(error)?;
        // Acknowledgements with a sentence and without an echo of the request, and dumps filtered by the kernel. All three are refinements
        // (the answers are read the same way without them), so a kernel that refuses is no error.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            enable(&socket, option);
        }
        Ok(Self { socket, sequence: 1, buffer: vec![0; BUFFER_LEN] })
    }

    /// Opens a socket in another network namespace. The calling thread stays where it is.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the socket not be opened.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        netns
            .run_here(Self::open)
            .map_err(|error| NetlinkError::new("open", "route netlink socket", io::Error::other(error)))?
    }

    /// Sends one request and waits until the kernel has carried it out.
    pub(crate) fn request(&mut self, request: Request) -> Result<(), NetlinkError> {
        self.batch(vec![request]).pop().expect("one result per request")
    }

    /// Sends requests in one go and waits for all of them; the kernel carries them out in order, the later ones also when an earlier one fails.
    /// One result per request, in the same order.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> Vec<Result<(), NetlinkError>> {
        let first = self.sequence;
        let mut datagram = Vec::new();
        let mut names = Vec::with_capacity(requests.len());
        for request in requests {
            datagram.extend(request.message.finish(self.sequence, true));
            self.sequence = self.sequence.wrapping_add(1);
            names.push((request.operation, request.object));
        }
        let answers = self.send(&datagram).and_then(|()| self.acknowledgements(first, names.len()));
        names
            .into_iter()
            .enumerate()
            .map(|(index, (operation, object))| match &answers {
                Ok(answers) => match &answers[index] {
                    Acknowledgement { errno: 0, .. } => Ok(()),
                    Acknowledgement { errno, explanation } => {
                        let source = io::Error::from_raw_os_error(*errno);
                        Err(NetlinkError { operation, object, explanation: explanation.clone(), source })
                    }
                },
                Err(errno) => Err(NetlinkError::new(operation, object, *errno)),
            })
            .collect()
    }

    /// Sends a dump request and hands every message of the answer to `each`.
    pub(crate) fn dump<T>(
        &mut self,
        operation: &'static str,
        object: &str,
        make: impl Fn() -> Message,
        mut each: impl FnMut(Received<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.sequence;
            self.sequence = self.sequence.wrapping_add(1);
            let outcome = self
                .send(&make().finish(sequence, false))
                .and_then(|()| self.dump_answer(sequence, &mut each));
            match outcome {
                Ok(Some(items)) => return Ok(items),
                Ok(None) => {}
                Err(errno) => return Err(NetlinkError::new(operation, object, errno)),
            }
        }
        Err(NetlinkError::new(operation, object, Errno::EAGAIN))
    }

    /// Reads one dump to its end; `None` if it was interrupted by changes and may have holes.
    fn dump_answer<T>(
        &mut self,
        sequence: u32,
        each: &mut impl FnMut(Received<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Errno> {
        let mut items = Vec::new();
        let mut interrupted = false;
        loop {
            let length = self.receive()?;
            for message in messages(&self.buffer[..length]).filter(|message| message.sequence == sequence) {
                interrupted |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        let code = read_u32(message.payload, 0).unwrap_or(0).cast_signed();
                        return match code {
                            0 if interrupted => Ok(None),
                            0 => Ok(Some(items)),
                            code => Err(Errno::from_raw(-code)),
                        };
                    }
                    _ => items.extend(each(message)),
                }
            }
        }
    }

    fn acknowledgements(&mut self, first: u32, count: usize) -> Result<Vec<Acknowledgement>, Errno> {
        let mut answers: Vec<Option<Acknowledgement>> = Vec::new();
        answers.resize_with(count, || None);
        while answers.iter().any(Option::is_none) {
            let length = self.receive()?;
            for message in messages(&self.buffer[..length]) {
                let index = message.sequence.wrapping_sub(first) as usize;
                // Anything else is left over from an operation that timed out.
                if i32::from(message.kind) == libc::NLMSG_ERROR && index < count {
                    answers[index] = Some(Acknowledgement::read(&message));
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        loop {
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                result => return result,
            }
        }
    }
}

/// What the kernel answered to one request.
#[derive(Debug)]
struct Acknowledgement {
    /// 0 for success.
    errno: i32,
    explanation: Option<String>,
}

impl Acknowledgement {
    /// Reads `struct nlmsgerr` and the extended attributes behind it.
    fn read(message: &Received<'_>) -> Self {
        let errno = -read_u32(message.payload, 0).unwrap_or(0).cast_signed();
        let capped = i32::from(message.flags) & libc::NLM_F_CAPPED != 0;
        let echoed =
            if capped { wire::HEADER_LEN } else { read_u32(message.payload, 4).unwrap_or(0) as usize };
        let rest = message.payload.get(4 + echoed.next_multiple_of(4)..).unwrap_or_default();
        /// `NLMSGERR_ATTR_MSG`
        const TEXT: u16 = 1;
        let explanation =
            wire::attributes(rest).find(|(kind, _)| *kind == TEXT).map(|(_, value)| wire::read_str(value));
        Self { errno, explanation }
    }
}

/// Switches a netlink socket option on, if the kernel has it.
fn enable(socket: &OwnedFd, option: libc::c_int) {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).expect("four bytes");
    // SAFETY: the descriptor is open, and the pointer and length describe `on`, which outlives the call; the kernel only reads it.
    let _refused = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), length)
    };
}

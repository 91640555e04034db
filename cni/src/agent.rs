//! One exchange with the agent.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_api::cni::{CniError, ErrorCode, MAX_MESSAGE_BYTES, Reply, Request};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// Nobody listens: the agent is not running, or is just being replaced.
    #[error("no agent listens on {}", .0.display())]
    Down(PathBuf),
    /// It went away before it had answered.
    #[error("the agent on {} ended before it answered", .0.display())]
    Ended(PathBuf),
    /// It did not answer in time.
    #[error("the agent on {} did not answer within {timeout_s} s", socket.display())]
    Timeout { socket: PathBuf, timeout_s: u64 },
    /// It answered something that this plugin does not understand.
    #[error("the agent on {} answered something unknown", .0.display())]
    Answer(PathBuf, #[source] serde_json::Error),
    /// The request does not fit into a message.
    #[error("the request is {0} bytes long, more than the {MAX_MESSAGE_BYTES} that fit into one message")]
    TooLong(usize),
    /// Anything else.
    #[error("{operation} {}", socket.display())]
    Io {
        operation: &'static str,
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<ExchangeError> for CniError {
    fn from(error: ExchangeError) -> Self {
        let (code, advice) = match &error {
            ExchangeError::Down(_) => {
                (ErrorCode::TRY_AGAIN, "; start bristle-agent on this node, or look at its log")
            }
            ExchangeError::Ended(_) => {
                (ErrorCode::TRY_AGAIN, "; it is restarting or crashed, look at its log if this repeats")
            }
            ExchangeError::Timeout { .. } => {
                (ErrorCode::TRY_AGAIN, "; look at its log and at `bristle status`")
            }
            ExchangeError::Answer(..) => {
                (ErrorCode::TRY_AGAIN, "; bristle-cni and bristle-agent must be of the same version")
            }
            ExchangeError::TooLong(_) => {
                (ErrorCode::INVALID_NETWORK_CONFIG, "; make the network configuration shorter")
            }
            ExchangeError::Io { .. } => {
                (ErrorCode::IO_FAILURE, "; the plugin must run as root on the node's file system")
            }
        };
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Self::new(code, format!("{error}{advice}")).with_details(cause)
    }
}

/// A connection to the agent.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    path: PathBuf,
    timeout: Duration,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`ExchangeError::Down`] if nobody listens.
    pub(crate) fn open(path: &Path, timeout: Duration) -> Result<Self, ExchangeError> {
        let failed = |operation| {
            move |errno: Errno| ExchangeError::Io { operation, socket: path.into(), source: errno.into() }
        };
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
            .map_err(failed("make a socket for"))?;
        let limit = TimeVal::new(timeout.as_secs().cast_signed(), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit).map_err(failed("set the timeout of"))?;
        setsockopt(&socket, sockopt::SendTimeout, &limit).map_err(failed("set the timeout of"))?;
        let address = UnixAddr::new(path).map_err(failed("connect to"))?;
        let connection = Self { socket, path: path.into(), timeout };
        match connect(connection.socket.as_raw_fd(), &address) {
            Ok(()) => Ok(connection),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Err(ExchangeError::Down(path.into())),
            // The agent's queue of connections is full and did not move.
            Err(Errno::EAGAIN) => Err(connection.timed_out()),
            Err(errno) => Err(failed("connect to")(errno)),
        }
    }

    /// Sends the request with the descriptor, if there is one, and waits for the answer.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub(crate) fn exchange(
        self,
        request: &Request,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, ExchangeError> {
        let bytes =
            serde_json::to_vec(request).map_err(|error| ExchangeError::Answer(self.path.clone(), error))?;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(ExchangeError::TooLong(bytes.len()));
        }
        let descriptors: Vec<_> = netns.iter().map(AsRawFd::as_raw_fd).collect();
        let control: Vec<_> = netns.iter().map(|_| ControlMessage::ScmRights(&descriptors)).collect();
        let sent = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            &control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        sent.map_err(|errno| self.failed("send to", errno))?;
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
            .map_err(|errno| self.failed("receive from", errno))?;
        if length == 0 {
            return Err(ExchangeError::Ended(self.path));
        }
        serde_json::from_slice(&buffer[..length]).map_err(|error| ExchangeError::Answer(self.path, error))
    }

    fn timed_out(&self) -> ExchangeError {
        ExchangeError::Timeout { socket: self.path.clone(), timeout_s: self.timeout.as_secs() }
    }

    fn failed(&self, operation: &'static str, errno: Errno) -> ExchangeError {
        match errno {
            Errno::EAGAIN => self.timed_out(),
            Errno::EPIPE | Errno::ECONNRESET => ExchangeError::Ended(self.path.clone()),
            errno => ExchangeError::Io { operation, socket: self.path.clone(), source: errno.into() },
        }
    }
}

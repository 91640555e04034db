//! A terminal for `exec -t`: the controlling end as asynchronous streams.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

/// The parts of a terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    /// What the program writes.
    pub output: PtyOutput,
    /// What the client types.
    pub input: pipe::Sender,
    /// To change its size.
    pub size: PtySize,
    /// The end for the program.
    pub program: OwnedFd,
}

impl Pty {
    /// Makes a terminal; must be called within a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let pair = openpty(None, None)?;
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // Not for other programs that happen to be started now.
        for fd in [&pair.master, &pair.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        // A terminal is no pipe, but read, write and readiness are the same.
        let output = pipe::Receiver::from_owned_fd_unchecked(pair.master.try_clone()?)?;
        let input = pipe::Sender::from_owned_fd_unchecked(pair.master.try_clone()?)?;
        Ok(Self { output: PtyOutput(output), input, size: PtySize(pair.master), program: pair.slave })
    }
}

/// Sets the size of a terminal.
#[derive(Debug)]
pub(crate) struct PtySize(OwnedFd);

impl PtySize {
    /// Tells the program how large the client's terminal is.
    pub(crate) fn set(&self, width: u16, height: u16) -> io::Result<()> {
        Ok(tcsetwinsize(&self.0, Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 })?)
    }
}

/// What the program writes to its terminal.
#[derive(Debug)]
pub(crate) struct PtyOutput(pipe::Receiver);

impl AsyncRead for PtyOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buf)) {
            // The last program has closed its end: that is the end of the stream.
            Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

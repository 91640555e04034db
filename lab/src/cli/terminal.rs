//! A program on a terminal of its own that shows up on the user's: keys reach the program, not this process.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rustix::termios::{tcgetwinsize, tcsetwinsize};

/// How often the size of the user's terminal is looked at.
const RESIZE: Duration = Duration::from_millis(250);

/// Puts the user's terminal back when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let old = tcgetattr(io::stdin())?;
        let mut raw = old.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Runs the command with a new terminal as its standard streams; it has to make it its controlling terminal itself.
pub(crate) fn run(command: &mut Command) -> io::Result<ExitStatus> {
    let pair = openpty(None, None)?;
    copy_size(&pair.master);
    let end = || pair.slave.try_clone().map(Stdio::from);
    let mut child = command.stdin(end()?).stdout(end()?).stderr(end()?).spawn()?;
    // The output ends when nobody has this end any more.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(pair.slave);
    let raw = Raw::enter()?;
    let (mut keys, sized) = (File::from(pair.master.try_clone()?), pair.master.try_clone()?);
    // Both threads end with this process.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut keys);
    });
    thread::spawn(move || {
        loop {
            thread::sleep(RESIZE);
            copy_size(&sized);
        }
    });
    let mut screen = File::from(pair.master);
    let mut chunk = [0; 4096];
    let mut out = io::stdout().lock();
    // The end of a terminal is an error (EIO).
    while let Ok(n @ 1..) = screen.read(&mut chunk) {
        out.write_all(&chunk[..n])?;
        out.flush()?;
    }
    let status = child.wait();
    drop(raw);
    status
}

fn copy_size(to: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        let _ = tcsetwinsize(to.as_fd(), size);
    }
}

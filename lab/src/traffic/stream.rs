//! Segments of a TCP stream, and HTTP requests: one after the other.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::time::Instant;

use super::{Options, Report, until};
use crate::image::echo::{CALLER, SERVER};

/// What came of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// It was answered; by whom and to whom, where the answer says it.
    Answered(Option<(IpAddr, IpAddr)>),
    /// It was not, in its time.
    Lost,
    /// The connection was reset or refused.
    Reset,
    /// An ICMP error came back.
    Error,
}

/// A way to send a message and wait for its answer.
pub(super) trait Exchange {
    /// Sends and waits, not longer than its time.
    fn exchange(&mut self, options: &Options, number: u32) -> Came;
}

/// Sends all messages.
pub(super) fn run(options: &Options, exchange: &mut impl Exchange, report: &mut Report) {
    for number in 0..options.count {
        if number > 0 {
            std::thread::sleep(options.interval());
        }
        let came = exchange.exchange(options, number);
        if let Came::Answered(Some((server, caller))) = came {
            report.answered(server, caller);
        }
        report.change(|tally| {
            tally.sent += 1;
            match came {
                Came::Answered(_) => tally.answered += 1,
                Came::Lost => {}
                Came::Reset => tally.resets += 1,
                Came::Error => tally.errors += 1,
            }
        });
    }
}

fn failure(error: &io::Error) -> Came {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Came::Reset,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Came::Error,
        _ => Came::Lost,
    }
}

fn connect(options: &Options, deadline: Instant) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&options.address(), until(deadline))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Writes all bytes before the deadline; says how many were written.
fn write(stream: &mut TcpStream, bytes: &[u8], deadline: Instant) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        if Instant::now() >= deadline {
            return (written, Err(io::ErrorKind::TimedOut.into()));
        }
        let some =
            stream.set_write_timeout(Some(until(deadline))).and_then(|()| stream.write(&bytes[written..]));
        match some {
            Ok(some) => written += some,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return (written, Err(e)),
        }
    }
    (written, Ok(()))
}

/// Reads some bytes before the deadline; the stream's end is an error.
fn read(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(until(deadline)))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}

/// One connection; made again after a reset. A late echo still comes before the next one's.
#[derive(Debug, Default)]
pub(super) struct Segments {
    stream: Option<TcpStream>,
    /// Bytes that are still to come back.
    owed: usize,
}

impl Segments {
    fn try_exchange(&mut self, options: &Options, number: u32) -> io::Result<()> {
        let deadline = Instant::now() + options.timeout();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                self.owed = 0;
                connect(options, deadline)?
            }
        };
        let mut payload = options.payload(number);
        if payload.is_empty() {
            // Nothing cannot be echoed.
            payload.push(b'x');
        }
        let (written, result) = write(&mut stream, &payload, deadline);
        self.owed += written;
        let mut buffer = [0; 16 * 1024];
        let mut result = result;
        while result.is_ok() && self.owed > 0 {
            match read(&mut stream, &mut buffer, deadline) {
                Ok(some) => self.owed = self.owed.saturating_sub(some),
                Err(e) => result = Err(e),
            }
        }
        // After a time-out the connection goes on; after anything else it is gone.
        if result.as_ref().err().is_none_or(|e| e.kind() == io::ErrorKind::TimedOut && is_open(&stream)) {
            self.stream = Some(stream);
        }
        result
    }
}

/// A connection on which TCP itself has given up has the time-out as its own error.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.take_error(), Ok(None)) && stream.peer_addr().is_ok()
}

impl Exchange for Segments {
    fn exchange(&mut self, options: &Options, number: u32) -> Came {
        match self.try_exchange(options, number) {
            Ok(()) => Came::Answered(None),
            Err(e) => failure(&e),
        }
    }
}

/// One connection and one request each.
pub(super) struct Requests;

impl Exchange for Requests {
    fn exchange(&mut self, options: &Options, number: u32) -> Came {
        match request(options, number) {
            Ok(Some(head)) => Came::Answered(ends(&head)),
            Ok(None) => Came::Lost,
            Err(e) => failure(&e),
        }
    }
}

/// The head of the answer if it was a 200, in lower case.
fn request(options: &Options, number: u32) -> io::Result<Option<String>> {
    let deadline = Instant::now() + options.timeout();
    let mut stream = connect(options, deadline)?;
    let payload = options.payload(number);
    let method = if payload.is_empty() { "GET" } else { "POST" };
    let mut message = format!(
        "{method} / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        options.address(),
        payload.len()
    )
    .into_bytes();
    message.extend(payload);
    write(&mut stream, &message, deadline).1?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some((good, head)) = complete(&answer) {
            return Ok(good.then_some(head));
        }
        let some = read(&mut stream, &mut buffer, deadline)?;
        answer.extend_from_slice(&buffer[..some]);
    }
}

/// Who answered whom, if the head of an answer says it.
fn ends(head: &str) -> Option<(IpAddr, IpAddr)> {
    let field = |name: &str| {
        let text = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        text.trim().parse().ok()
    };
    Some((field(SERVER)?, field(CALLER)?))
}

/// Whether an answer is a 200, and its head, once all of it is there.
fn complete(answer: &[u8]) -> Option<(bool, String)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    // Without a length the head has to do.
    let good = head.split(' ').nth(1) == Some("200");
    (answer.len() >= end + 4 + length.unwrap_or(0)).then_some((good, head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Kind, Tally};
    use std::net::TcpListener;

    fn options(kind: Kind, port: u16) -> Options {
        Options {
            kind,
            to: IpAddr::from([127, 0, 0, 1]),
            port,
            count: 3,
            interval_us: 0,
            size: 20_000,
            timeout_us: 2_000_000,
        }
    }

    /// Serves connections one after the other on a thread.
    fn server(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
        port
    }

    fn tally(kind: Kind, port: u16) -> Tally {
        let mut report = Report::default();
        match kind {
            Kind::Tcp => run(&options(kind, port), &mut Segments::default(), &mut report),
            _ => run(&options(kind, port), &mut Requests, &mut report),
        }
        report.told.tally
    }

    fn echo(mut stream: TcpStream) {
        let mut from = stream.try_clone().expect("a second handle");
        let _ = io::copy(&mut from, &mut stream);
    }

    #[test]
    fn segments_are_echoed_on_one_connection() {
        let connections = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = std::sync::Arc::clone(&connections);
        let port = server(move |stream| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            echo(stream);
        });
        assert_eq!(tally(Kind::Tcp, port), Tally { sent: 3, answered: 3, resets: 0, errors: 0 });
        assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    }

    #[test]
    fn a_closed_connection_and_a_refused_one_are_resets() {
        let port = server(drop);
        assert_eq!(tally(Kind::Tcp, port), Tally { sent: 3, answered: 0, resets: 3, errors: 0 });
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        for kind in [Kind::Tcp, Kind::Http] {
            assert_eq!(tally(kind, port), Tally { sent: 3, answered: 0, resets: 3, errors: 0 });
        }
    }

    #[test]
    fn only_a_200_answers_a_request() {
        for (status, answered) in [("200 OK", 3), ("503 No", 0)] {
            let port = server(move |mut stream| {
                let mut buffer = vec![0; 32 * 1024];
                let mut got = 0;
                while got < 20_000 {
                    got += stream.read(&mut buffer).expect("the request");
                }
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
            });
            assert_eq!(tally(Kind::Http, port), Tally { sent: 3, answered, resets: 0, errors: 0 });
        }
    }
}

//! A TCP stream with something on its way all the time, each byte of which is compared.

use agent_node::Netns;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A stream between two pods.
#[derive(Debug)]
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Figures>,
    server: JoinHandle<()>,
}

/// What it did.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Blocks sent and got back.
    pub(crate) exchanges: u64,
    /// The slowest of them.
    pub(crate) longest: Duration,
}

const BLOCK: usize = 1024;

/// The block of a number: no two are equal, so a lost, doubled or mixed-up byte is seen.
fn block(number: u64) -> [u8; BLOCK] {
    std::array::from_fn(|at| {
        let word =
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(u32::try_from(at % 64).unwrap_or(0));
        word.to_le_bytes()[at % 8]
    })
}

impl Stream {
    /// Connects from one namespace to an address of the other. Sockets stay in the namespace they were opened in.
    pub(crate) fn start(from: &Netns, to: &Netns, ip: IpAddr) -> Self {
        let listener = to.run(|| TcpListener::bind(SocketAddr::new(ip, 0))).expect("enter").expect("listen");
        let addr = listener.local_addr().expect("its port");
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("accept");
            let mut bytes = [0; 4 * BLOCK];
            loop {
                match connection.read(&mut bytes).expect("the server's end stays whole") {
                    0 => return,
                    length => connection.write_all(&bytes[..length]).expect("the server's end stays whole"),
                }
            }
        });
        let mut connection = from
            .run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(5)))
            .expect("enter")
            .expect("connect");
        connection.set_nodelay(true).expect("a TCP socket");
        connection.set_read_timeout(Some(Duration::from_secs(10))).expect("a TCP socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let client = std::thread::spawn(move || {
            let mut figures = Figures { exchanges: 0, longest: Duration::ZERO };
            while !stopped.load(Ordering::Relaxed) {
                let (sent, since) = (block(figures.exchanges), Instant::now());
                connection.write_all(&sent).expect("the client's end stays whole");
                let mut got = [0; BLOCK];
                connection.read_exact(&mut got).expect("the answer comes");
                assert!(got == sent, "block {} came back changed", figures.exchanges);
                figures.longest = figures.longest.max(since.elapsed());
                figures.exchanges += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            figures
        });
        Self { stop, client, server }
    }

    /// Ends it. Panics if either end met an error.
    pub(crate) fn stop(self) -> Figures {
        self.stop.store(true, Ordering::Relaxed);
        let figures = self.client.join().expect("the client met no error");
        self.server.join().expect("the server met no error");
        figures
    }
}

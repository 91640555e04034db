//! The generator's client: one measurement against a server.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use super::{Metric, Purpose, Report, Sample, UDP_BYTES, cpu_ns};

/// Datagrams given to one system call.
const BATCH: usize = 32;
/// Bytes of one write of a stream.
const WRITE_BYTES: usize = 128 * 1024;
const IO_LIMIT: Duration = Duration::from_secs(5);
const WARM_UP: usize = 200;

/// What a metric's loop did.
struct Work {
    elapsed: Duration,
    /// Transactions, connections, datagrams sent; unused for streams.
    units: u64,
    latencies_ns: Vec<u32>,
    /// Of connections: until the first packet was answered.
    firsts_ns: Vec<u32>,
    before: Report,
    cpu_before_ns: u64,
}

/// Measures for about `length`.
pub fn measure(target: SocketAddr, metric: Metric, length: Duration) -> anyhow::Result<Sample> {
    let mut work = match metric {
        Metric::Rr => rr(target, length)?,
        Metric::Crr => crr(target, length)?,
        Metric::Udp => udp(target, length)?,
        Metric::Stream => stream(target, length)?,
    };
    let cpu = cpu_ns() - work.cpu_before_ns;
    match metric {
        // What is under way still has to arrive.
        Metric::Udp => std::thread::sleep(Duration::from_millis(20)),
        Metric::Stream => std::thread::sleep(Duration::from_millis(5)),
        Metric::Rr | Metric::Crr => {}
    }
    let after = report(target)?;
    #[expect(clippy::cast_precision_loss, reason = "counts of a second are far below 2^52")]
    let float = |value: u64| value as f64;
    let seconds = work.elapsed.as_secs_f64();
    let bytes = after.sink_bytes - work.before.sink_bytes;
    let (rate, units) = match metric {
        Metric::Rr | Metric::Crr => (float(work.units) / seconds, work.units),
        Metric::Udp => (float(after.datagrams - work.before.datagrams) / seconds, work.units),
        Metric::Stream => (float(bytes) * 8.0 / seconds / 1e9, bytes),
    };
    if units == 0 {
        bail!("nothing got through in {seconds:.2} s");
    }
    let mut at = |of_first: bool, share: usize| {
        let times = if of_first { &mut work.firsts_ns } else { &mut work.latencies_ns };
        times.sort_unstable();
        times.get(times.len() * share / 100).map_or(0.0, |ns| f64::from(*ns) / 1e3)
    };
    Ok(Sample {
        rate,
        p50_us: at(false, 50),
        p99_us: at(false, 99),
        first_p99_us: at(true, 99),
        cpu_ns_per_unit: float(cpu + after.cpu_ns - work.before.cpu_ns) / float(units),
    })
}

fn dial(target: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&target, IO_LIMIT).with_context(|| format!("connect to {target}"))?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(Some(IO_LIMIT)).context("set the read timeout")?;
    stream.set_write_timeout(Some(IO_LIMIT)).context("set the write timeout")
}

fn report(target: SocketAddr) -> anyhow::Result<Report> {
    let mut stream = dial(target)?;
    stream.write_all(&[Purpose::Report.byte()]).context("ask for the server's counters")?;
    let mut bytes = [0; Report::BYTES];
    stream.read_exact(&mut bytes).context("read the server's counters")?;
    Ok(Report::from_bytes(bytes))
}

fn rr(target: SocketAddr, length: Duration) -> anyhow::Result<Work> {
    let mut stream = dial(target)?;
    stream.write_all(&[Purpose::Echo.byte()]).context("start the echo")?;
    let mut byte = [0];
    let mut exchange = || -> std::io::Result<()> {
        stream.write_all(&[1])?;
        stream.read_exact(&mut byte)
    };
    for _ in 0..WARM_UP {
        exchange().context("warm up")?;
    }
    let mut latencies_ns = Vec::with_capacity(1 << 20);
    let before = report(target)?;
    let cpu_before_ns = cpu_ns();
    let started = Instant::now();
    let mut last = started;
    while last - started < length {
        exchange().context("exchange a byte")?;
        let now = Instant::now();
        latencies_ns.push(nanos(now - last));
        last = now;
    }
    Ok(Work {
        elapsed: last - started,
        units: latencies_ns.len() as u64,
        latencies_ns,
        firsts_ns: Vec::new(),
        before,
        cpu_before_ns,
    })
}

fn crr(target: SocketAddr, length: Duration) -> anyhow::Result<Work> {
    let (mut latencies_ns, mut firsts_ns) = (Vec::with_capacity(1 << 18), Vec::with_capacity(1 << 18));
    let before = report(target)?;
    let cpu_before_ns = cpu_ns();
    let started = Instant::now();
    let mut last = started;
    while last - started < length {
        // A blocking connect without a timeout: that is one system call, with one it is three.
        let mut stream = TcpStream::connect(target).with_context(|| format!("connect to {target}"))?;
        // It returns when the first packet is answered.
        firsts_ns.push(nanos(last.elapsed()));
        prepare(&stream)?;
        stream.write_all(&[Purpose::Once.byte()]).context("send a byte")?;
        let mut buffer = [0; 1];
        stream.read_exact(&mut buffer).context("read a byte")?;
        if stream.read(&mut buffer).context("read the end")? != 0 {
            bail!("the server said more than one byte");
        }
        drop(stream);
        let now = Instant::now();
        latencies_ns.push(nanos(now - last));
        last = now;
    }
    Ok(Work {
        elapsed: last - started,
        units: latencies_ns.len() as u64,
        latencies_ns,
        firsts_ns,
        before,
        cpu_before_ns,
    })
}

fn udp(target: SocketAddr, length: Duration) -> anyhow::Result<Work> {
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() };
    let socket = UdpSocket::bind(any).context("bind a UDP socket")?;
    socket.connect(target).with_context(|| format!("connect to UDP {target}"))?;
    let before = report(target)?;
    let payload = [7; UDP_BYTES];
    let slices = [[IoSlice::new(&payload)]; BATCH];
    let nowhere = [None::<SockaddrStorage>; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let cpu_before_ns = cpu_ns();
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < length {
        // A full socket buffer is not an error: less is sent, and what arrives is counted at the server.
        if let Ok(done) = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, nowhere, [], MsgFlags::empty())
        {
            sent += done.count() as u64;
        }
    }
    Ok(Work {
        elapsed: started.elapsed(),
        units: sent,
        latencies_ns: Vec::new(),
        firsts_ns: Vec::new(),
        before,
        cpu_before_ns,
    })
}

fn stream(target: SocketAddr, length: Duration) -> anyhow::Result<Work> {
    let mut stream = dial(target)?;
    let before = report(target)?;
    let block = vec![7; WRITE_BYTES];
    let cpu_before_ns = cpu_ns();
    stream.write_all(&[Purpose::Sink.byte()]).context("start the stream")?;
    let started = Instant::now();
    while started.elapsed() < length {
        stream.write_all(&block).context("write to the stream")?;
    }
    let elapsed = started.elapsed();
    drop(stream);
    Ok(Work { elapsed, units: 0, latencies_ns: Vec::new(), firsts_ns: Vec::new(), before, cpu_before_ns })
}

fn nanos(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX)
}

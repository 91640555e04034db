//! Programs on calls of sockets: attached to a cgroup, replaced, found again, taken away; and what processes of the cgroup see.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dataplane_abi::backends::{BackendEntry, BackendState, Backends};
use dataplane_abi::config::{Config, NodeConfig};
use dataplane_abi::program::SocketProgram;
use dataplane_abi::services::{ServiceEntry, ServiceFlags, ServiceKey, ServiceScope, Services};
use dataplane_abi::{Addr, Be16, Table as _};
use dataplane_loader::attach::Attached;
use dataplane_loader::cgroup::{CgroupError, detach, list};
use dataplane_loader::{Object, Sandbox, probe};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use zerocopy::IntoBytes as _;

use crate::support::{in_sandbox, load, object_bytes, run, small, with_object};

/// How many programs there are.
const PROGRAMS: usize = SocketProgram::ALL.len();

/// A cgroup of a test. It is removed when it is dropped, which needs it to be empty, and so is the hierarchy's mount.
struct Cgroup(PathBuf);

impl Cgroup {
    /// A fresh cgroup in a hierarchy that is mounted in the sandbox alone.
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("bristle-cgroup2-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        mount(Some("none"), &root, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
        let path = root.join(format!("bristle-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let root = self.0.parent().unwrap();
        std::fs::remove_dir(&self.0).unwrap();
        umount2(root, MntFlags::MNT_DETACH).unwrap();
        std::fs::remove_dir(root).unwrap();
    }
}

/// What a process does that is in the cgroup: the variable says it, by the test below.
const DO: &str = "BRISTLE_TEST_CALL";

/// Has a process of the cgroup make calls, one for each word: `tcp:ADDRESS`, `udp:ADDRESS` (connected), `sendto:ADDRESS`,
/// `listen:ADDRESS` or `bind:ADDRESS` (UDP). Answers with whom it sees and what it read, or with the error.
fn calls(cgroup: &Path, words: &[String]) -> Vec<String> {
    let script =
        format!("echo 0 > {}/cgroup.procs && exec \"$0\" --exact --nocapture {CHILD}", cgroup.display());
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(DO, words.join(" "))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text.lines().filter_map(|line| Some(line.split_once("CALL ")?.1.to_owned())).collect()
}

const CHILD: &str = "sockets::a_process_of_the_cgroup";

/// Not a test unless the variable says what to do: then it is the process that [`calls`] starts.
#[test]
fn a_process_of_the_cgroup() {
    let Ok(words) = std::env::var(DO) else { return };
    for word in words.split(' ') {
        let (kind, addr) = word.split_once(':').unwrap();
        println!(
            "\nCALL {}",
            call(kind, addr.parse().unwrap()).unwrap_or_else(|error| format!("{:?}", error.kind()))
        );
    }
}

fn call(kind: &str, to: SocketAddr) -> std::io::Result<String> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let patience = Some(Duration::from_secs(5));
    let mut answer = [0; 64];
    let (peer, length) = match kind {
        "tcp" => {
            let mut stream = TcpStream::connect(to)?;
            stream.set_read_timeout(patience)?;
            (stream.peer_addr()?, stream.read(&mut answer)?)
        }
        "udp" => {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(patience)?;
            socket.connect(to)?;
            socket.send(b"?")?;
            let length = socket.recv(&mut answer)?;
            (socket.peer_addr()?, length)
        }
        "listen" => (TcpListener::bind(to)?.local_addr()?, 0),
        "bind" => (UdpSocket::bind(to)?.local_addr()?, 0),
        _ => {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(patience)?;
            socket.send_to(b"?", to)?;
            let (length, from) = socket.recv_from(&mut answer)?;
            (from, length)
        }
    };
    Ok(format!("{peer} {}", String::from_utf8_lossy(&answer[..length])))
}

/// Answers calls at an address, twice as TCP and as UDP, with its own address.
fn serve(addr: SocketAddr) {
    let listener = TcpListener::bind(addr).unwrap();
    let socket = UdpSocket::bind(addr).unwrap();
    std::thread::spawn(move || {
        use std::io::Write as _;
        for stream in listener.incoming() {
            stream.unwrap().write_all(addr.to_string().as_bytes()).unwrap();
        }
    });
    std::thread::spawn(move || {
        let mut question = [0; 8];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            socket.send_to(addr.to_string().as_bytes(), from).unwrap();
        }
    });
}

/// Writes the rows of a service with one backend, or with none.
fn write(object: &Object, vip: SocketAddr, backend: Option<SocketAddr>) {
    for proto in [6_u8, 17] {
        let service = 100 + u32::from(proto) + u32::from(vip.is_ipv6());
        let (addr, family) = Addr::from_ip(vip.ip());
        let key = ServiceKey::frontend(addr, family, Be16::new(vip.port()), proto, ServiceScope::Internal);
        let services = object.table(Services::SPEC.name).unwrap();
        if let Some(backend) = backend {
            let (addr, family) = Addr::from_ip(backend.ip());
            let entry = BackendEntry {
                addr,
                service,
                port: Be16::new(backend.port()),
                family: family as u8,
                proto,
                state: BackendState::Active as u8,
                pad: [0; 3],
            };
            let number = service + 1000;
            object.table(Backends::SPEC.name).unwrap().upsert(number.as_bytes(), entry.as_bytes()).unwrap();
            services.upsert(key.slot(1).as_bytes(), ServiceEntry::slot(service, number).as_bytes()).unwrap();
        }
        let count = u16::from(backend.is_some());
        let entry = ServiceEntry::frontend(service, count, 0, ServiceFlags::CLUSTER_IP);
        services.upsert(key.as_bytes(), entry.as_bytes()).unwrap();
    }
}

fn attach_all(sandbox: &Sandbox, object: &Object, cgroup: &Cgroup) -> Vec<Attached> {
    let attach = |program| object.attach_socket(&sandbox.pins(), program, &cgroup.0).unwrap();
    SocketProgram::ALL.map(attach).to_vec()
}

#[test]
fn a_process_speaks_with_a_backend_and_sees_the_service() {
    with_object(|sandbox, _, object| {
        run("ip link set lo up");
        run("ip -6 addr add fd00::9/128 dev lo nodad");
        let cgroup = Cgroup::new("sees");
        assert_eq!(attach_all(sandbox, &object, &cgroup), [Attached::New; PROGRAMS]);
        let v4 = ("10.96.0.1:80", "127.0.0.9:8080");
        let v6 = ("[fd00:96::1]:80", "[fd00::9]:8080");
        for (vip, backend) in [v4, v6] {
            serve(backend.parse().unwrap());
            write(&object, vip.parse().unwrap(), Some(backend.parse().unwrap()));
            let words = ["tcp", "udp", "sendto"].map(|kind| format!("{kind}:{vip}"));
            assert_eq!(calls(&cgroup.0, &words), vec![format!("{vip} {backend}"); 3]);
            let words = ["tcp", "udp", "sendto"].map(|kind| format!("{kind}:{backend}"));
            assert_eq!(calls(&cgroup.0, &words), vec![format!("{backend} {backend}"); 3], "directly");
        }
        // A socket of both families.
        let mapped = "[::ffff:10.96.0.1]:80";
        let words = ["tcp", "udp", "sendto"].map(|kind| format!("{kind}:{mapped}"));
        assert_eq!(calls(&cgroup.0, &words), vec![format!("{mapped} {}", v4.1); 3]);
        // A service without backends refuses at once; how, depends on the kernel.
        let refused = if probe::kernel_version().unwrap() >= probe::SET_RETVAL_KERNEL {
            ErrorKind::ConnectionRefused
        } else {
            ErrorKind::PermissionDenied
        };
        for vip in ["10.96.0.2:80", "[fd00:96::2]:80"] {
            write(&object, vip.parse().unwrap(), None);
            let words = ["tcp", "udp", "sendto"].map(|kind| format!("{kind}:{vip}"));
            assert_eq!(calls(&cgroup.0, &words), vec![format!("{refused:?}"); 3]);
        }
        // Who is not in the cgroup is left alone.
        let elsewhere = Cgroup::new("elsewhere");
        let error = TcpStream::connect_timeout(&"10.96.0.2:80".parse().unwrap(), Duration::from_millis(1));
        assert_ne!(error.unwrap_err().kind(), refused);
        drop(elsewhere);
    });
}

#[test]
fn processes_of_the_node_do_not_get_ports_of_services() {
    let Some(bytes) = object_bytes() else { return };
    in_sandbox(|sandbox| {
        run("ip link set lo up");
        run("ip addr add 172.18.0.1/32 dev lo");
        let is_told = probe::kernel_version().unwrap() >= probe::NETNS_COOKIE_KERNEL;
        let own = probe::netns_cookie().unwrap_or_default();
        assert_eq!(own != 0, is_told);
        let object =
            Object::load_bytes(&bytes, Some(&sandbox.pins()), &small().protected_netns(own)).unwrap();
        let cgroup = Cgroup::new("binds");
        attach_all(sandbox, &object, &cgroup);
        let config = NodeConfig { node_port_min: 30_000, node_port_max: 32_767, ..NodeConfig::default() };
        object.table(Config::SPEC.name).unwrap().upsert(&0_u32.to_ne_bytes(), config.as_bytes()).unwrap();
        let words: Vec<String> = ["listen:0.0.0.0", "bind:0.0.0.0", "listen:[::]", "listen:127.0.0.1"]
            .iter()
            .map(|word| format!("{word}:30080"))
            .collect();
        let free: Vec<String> =
            words.iter().map(|word| format!("{} ", word.split_once(':').unwrap().1)).collect();
        assert_eq!(calls(&cgroup.0, &words), free, "nobody has the port");
        write(&object, "0.0.0.0:30080".parse().unwrap(), None);
        if !is_told {
            assert_eq!(calls(&cgroup.0, &words), free, "the kernel does not say whose port it is");
            return;
        }
        let taken = if probe::kernel_version().unwrap() >= probe::SET_RETVAL_KERNEL {
            ErrorKind::AddrInUse
        } else {
            ErrorKind::PermissionDenied
        };
        let taken = format!("{taken:?}");
        assert_eq!(calls(&cgroup.0, &words), [&*taken, &taken, &taken, &free[3]]);
        // Who is in another network namespace has ports of its own, whatever its cgroup.
        drop(object);
        let options = small().protected_netns(own + 1);
        let object = Object::load_bytes(&bytes, Some(&sandbox.pins()), &options).unwrap();
        attach_all(sandbox, &object, &cgroup);
        assert_eq!(calls(&cgroup.0, &words), free);
    });
}

#[test]
fn programs_are_replaced_in_place_and_go_with_a_word() {
    with_object(|sandbox, bytes, object| {
        let pins = sandbox.pins();
        let (first, second) = (Cgroup::new("first"), Cgroup::new("second"));
        assert_eq!(attach_all(sandbox, &object, &first), [Attached::New; PROGRAMS]);
        assert_eq!(attach_all(sandbox, &object, &first), [Attached::Unchanged; PROGRAMS]);
        let ids: Vec<u32> = list(&pins).iter().map(|attachment| attachment.program_id).collect();
        drop(object);
        assert_eq!(
            list(&pins).iter().map(|a| a.program).collect::<Vec<_>>(),
            SocketProgram::ALL,
            "they stay"
        );

        let object = load(sandbox, bytes);
        assert_eq!(attach_all(sandbox, &object, &first), [Attached::Replaced; PROGRAMS]);
        let after: Vec<u32> = list(&pins).iter().map(|attachment| attachment.program_id).collect();
        assert!(ids.iter().all(|id| !after.contains(id)));
        // They move with the agent's flag, and leave nothing where they were.
        let at = |cgroup_id| list(&pins).iter().all(|attachment| attachment.cgroup_id == cgroup_id);
        assert_eq!(attach_all(sandbox, &object, &second), [Attached::Replaced; PROGRAMS]);
        assert_eq!(list(&pins).len(), PROGRAMS);
        drop(first);
        assert!(!at(None));
        // Another ABI version takes over what is there.
        let newer = pins.clone().with_version(99);
        for program in SocketProgram::ALL {
            assert_eq!(object.attach_socket(&newer, program, &second.0).unwrap(), Attached::Replaced);
        }
        assert_eq!((list(&pins).len(), list(&newer).len()), (0, PROGRAMS));
        // A cgroup that is gone takes them with it.
        drop(second);
        let third = Cgroup::new("third");
        attach_all(sandbox, &object, &third);
        assert_eq!(list(&pins).len(), PROGRAMS);
        for program in SocketProgram::ALL {
            assert!(detach(&pins, program).unwrap());
            assert!(!detach(&pins, program).unwrap());
        }
        assert_eq!((list(&pins), list(&newer)), (vec![], vec![]));
        let error = object.attach_socket(&pins, SocketProgram::Connect4, Path::new("/proc")).unwrap_err();
        assert!(matches!(error, CgroupError::NoCgroup { .. }), "{error}");
    });
}

//! Links, addresses, routes, neighbours, namespaces and pod interfaces against the running kernel, each test in namespaces of its own.
//!
//! Needs root. Every namespace here is anonymous or guarded, so nothing is left behind, also not after a panic.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic with its place")]

use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;

use agent_node::address::Address;
use agent_node::link::{Link, LinkChange, LinkKind, LinkSpec, LinkSpecKind, VethPeer, Vni, VxlanSpec};
use agent_node::neighbour::Neighbour;
use agent_node::pod_interface::{self, CreateError, Deletion, Difference, PodAddress, PodInterfaceSpec};
use agent_node::route::{Route, RouteFilter, Scope};
use agent_node::{Mac, Netlink, Netns, facts, mount, netns, sysctl};

/// False, with a word, if the test cannot run here.
fn can_run(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("BRISTLE_REQUIRE_ALL").is_none(), "{test} needs root");
    eprintln!("SKIPPED: {test} needs root");
    false
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace with a name, as runtimes and `ip netns` make them.
struct Named(netns_rs::NetNs);

impl Named {
    fn create(name: &str) -> Self {
        Self(netns_rs::NetNs::new(format!("{name}-{}", std::process::id())).unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // Whatever the test did with it meanwhile.
        drop(netns::delete_named(self.path()));
    }
}

/// A network namespace with a socket in it.
fn node() -> (Netns, Netlink) {
    let netns = Netns::create_anonymous().unwrap();
    let netlink = Netlink::open_in(&netns).unwrap();
    (netns, netlink)
}

fn bridge(netlink: &mut Netlink, name: &str) -> Link {
    netlink.create_link(&LinkSpec { up: true, ..LinkSpec::new(name, LinkSpecKind::Bridge) }).unwrap()
}

const POD: [PodAddress; 2] = [
    PodAddress {
        ip: IpAddr::V4(std::net::Ipv4Addr::new(10, 11, 0, 7)),
        router: IpAddr::V4(std::net::Ipv4Addr::new(10, 11, 0, 1)),
    },
    PodAddress {
        ip: IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 11, 0, 0, 0, 0, 0, 7)),
        router: IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 11, 0, 0, 0, 0, 0, 1)),
    },
];

fn spec<'a>(host_name: &'a str, addresses: &'a [PodAddress]) -> PodInterfaceSpec<'a> {
    PodInterfaceSpec {
        host_name,
        pod_name: "eth0",
        host_mac: Mac([2, 0, 0, 0, 0, 1]),
        pod_mac: Mac([2, 0, 0, 0, 0, 2]),
        mtu: 1450,
        addresses,
    }
}

#[test]
fn links_are_made_changed_listed_and_deleted() {
    if !can_run("links_are_made_changed_listed_and_deleted") {
        return;
    }
    let (here, mut netlink) = node();
    let (there, mut other) = node();
    assert_ne!(here.id(), there.id());

    let br = bridge(&mut netlink, "br0");
    assert_eq!((&br.kind, br.up), (&LinkKind::Bridge, true));

    let peer = VethPeer {
        mtu: Some(1400),
        mac: Some(Mac([2, 0, 0, 0, 0, 9])),
        netns: Some(there.as_fd()),
        ..VethPeer::new("eth0")
    };
    let pair = LinkSpec {
        master: Some(br.index),
        mtu: Some(1400),
        up: true,
        ..LinkSpec::new("veth0", LinkSpecKind::Veth(peer))
    };
    let veth = netlink.create_link(&pair).unwrap();
    let eth0 = other.link("eth0").unwrap();
    assert!(!eth0.up);
    other.set_link(eth0.index, &LinkChange::up()).unwrap();
    let eth0 = other.link("eth0").unwrap();
    assert_eq!(
        (veth.kind.clone(), veth.mtu, veth.master, veth.up),
        (LinkKind::Veth, 1400, Some(br.index), true)
    );
    assert_eq!((eth0.mac, eth0.mtu, eth0.up), (Some(Mac([2, 0, 0, 0, 0, 9])), 1400, true));
    assert_eq!((veth.peer, eth0.peer, veth.peer_elsewhere), (Some(eth0.index), Some(veth.index), true));

    let error = netlink.add_link(&pair).unwrap_err();
    assert!(error.already_exists(), "{error}");
    assert!(error.to_string().starts_with("add link veth0 with peer eth0"), "{error}");

    let vxlan = LinkSpec::new("vx", LinkSpecKind::Vxlan(VxlanSpec::external(8472)));
    let vx = netlink.create_link(&vxlan).unwrap();
    assert_eq!(vx.kind, LinkKind::Vxlan { vni: Vni::External, port: 8472, learning: false });
    let fixed = VxlanSpec {
        vni: Vni::Fixed(7),
        port: 4789,
        learning: true,
        local: Some(ip("fd00::1")),
        device: Some(br.index),
    };
    let fixed = netlink.create_link(&LinkSpec::new("vx7", LinkSpecKind::Vxlan(fixed))).unwrap();
    assert_eq!(fixed.kind, LinkKind::Vxlan { vni: Vni::Fixed(7), port: 4789, learning: true });
    netlink.append_vxlan_fdb(fixed.index, Mac([0; 6]), ip("fd00::2")).unwrap();

    let change = LinkChange {
        up: Some(false),
        mtu: Some(1300),
        mac: Some(Mac([2, 0, 0, 0, 0, 8])),
        master: Some(0),
        name: Some("veth1"),
        ..LinkChange::default()
    };
    netlink.set_link(veth.index, &change).unwrap();
    let changed = netlink.link_by_index(veth.index).unwrap().unwrap();
    assert_eq!(
        (changed.name.as_str(), changed.mtu, changed.master, changed.up),
        ("veth1", 1300, None, false)
    );
    assert_eq!(changed.mac, Some(Mac([2, 0, 0, 0, 0, 8])));

    let names: Vec<_> = netlink.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo", "br0", "veth1", "vx", "vx7"]);

    netlink
        .set_link(veth.index, &LinkChange { netns: Some(there.as_fd()), ..LinkChange::default() })
        .unwrap();
    assert_eq!(netlink.find_link("veth1").unwrap(), None);
    assert!(other.find_link("veth1").unwrap().is_some());

    assert!(netlink.delete_link(vx.index).unwrap());
    assert!(!netlink.delete_link(vx.index).unwrap(), "a second deletion finds nothing");
    let error = netlink.link("vx").unwrap_err();
    assert!(error.is_missing() && error.to_string().starts_with("look up link vx"), "{error}");
    let error = netlink.set_link(vx.index, &LinkChange::up()).unwrap_err();
    assert!(error.is_missing(), "{error}");
}

#[test]
fn addresses_routes_and_neighbours_read_back() {
    if !can_run("addresses_routes_and_neighbours_read_back") {
        return;
    }
    let (_netns, mut netlink) = node();
    let br = bridge(&mut netlink, "br0");
    let (v4, v6) = ("192.0.2.1/24", "fd00:1::1/64");
    for net in [v4, v6, "192.0.2.9/32", v4] {
        netlink.add_address(&Address { link: br.index, net: net.parse().unwrap() }).unwrap();
    }
    let found: Vec<_> = netlink
        .addresses(Some(br.index))
        .unwrap()
        .into_iter()
        .map(|address| address.net.to_string())
        .collect();
    assert_eq!(
        found.iter().filter(|net| !net.starts_with("fe80")).collect::<Vec<_>>(),
        [v4, "192.0.2.9/32", v6]
    );
    assert!(netlink.addresses(Some(1)).unwrap().is_empty(), "lo is down and has none");

    let base = |destination: &str, via: Option<&str>| Route {
        protocol: 76,
        ..Route::new(destination.parse().unwrap(), br.index, via.map(ip))
    };
    let routes = [
        Route { mtu: Some(1400), source: Some(ip("192.0.2.1")), ..base("10.1.0.0/24", Some("192.0.2.7")) },
        Route { onlink: true, ..base("10.2.0.0/24", Some("10.99.0.1")) },
        Route { priority: 5, ..base("10.3.0.0/24", None) },
        Route {
            scope: Scope::Global,
            priority: 1024,
            mtu: Some(1400),
            ..base("fd00:2::/64", Some("fd00:1::7"))
        },
        Route { scope: Scope::Global, priority: 1024, table: 2004, ..base("fd00:3::/64", None) },
    ];
    for route in &routes {
        netlink.replace_route(route).unwrap();
        netlink.replace_route(route).unwrap();
    }
    let ours = RouteFilter { protocol: Some(76), ..RouteFilter::default() };
    assert_eq!(netlink.routes(ours).unwrap(), routes);
    assert_eq!(netlink.routes(RouteFilter { table: Some(2004), ..ours }).unwrap(), routes[4..]);
    assert_eq!(netlink.routes(RouteFilter { ipv6: Some(false), ..ours }).unwrap(), routes[..3]);

    let moved = Route { via: Some(ip("192.0.2.8")), ..routes[0].clone() };
    netlink.replace_route(&moved).unwrap();
    assert_eq!(netlink.routes(ours).unwrap()[0], moved, "replaced, not doubled");
    assert!(netlink.delete_route(&moved).unwrap());
    assert!(!netlink.delete_route(&moved).unwrap());
    assert_eq!(netlink.routes(ours).unwrap().len(), 4);

    let error = netlink.replace_route(&base("10.4.0.0/24", Some("203.0.113.1"))).unwrap_err();
    assert!(error.explanation.is_some(), "the kernel says why: {error:?}");

    netlink.replace_route(&Route::default_via(ip("192.0.2.254"), br.index)).unwrap();
    assert_eq!(facts::default_device(&mut netlink).unwrap().unwrap().name, "br0");
    assert_eq!(facts::device_with_address(&mut netlink, ip("fd00:1::1")).unwrap().unwrap().name, "br0");
    assert_eq!(facts::device_with_address(&mut netlink, ip("192.0.2.77")).unwrap(), None);
    assert_eq!(
        facts::addresses_of(&mut netlink, br.index).unwrap(),
        [ip("192.0.2.1"), ip("192.0.2.9"), ip("fd00:1::1")]
    );

    for (address, last) in [("192.0.2.7", 1), ("fd00:1::7", 2)] {
        let neighbour = Neighbour { link: br.index, ip: ip(address), mac: Mac([2, 0, 0, 0, 0, last]) };
        netlink.replace_neighbour(&neighbour).unwrap();
        assert!(netlink.neighbours(Some(br.index)).unwrap().contains(&neighbour));
        assert!(netlink.delete_neighbour(br.index, ip(address)).unwrap());
        assert!(!netlink.delete_neighbour(br.index, ip(address)).unwrap());
    }
    assert!(netlink.delete_address(&Address { link: br.index, net: v4.parse().unwrap() }).unwrap());
    assert!(!netlink.delete_address(&Address { link: br.index, net: v4.parse().unwrap() }).unwrap());
}

#[test]
fn long_dumps_come_whole() {
    if !can_run("long_dumps_come_whole") {
        return;
    }
    let (_netns, mut netlink) = node();
    let br = bridge(&mut netlink, "br0");
    for index in 0..1500_u16 {
        let [high, low] = index.to_be_bytes();
        let destination = IpAddr::from([10, high, low, 0]);
        netlink
            .replace_route(&Route::new(ipnet::IpNet::new(destination, 24).unwrap(), br.index, None))
            .unwrap();
    }
    assert_eq!(
        netlink
            .routes(RouteFilter { link: Some(br.index), ipv6: Some(false), ..RouteFilter::default() })
            .unwrap()
            .len(),
        1500
    );
}

#[test]
fn namespaces_are_named_entered_and_deleted() {
    if !can_run("namespaces_are_named_entered_and_deleted") {
        return;
    }
    let before = Netns::current().unwrap().id();
    let named = Named::create("bristle-test-netns");
    let netns = Netns::open(named.path()).unwrap();
    assert_ne!(netns.id(), before);
    assert_eq!(Netns::open(named.path()).unwrap().id(), netns.id());
    assert_eq!(netns.run(|| Netns::current().unwrap().id()).unwrap(), netns.id());
    assert_eq!(netns.run_here(|| Netns::current().unwrap().id()).unwrap(), netns.id());
    let panicked = std::panic::catch_unwind(|| netns.run_here(|| panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(Netns::current().unwrap().id(), before, "the caller stays where it is");
    let child = netns
        .run(|| std::process::Command::new("readlink").arg("/proc/self/ns/net").output().unwrap())
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&child.stdout).trim(), format!("net:[{}]", netns.id().inode));

    let clone = netns.try_clone().unwrap();
    drop(netns);
    netns::delete_named(named.path()).unwrap();
    assert!(!named.path().exists());
    assert!(Netns::open(named.path()).unwrap_err().is_gone());
    clone.run(|| sysctl::write("net/ipv4/ip_forward", "1").unwrap()).unwrap();
    assert!(!clone.run(|| sysctl::ensure("net/ipv4/ip_forward", "1").unwrap()).unwrap(), "set already");
    netns::delete_named(named.path()).unwrap();
}

#[test]
fn only_network_namespaces_are_taken() {
    if !can_run("only_network_namespaces_are_taken") {
        return;
    }
    for path in ["/proc/self/ns/mnt", "/proc/self/status", "/nowhere"] {
        let error = Netns::open(path).unwrap_err();
        assert!(error.is_gone() && error.to_string().contains(path), "{error}");
    }
}

#[test]
fn pod_interface_is_made_checked_and_deleted() {
    if !can_run("pod_interface_is_made_checked_and_deleted") {
        return;
    }
    let (node_netns, mut host) = node();
    node_netns.run(|| sysctl::write("net/ipv4/conf/default/rp_filter", "1").unwrap()).unwrap();
    let (pod_netns, mut pod) = node();
    let spec = spec("lxc0123456789a", &POD);
    let made = pod_interface::create(&mut host, &pod_netns, &spec).unwrap();

    let (lxc, eth0) = (host.link("lxc0123456789a").unwrap(), pod.link("eth0").unwrap());
    assert_eq!((lxc.index, eth0.index), (made.host_index, made.pod_index));
    assert_eq!((lxc.mac, eth0.mac, lxc.mtu, eth0.mtu), (Some(spec.host_mac), Some(spec.pod_mac), 1450, 1450));
    assert!(lxc.up && eth0.up);
    assert_eq!(
        node_netns.run(|| sysctl::read("net/ipv4/conf/lxc0123456789a/rp_filter").unwrap()).unwrap(),
        "0"
    );
    assert!(
        host.addresses(Some(lxc.index)).unwrap().is_empty(),
        "the host's end has no address, not even fe80"
    );

    let routes = pod.routes(RouteFilter { table: Some(254), ..RouteFilter::default() }).unwrap();
    let text: Vec<_> = routes
        .iter()
        .filter(|route| !route.destination.to_string().starts_with("fe80") && route.protocol != 2)
        .map(|route| (route.destination.to_string(), route.via.map(|via| via.to_string()), route.scope))
        .collect();
    let expected = [
        ("0.0.0.0/0", Some("10.11.0.1"), Scope::Global),
        ("10.11.0.1/32", None, Scope::Link),
        ("::/0", Some("fd00:b::1"), Scope::Global),
        ("fd00:b::1/128", None, Scope::Global),
    ];
    assert_eq!(text, expected.map(|(to, via, scope)| (to.to_owned(), via.map(str::to_owned), scope)));

    // Usable at once: binding to a tentative address would fail.
    pod_netns.run(|| std::net::UdpSocket::bind((POD[1].ip, 0)).unwrap()).unwrap();
    assert_eq!(pod_netns.run(|| sysctl::read("net/ipv6/conf/eth0/accept_ra").unwrap()).unwrap(), "0");

    assert_eq!(pod_interface::check(&mut host, &pod_netns, &spec).unwrap(), []);

    // A second ADD into the same namespace, and one of the same container.
    let again = pod_interface::create(
        &mut host,
        &pod_netns,
        &PodInterfaceSpec { host_name: "lxcother", ..spec.clone() },
    )
    .unwrap_err();
    assert!(matches!(again, CreateError::PodNameTaken { .. }), "{again}");
    assert_eq!(host.find_link("lxcother").unwrap(), None, "nothing is left of the attempt");
    let again =
        pod_interface::create(&mut host, &pod_netns, &PodInterfaceSpec { pod_name: "eth1", ..spec.clone() })
            .unwrap_err();
    assert!(matches!(again, CreateError::HostNameTaken { .. }), "{again}");
    assert_eq!(pod_interface::check(&mut host, &pod_netns, &spec).unwrap(), [], "the first one is untouched");

    assert_eq!(
        pod_interface::delete(&mut host, spec.host_name, Some(made.host_index + 1)).unwrap(),
        Deletion::AnotherLink { index: made.host_index }
    );
    assert_eq!(
        pod_interface::delete(&mut host, spec.host_name, Some(made.host_index)).unwrap(),
        Deletion::Deleted
    );
    assert_eq!(
        pod_interface::delete(&mut host, spec.host_name, Some(made.host_index)).unwrap(),
        Deletion::Missing
    );
    assert_eq!(pod.find_link("eth0").unwrap(), None);
}

#[test]
fn pod_interface_of_one_family() {
    if !can_run("pod_interface_of_one_family") {
        return;
    }
    for addresses in [&POD[..1], &POD[1..]] {
        let (_node, mut host) = node();
        let (pod_netns, mut pod) = node();
        let spec = spec("lxc1", addresses);
        let made = pod_interface::create(&mut host, &pod_netns, &spec).unwrap();
        assert_eq!(pod_interface::check(&mut host, &pod_netns, &spec).unwrap(), []);
        assert_eq!(facts::addresses_of(&mut pod, made.pod_index).unwrap(), [addresses[0].ip]);
    }
}

#[test]
fn many_links_are_deleted_together() {
    if !can_run("many_links_are_deleted_together") {
        return;
    }
    let (_node, mut netlink) = node();
    let mut indices: Vec<_> =
        (0..300).map(|number| bridge_down(&mut netlink, &format!("br{number}"))).collect();
    let kept = indices.pop().unwrap();
    assert!(netlink.delete_link(indices[3]).unwrap());
    netlink.delete_links(&indices).unwrap();
    netlink.delete_links(&indices).unwrap();
    let left: Vec<_> = netlink.links().unwrap().into_iter().map(|link| link.index).collect();
    assert_eq!(left, [1, kept]);
}

fn bridge_down(netlink: &mut Netlink, name: &str) -> u32 {
    netlink.create_link(&LinkSpec::new(name, LinkSpecKind::Bridge)).unwrap().index
}

#[test]
fn check_names_every_difference() {
    if !can_run("check_names_every_difference") {
        return;
    }
    let (_node, mut host) = node();
    let (pod_netns, mut pod) = node();
    let spec = spec("lxc1", &POD);
    let missing = pod_interface::check(&mut host, &pod_netns, &spec).unwrap();
    assert_eq!(
        missing,
        [
            Difference::HostEndMissing { name: "lxc1".into() },
            Difference::PodEndMissing { name: "eth0".into() }
        ]
    );

    let made = pod_interface::create(&mut host, &pod_netns, &spec).unwrap();
    // More than was made is no difference.
    pod.add_address(&Address { link: made.pod_index, net: "192.0.2.1/32".parse().unwrap() }).unwrap();
    assert_eq!(pod_interface::check(&mut host, &pod_netns, &spec).unwrap(), []);

    pod.delete_address(&Address { link: made.pod_index, net: ipnet::IpNet::from(POD[1].ip) }).unwrap();
    pod.delete_route(&Route::default_via(POD[0].router, made.pod_index)).unwrap();
    pod.set_link(made.pod_index, &LinkChange { mac: Some(Mac([2, 9, 9, 9, 9, 9])), ..LinkChange::default() })
        .unwrap();
    host.set_link(made.host_index, &LinkChange { up: Some(false), ..LinkChange::default() }).unwrap();
    let found: Vec<_> =
        pod_interface::check(&mut host, &pod_netns, &spec).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "eth0 has address 02:09:09:09:09:09 instead of 02:00:00:00:00:02",
            "route to 0.0.0.0/0 via 10.11.0.1 is missing in the pod",
            "address fd00:b::7 is missing in the pod",
            "lxc1 is down",
        ]
    );
}

#[test]
fn bpffs_is_mounted_once() {
    if !can_run("bpffs_is_mounted_once") {
        return;
    }
    // In a mount namespace of its own, which ends with the thread.
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_FS).unwrap();
        nix::mount::mount(
            None::<&str>,
            "/",
            None::<&str>,
            nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        let dir = std::env::temp_dir().join(format!("bristle-test-bpffs-{}", std::process::id()));
        assert!(mount::ensure_bpffs(&dir).unwrap());
        assert!(!mount::ensure_bpffs(&dir).unwrap());
        assert!(mount::is_bpffs(&dir) && !mount::is_bpffs(&std::env::temp_dir()));
        nix::mount::umount(&dir).unwrap();
        std::fs::remove_dir(&dir).unwrap();
    })
    .join()
    .unwrap();
}

/// Not an assertion about speed (machines differ) but a figure to look at: `cargo test -p agent-node --test kernel speed -- --nocapture`.
#[test]
fn speed_of_a_hundred_pods() {
    if !can_run("speed_of_a_hundred_pods") {
        return;
    }
    use std::time::Instant;
    let (_node, mut host) = node();
    let pods: Vec<_> = (0..100).map(|_| Netns::create_anonymous().unwrap()).collect();
    let names: Vec<_> = (0..100).map(|index| format!("lxc{index}")).collect();
    let mut create_us = Vec::new();
    let mut delete_us = Vec::new();
    for (pod, name) in pods.iter().zip(&names) {
        let start = Instant::now();
        pod_interface::create(&mut host, pod, &spec(name, &POD)).unwrap();
        create_us.push(start.elapsed().as_micros());
    }
    for name in &names {
        let start = Instant::now();
        assert_eq!(pod_interface::delete(&mut host, name, None).unwrap(), Deletion::Deleted);
        delete_us.push(start.elapsed().as_micros());
    }
    for (what, us) in [("create", &mut create_us), ("delete", &mut delete_us)] {
        us.sort_unstable();
        println!("{what}: median {} us, p99 {} us, slowest {} us", us[50], us[98], us[99]);
    }
    // Each create must leave room for twenty in parallel behind one another within the CNI budget; an order of magnitude is left for slow machines.
    assert!(create_us[50] < 30_000, "median {} us", create_us[50]);
}

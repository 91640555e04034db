//! The kernel's host of the dataplane: entry points, tables and the adapters. Every decision is in `dataplane-core`.
//!
//! One object holds all programs; the oldest kernel is 5.10. Start reading at [`host`], for calls of sockets at [`socket`].
#![no_std]
#![no_main]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "entry points are public, and their macro makes functions without words"
)]

mod host;
mod socket;
mod tables;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use dataplane_abi::clock::ClockEntry;
use dataplane_core::programs;

use host::Kernel;
use socket::SockAddr;

/// Declares an entry point for a program.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[classifier]
        fn $name(context: TcContext) -> i32 {
            let kernel = Kernel::new(context.skb.skb);
            kernel.carry_out(programs::$name(kernel))
        }
    };
}

entry! {
    /// Ingress of a pod's host side device.
    from_container
}
entry! {
    /// Egress of a pod's host side device.
    to_container
}
entry! {
    /// Ingress of the overlay device.
    from_overlay
}
entry! {
    /// Ingress of the underlay device.
    from_netdev
}
entry! {
    /// Egress of the underlay device.
    to_netdev
}
entry! {
    /// Egress of `bristle_host`.
    from_host
}
entry! {
    /// Ingress of `bristle_host`.
    to_host
}

/// Declares an entry point for a program that decides about a call of a socket.
macro_rules! call {
    ($(#[$doc:meta])* $hook:ident, $name:ident: $v6:literal, $program:ident) => {
        $(#[$doc])*
        #[cgroup_sock_addr($hook)]
        fn $name(context: SockAddrContext) -> i32 {
            let host = SockAddr::<$v6>::new(context.sock_addr);
            host.carry_out(programs::$program(host))
        }
    };
}

call! {
    /// `connect` to an IPv4 address.
    connect4, sock_connect4: false, sock_connect
}
call! {
    /// `connect` to an IPv6 address.
    connect6, sock_connect6: true, sock_connect
}
call! {
    /// A datagram to an IPv4 address.
    sendmsg4, sock_sendmsg4: false, sock_sendmsg
}
call! {
    /// A datagram to an IPv6 address.
    sendmsg6, sock_sendmsg6: true, sock_sendmsg
}
call! {
    /// `bind` of an IPv4 socket.
    bind4, sock_bind4: false, sock_bind
}
call! {
    /// `bind` of an IPv6 socket.
    bind6, sock_bind6: true, sock_bind
}

/// Declares an entry point for a program that tells of a peer.
macro_rules! tell {
    ($(#[$doc:meta])* $hook:ident, $name:ident: $v6:literal, $program:ident) => {
        $(#[$doc])*
        #[cgroup_sock_addr($hook)]
        fn $name(context: SockAddrContext) -> i32 {
            let host = SockAddr::<$v6>::new(context.sock_addr);
            programs::$program(host);
            host.told()
        }
    };
}

tell! {
    /// Who sent a datagram, of an IPv4 socket.
    recvmsg4, sock_recvmsg4: false, sock_recvmsg
}
tell! {
    /// Who sent a datagram, of an IPv6 socket.
    recvmsg6, sock_recvmsg6: true, sock_recvmsg
}
tell! {
    /// To whom an IPv4 socket is connected.
    getpeername4, sock_getpeer4: false, sock_getpeername
}
tell! {
    /// To whom an IPv6 socket is connected.
    getpeername6, sock_getpeer6: true, sock_getpeername
}

/// Writes the kernel's clocks into `CLOCK`. The agent runs it by `BPF_PROG_TEST_RUN`; it is never attached.
#[classifier]
fn clock_probe(_context: TcContext) -> i32 {
    // SAFETY: both helpers only read clocks.
    let (ticks, ktime_ns) = unsafe { (bpf_jiffies64(), bpf_ktime_get_ns()) };
    match tables::CLOCK.set(0, ClockEntry { ticks, ktime_ns }, 0) {
        Ok(()) => 0,
        Err(_) => 2,
    }
}

/// The context type is the kernel's; this pins what the adapters assume of it.
const _: () =
    assert!(core::mem::offset_of!(__sk_buff, data_end) == core::mem::offset_of!(__sk_buff, data) + 4);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing in the programs can panic; a call to this would not pass the verifier.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

//! The adapters of programs on calls of sockets: a call is a `bpf_sock_addr`.
//!
//! Helpers newer than 5.10 are used only where the loader says that the kernel has them.

use core::ptr;

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_jiffies64, bpf_ktime_get_ns, bpf_set_retval,
};
use dataplane_abi::sock_revnat::{SockRevNatEntry, SockRevNatKey};
use dataplane_abi::{Addr, Be16};
use dataplane_core::socket::{Call, SocketMaps};
use dataplane_core::{Clock, SocketVerdict};

use crate::tables;

/// Whether the kernel has `bpf_set_retval` for these programs (6.1). The loader writes it before the verifier sees the programs, and what is not
/// reached is not verified.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: u32 = 0;

/// Number of the network namespace whose processes may not bind ports of services; zero: all may. Written as above.
#[unsafe(no_mangle)]
static PROTECTED_NETNS: u64 = 0;

/// The call goes on.
const PASS: i32 = 1;
/// The call fails, with `EPERM` unless something else was set.
const FAIL: i32 = 0;
/// `ECONNREFUSED`.
const ECONNREFUSED: i32 = 111;
/// `EADDRINUSE`.
const EADDRINUSE: i32 = 98;

/// Lets a call fail, with this error where the kernel can be told.
#[inline(always)]
fn fail(error: i32) -> i32 {
    // SAFETY: a static of ours; volatile, for it is written after it was compiled.
    if unsafe { ptr::read_volatile(&raw const HAS_SET_RETVAL) } != 0 {
        // SAFETY: the helper takes any error number.
        unsafe { bpf_set_retval(-error) };
    }
    FAIL
}

/// The call on which a program runs, and the world around it. `V6`: its address is an IPv6 one.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct SockAddr<const V6: bool>(*mut bpf_sock_addr);

impl<const V6: bool> SockAddr<V6> {
    /// The host of a program that was started with this context.
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_sock_addr) -> Self {
        Self(context)
    }

    /// Does what a program decided; the result is the program's.
    #[inline(always)]
    pub(crate) fn carry_out(self, verdict: SocketVerdict) -> i32 {
        match verdict {
            SocketVerdict::Pass => PASS,
            SocketVerdict::Refuse => fail(ECONNREFUSED),
            SocketVerdict::Taken => fail(EADDRINUSE),
        }
    }

    /// What programs return that only tell.
    #[inline(always)]
    pub(crate) const fn told(self) -> i32 {
        PASS
    }
}

impl<const V6: bool> Call for SockAddr<V6> {
    #[inline(always)]
    fn is_v6(self) -> bool {
        V6
    }

    #[inline(always)]
    fn protocol(self) -> u32 {
        // SAFETY: the kernel hands a valid context to the program, and it lives as long as the program runs.
        unsafe { (*self.0).protocol }
    }

    #[inline(always)]
    fn addr(self) -> Addr {
        // The kernel allows reading whole words only, so the compiler may not change them into others.
        if V6 {
            let mut bytes = [0; 16];
            let mut word = 0;
            while word < 4 {
                // SAFETY: as above; the array has four words.
                let value =
                    unsafe { ptr::read_volatile((&raw const (*self.0).user_ip6).cast::<u32>().add(word)) };
                let [a, b, c, d] = value.to_ne_bytes();
                let at = word * 4;
                (bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]) = (a, b, c, d);
                word += 1;
            }
            Addr::v6(bytes)
        } else {
            // SAFETY: as above.
            Addr::v4(unsafe { ptr::read_volatile(&raw const (*self.0).user_ip4) }.to_ne_bytes())
        }
    }

    #[inline(always)]
    fn port(self) -> Be16 {
        // SAFETY: as above.
        let [a, b, ..] = unsafe { ptr::read_volatile(&raw const (*self.0).user_port) }.to_ne_bytes();
        Be16::from_bytes([a, b])
    }

    #[inline(always)]
    fn set(self, addr: Addr, port: Be16) {
        if V6 {
            let bytes = addr.0;
            let mut word = 0;
            while word < 4 {
                let at = word * 4;
                let value = u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                // SAFETY: as for reading.
                unsafe { ptr::write_volatile((&raw mut (*self.0).user_ip6).cast::<u32>().add(word), value) };
                word += 1;
            }
        } else {
            // SAFETY: as for reading.
            unsafe { ptr::write_volatile(&raw mut (*self.0).user_ip4, u32::from_ne_bytes(addr.to_v4())) };
        }
        let [a, b] = port.to_bytes();
        // SAFETY: as for reading.
        unsafe { ptr::write_volatile(&raw mut (*self.0).user_port, u32::from_ne_bytes([a, b, 0, 0])) };
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    #[inline(always)]
    fn netns_cookie(self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_netns_cookie(self.0.cast()) }
    }

    #[inline(always)]
    fn is_of_node(self) -> bool {
        // SAFETY: as for `HAS_SET_RETVAL`.
        let protected = unsafe { ptr::read_volatile(&raw const PROTECTED_NETNS) };
        protected != 0 && protected == self.netns_cookie()
    }
}

impl<const V6: bool> SocketMaps for SockAddr<V6> {
    #[inline(always)]
    fn sock_revnat(self, key: &SockRevNatKey) -> Option<SockRevNatEntry> {
        // SAFETY: a row that is reused meanwhile names somebody whom another socket has called; the next look is right again.
        unsafe { tables::SOCK_REVNAT.get(key).copied() }
    }

    #[inline(always)]
    fn set_sock_revnat(self, key: &SockRevNatKey, entry: &SockRevNatEntry) -> bool {
        tables::SOCK_REVNAT.insert(key, entry, 0).is_ok()
    }
}

impl<const V6: bool> Clock for SockAddr<V6> {
    #[inline(always)]
    fn ticks(self) -> u64 {
        // SAFETY: the helper reads a counter.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn now_ns(self) -> u64 {
        // SAFETY: the helper reads a clock.
        unsafe { bpf_ktime_get_ns() }
    }
}

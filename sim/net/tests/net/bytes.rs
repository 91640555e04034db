//! What a trace says about frames.

use rstest::rstest;
use sim_net::{Frame, Summary};

use crate::craft::Craft;
use crate::world::{Family, ip, pod};

fn craft(family: Family) -> Craft {
    Craft::new([2, 0, 0, 0, 0, 1], pod(0, family), pod(1, family))
}

fn tcp(flags: u8, data: usize) -> Vec<u8> {
    let mut segment = vec![0x87, 0x07, 0x1F, 0x90, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0];
    segment.resize(20 + data, 0);
    segment
}

fn fragment(mut frame: Frame, units: u8) -> Frame {
    frame.bytes[14 + 6] = 0x20;
    frame.bytes[14 + 7] = units;
    frame
}

fn vxlan(inner: &Frame) -> Frame {
    let data = [&[8, 0, 0, 0, 0, 0, 77, 0], inner.bytes.as_slice()].concat();
    Craft::new([2; 6], ip("192.168.0.1"), ip("192.168.0.2")).udp((40_000, 8472), &data)
}

fn bare(bytes: &[u8]) -> Frame {
    Frame { id: sim_net::PacketId(0), bytes: bytes.to_vec() }
}

#[rstest]
#[case::syn(craft(Family::V4).packet(6, &tcp(0x02, 0)), "10.11.0.5:34567 → 10.11.1.5:8080 TCP SYN")]
#[case::data(craft(Family::V6).packet(6, &tcp(0x18, 9)), "[fd11::5]:34567 → [fd11:1::5]:8080 TCP PSH+ACK 9 bytes")]
#[case::no_flags(craft(Family::V4).packet(6, &tcp(0, 0)), "10.11.0.5:34567 → 10.11.1.5:8080 TCP none")]
#[case::udp(craft(Family::V4).udp((5, 53), b"abc"), "10.11.0.5:5 → 10.11.1.5:53 UDP 3 bytes")]
#[case::first_fragment(
    fragment(craft(Family::V4).udp((5, 53), b"abc"), 0),
    "10.11.0.5:5 → 10.11.1.5:53 UDP 3 bytes fragment at 0+"
)]
#[case::later_fragment(
    fragment(craft(Family::V4).udp((5, 53), b"abc"), 2),
    "10.11.0.5 → 10.11.1.5 protocol 17 fragment at 16+"
)]
#[case::ping(craft(Family::V4).packet(1, &[8, 0, 0, 0, 0, 7, 0, 1]), "10.11.0.5 → 10.11.1.5 ICMP echo request 7/1")]
#[case::ping_v6(craft(Family::V6).packet(58, &[129, 0, 0, 0, 0, 7, 0, 1]), "fd11::5 → fd11:1::5 ICMPv6 echo reply 7/1")]
#[case::unknown_icmp(craft(Family::V4).packet(1, &[42, 1, 0, 0]), "10.11.0.5 → 10.11.1.5 ICMP 42/1")]
#[case::tunnelled(
    vxlan(&craft(Family::V4).udp((5, 53), b"abc")),
    "192.168.0.1 → 192.168.0.2 VXLAN 77 [10.11.0.5:5 → 10.11.1.5:53 UDP 3 bytes]"
)]
#[case::nothing(bare(&[]), "0 bytes")]
#[case::lldp(bare(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x88, 0xCC, 0]), "ethertype 0x88cc, 15 bytes")]
#[case::cut_short(bare(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0, 0x45]), "ethertype 0x0800, 15 bytes")]
fn one_line_each(#[case] frame: Frame, #[case] line: &str) {
    assert_eq!(Summary::of(&frame.bytes).to_string(), line);
}

#[test]
fn the_innermost_is_what_the_tunnel_holds() {
    let inner = craft(Family::V4).udp((5, 53), b"abc");
    let outer = Summary::of(&vxlan(&inner).bytes);
    assert_eq!(outer.innermost(), &Summary::of(&inner.bytes));
}

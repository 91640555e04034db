//! Every packet decision of the dataplane, once, for all hosts.
//!
//! The programs ([`programs`]) are generic over a host ([`host`]): packet bytes, tables, clock and events.
//! `dataplane-ebpf` is the kernel's host, `dataplane-native` the one in memory. A program is a straight list of stages:
//! parse ([`ip`]) → conntrack ([`conntrack`]) → for new flows what services make of them ([`calls`]), the ends and their judgement
//! ([`ends`], [`learn`], [`policy`]) →
//! forwarding ([`forward`]) → a [`Verdict`], which the host carries out.
//!
//! Programs on calls of sockets ([`socket`]) have a host of their own and one stage: [`service`].
//!
//! This crate knows packets and tables. It must not know the kernel, Kubernetes or who writes the tables.
//! It has no panics and no unsafe code; every function that the packet path calls on each packet is inlined,
//! those for first packets and odd ones are functions of their own, so that the kernel's verifier sees small programs.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_arithmetic
)]

pub mod arp;
pub mod calls;
pub mod closer;
pub mod conntrack;
pub mod ends;
pub mod ethernet;
pub mod flight;
pub mod forward;
pub mod host;
pub mod ip;
pub mod learn;
pub mod masquerade;
pub mod nat;
pub mod nd;
pub mod node;
pub mod policy;
pub mod ports;
pub mod programs;
pub mod report;
pub mod service;
pub mod socket;
pub mod verdict;

pub use host::{Clock, Events, Host, Maps, Packet, Places, Raw};
pub use programs::{run, run_socket};
pub use socket::{Peer, SocketHost, SocketVerdict};
pub use verdict::{Step, Verdict};

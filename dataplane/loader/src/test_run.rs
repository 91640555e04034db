//! `BPF_PROG_TEST_RUN`: a program on a frame, without a device and without anybody else seeing it.
//!
//! The kernel makes a packet from the frame, runs the program `repeat` times and gives back the return value, the frame
//! and the context as the program left them. It refuses frames shorter than an Ethernet header, and recent kernels
//! refuse frames that are shorter than the IP header their `EtherType` promises.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use thiserror::Error;

/// The packet's context before (or after) a run: the fields that a run may set or see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Device on which the packet is; 0 and 1 mean the loopback device. It must exist in the caller's network namespace.
    pub ifindex: u32,
    /// Device from which it came, 0 for none.
    pub ingress_ifindex: u32,
    /// `skb->mark`.
    pub mark: u32,
    /// `skb->priority`.
    pub priority: u32,
    /// The control block.
    pub cb: [u32; 5],
    /// Bytes per segment of a GSO packet, 0 for none.
    pub gso_size: u32,
    /// Segments of a GSO packet.
    pub gso_segs: u32,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct TestRun<'a> {
    /// The frame from the Ethernet header on.
    pub frame: &'a [u8],
    /// Its context.
    pub context: Context,
    /// How often to run; changes that the program makes to the packet stay for the next repetition.
    pub repeat: u32,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRunResult {
    /// The program's return value (`TC_ACT_…`).
    pub verdict: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The context afterwards.
    pub context: Context,
    /// Mean time of one repetition.
    pub duration: Duration,
}

/// Why a run was not possible.
#[derive(Debug, Error)]
pub enum TestRunError {
    /// The object has no such program.
    #[error("test-run {program}: the object has no such program")]
    NoProgram {
        /// Program name.
        program: String,
    },
    /// The kernel refused the frame or the context.
    #[error("test-run {program} on a frame of {length} bytes")]
    Refused {
        /// Program name.
        program: String,
        /// Bytes of the frame.
        length: usize,
        /// The kernel's answer.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
}

/// Room that a program may need beyond the frame it got (encapsulation, ICMP errors).
const GROWTH: usize = 512;

impl<'a> TestRun<'a> {
    /// One run of a frame with an empty context.
    pub fn new(frame: &'a [u8]) -> Self {
        Self { frame, context: Context::default(), repeat: 1 }
    }

    /// With this context.
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Repeated so often.
    #[must_use]
    pub fn repeat(mut self, repeat: u32) -> Self {
        self.repeat = repeat;
        self
    }

    pub(crate) fn on(&self, name: &str, program: &SchedClassifier) -> Result<TestRunResult, TestRunError> {
        let context_in = self.context.to_bytes();
        let mut context_out = [0; SK_BUFF_SIZE];
        let mut frame = vec![0; self.frame.len() + GROWTH];
        let mut options = TestRunOptions::new();
        options.data_in = Some(self.frame);
        options.data_out = Some(&mut frame);
        options.ctx_in = Some(&context_in);
        options.ctx_out = Some(&mut context_out);
        options.repeat = self.repeat;
        let result = program.test_run(options).map_err(|source| TestRunError::Refused {
            program: name.to_owned(),
            length: self.frame.len(),
            source: Box::new(source),
        })?;
        frame.truncate(result.data_size_out as usize);
        Ok(TestRunResult {
            verdict: result.return_value,
            frame,
            context: Context::from_bytes(&context_out),
            duration: result.duration,
        })
    }
}

/// Bytes of the kernel's `struct __sk_buff` (`uapi/linux/bpf.h`) up to and with `hwtstamp`. Older kernels have less of
/// it and accept the rest as long as it is zero.
const SK_BUFF_SIZE: usize = 192;

/// Byte offsets in `struct __sk_buff`, which is append-only.
mod offset {
    pub(super) const MARK: usize = 8;
    pub(super) const PRIORITY: usize = 32;
    pub(super) const INGRESS_IFINDEX: usize = 36;
    pub(super) const IFINDEX: usize = 40;
    pub(super) const CB: usize = 48;
    pub(super) const GSO_SEGS: usize = 164;
    pub(super) const GSO_SIZE: usize = 176;
}

impl Context {
    /// The places of the fields, in the order of [`Context::values`].
    const PLACES: [usize; 11] = [
        offset::IFINDEX,
        offset::INGRESS_IFINDEX,
        offset::MARK,
        offset::PRIORITY,
        offset::CB,
        offset::CB + 4,
        offset::CB + 8,
        offset::CB + 12,
        offset::CB + 16,
        offset::GSO_SIZE,
        offset::GSO_SEGS,
    ];

    fn values(&self) -> [u32; 11] {
        let [cb0, cb1, cb2, cb3, cb4] = self.cb;
        [
            self.ifindex,
            self.ingress_ifindex,
            self.mark,
            self.priority,
            cb0,
            cb1,
            cb2,
            cb3,
            cb4,
            self.gso_size,
            self.gso_segs,
        ]
    }

    fn to_bytes(self) -> [u8; SK_BUFF_SIZE] {
        let mut bytes = [0; SK_BUFF_SIZE];
        for (place, value) in Self::PLACES.into_iter().zip(self.values()) {
            bytes[place..place + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; SK_BUFF_SIZE]) -> Self {
        let [ifindex, ingress_ifindex, mark, priority, cb0, cb1, cb2, cb3, cb4, gso_size, gso_segs] =
            Self::PLACES.map(|place| {
                let mut value = [0; 4];
                value.copy_from_slice(&bytes[place..place + 4]);
                u32::from_ne_bytes(value)
            });
        Self { ifindex, ingress_ifindex, mark, priority, cb: [cb0, cb1, cb2, cb3, cb4], gso_size, gso_segs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_round_trip() {
        let context = Context {
            ifindex: 1,
            ingress_ifindex: 2,
            mark: 3,
            priority: 4,
            cb: [5, 6, 7, 8, 9],
            gso_size: 10,
            gso_segs: 11,
        };
        assert_eq!(Context::from_bytes(&context.to_bytes()), context);
    }
}

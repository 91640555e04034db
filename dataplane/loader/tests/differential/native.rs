//! The native host: the same programs in this process.

use dataplane_abi::backends::BackendEntry;
use dataplane_abi::clock::ClockEntry;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::policy::{PolicyEntry, PolicyKey};
use dataplane_core::Verdict;
use dataplane_native::{Frame, Native as Node, UpdateError};
use zerocopy::IntoBytes;

use crate::host::{DUMPED, Dump, Host, Outcome, TIMED, aged, normalise};
use crate::scenario::Input;
use crate::world::World;

/// A node in memory.
pub(crate) struct Native {
    node: Node,
}

impl Native {
    pub(crate) fn new() -> Self {
        Self { node: Node::new() }
    }

    fn write(&mut self, table: &str, key: &[u8], value: &[u8]) {
        self.node.tables_mut().update(table, key, value).expect("write a table");
    }

    fn set(&mut self, table: &str, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.write(table, key, value),
            None => match self.node.tables_mut().delete(table, key) {
                Ok(()) | Err(UpdateError::NoRow) => {}
                Err(error) => panic!("write a table: {error}"),
            },
        }
    }
}

/// What the kernel's program returns for a verdict. Every kind of redirect is one number.
fn action(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Skip => -1,
        Verdict::Pass => 0,
        Verdict::Drop(_) => 2,
        Verdict::Peer { .. }
        | Verdict::Egress { .. }
        | Verdict::Ingress { .. }
        | Verdict::Neighbour { .. }
        | Verdict::Tunnel { .. } => 7,
    }
}

impl Host for Native {
    fn reset(&mut self, world: &World) {
        self.node = Node::new();
        self.configure(&world.config);
        for (key, entry) in &world.endpoints {
            self.write("ENDPOINTS", key.as_bytes(), entry.as_bytes());
        }
        for (key, entry) in &world.ipcache {
            self.write("IPCACHE", key.as_bytes(), entry.as_bytes());
        }
        for (key, entry) in &world.policy {
            self.write("POLICY", key.as_bytes(), entry.as_bytes());
        }
        for (key, entry) in &world.policy_blocks {
            self.write("POLICY_BLOCKS", key.as_bytes(), entry.as_bytes());
        }
        for (key, verdict) in &world.policy_l4 {
            self.write("POLICY_L4", key.as_bytes(), verdict.as_bytes());
        }
        for (key, entry) in &world.no_masquerade {
            self.write("NO_MASQUERADE", key.as_bytes(), entry.as_bytes());
        }
        for (key, entry) in &world.services.frontends {
            self.write("SERVICES", key.as_bytes(), entry.as_bytes());
        }
        for (number, entry) in &world.services.backends {
            self.write("BACKENDS", number.as_bytes(), entry.as_bytes());
        }
    }

    fn packet(&mut self, input: &Input, ticks: u64) -> Option<Outcome> {
        self.node.set_clock(ClockEntry { ticks, ktime_ns: 0 });
        let mut frame = Frame::new(input.frame.clone(), input.ifindex);
        frame.mark = input.mark;
        frame.segment_len = input.gso_size;
        let verdict = self.node.run(input.program, &mut frame);
        Some(Outcome {
            verdict: action(verdict),
            frame: frame.bytes,
            mark: frame.mark,
            events: self.node.drain_events().into_iter().map(normalise).collect(),
        })
    }

    fn age(&mut self, ticks: u32) {
        for table in TIMED {
            for (key, row) in self.node.tables().dump(table).expect("a table of the ABI") {
                self.write(table, &key, &aged(&row, ticks));
            }
        }
    }

    fn configure(&mut self, config: &NodeConfig) {
        self.write("CONFIG", &[0; 4], config.as_bytes());
    }

    fn endpoint(&mut self, key: &EndpointKey, entry: Option<&EndpointEntry>) {
        self.set("ENDPOINTS", key.as_bytes(), entry.map(IntoBytes::as_bytes));
    }

    fn policy(&mut self, key: &PolicyKey, entry: Option<&PolicyEntry>) {
        self.set("POLICY", key.as_bytes(), entry.map(IntoBytes::as_bytes));
    }

    fn backend(&mut self, number: u32, entry: Option<&BackendEntry>) {
        self.set("BACKENDS", number.as_bytes(), entry.map(IntoBytes::as_bytes));
    }

    fn dump(&mut self) -> Dump {
        DUMPED
            .into_iter()
            .map(|table| {
                let rows = self.node.tables().dump(table).expect("a table of the ABI");
                // Arrays have all their rows; of the counters only those that counted are of interest.
                let counts =
                    |row: &(Vec<u8>, Vec<u8>)| table != "METRICS" || row.1.iter().any(|&byte| byte != 0);
                (table, rows.into_iter().filter(counts).collect())
            })
            .collect()
    }
}

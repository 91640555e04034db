//! The kernel's host: the object's programs by `BPF_PROG_TEST_RUN`.

use std::collections::BTreeMap;

use dataplane_abi::backends::BackendEntry;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::metrics::MetricsEntry;
use dataplane_abi::policy::{PolicyEntry, PolicyKey};
use dataplane_loader::{Context, EventReader, LoadOptions, Object, TestRun};
use zerocopy::{FromBytes as _, IntoBytes};

use crate::host::{DUMPED, Dump, Host, Outcome, TIMED, aged, normalise};
use crate::scenario::Input;
use crate::world::World;

/// The object, loaded without pins, and its ring buffer.
pub(crate) struct Kernel {
    object: Object,
    events: EventReader,
    /// Counters at the last reset; the kernel's are never set back.
    counted: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Kernel {
    pub(crate) fn load(bytes: &[u8]) -> Self {
        let options = LoadOptions::default()
            .conntrack_rows(16_384)
            .max_entries("IPCACHE", 1024)
            .max_entries("POLICY", 1024)
            .max_entries("POLICY_BLOCKS", 1024)
            .max_entries("POLICY_L4", 1024);
        let object = Object::load_bytes(bytes, None, &options).expect("load the object");
        let events = EventReader::of(&object).expect("the object has a ring buffer");
        Self { object, events, counted: BTreeMap::new() }
    }

    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    fn rows(&self, table: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.object
            .table(table)
            .expect("a table of the ABI")
            .rows()
            .expect("read a table")
            .into_iter()
            .collect()
    }

    /// Counts summed over the CPUs.
    fn staged(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let table = self.object.table("STAGED").expect("a table of the ABI");
        let sum = |value: Vec<u8>| {
            let cpus = table.split_per_cpu(&value).into_iter();
            let counts = cpus.map(|cpu| u64::from_ne_bytes(cpu.try_into().expect("a count")));
            counts.sum::<u64>().to_ne_bytes().to_vec()
        };
        self.rows("STAGED").into_iter().map(|(key, value)| (key, sum(value))).collect()
    }

    fn write(&self, table: &str, key: &[u8], value: &[u8]) {
        self.object.table(table).expect("a table of the ABI").upsert(key, value).expect("write a table");
    }

    fn set(&self, table: &str, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.write(table, key, value),
            None => {
                self.object.table(table).expect("a table of the ABI").delete(key).expect("write a table");
            }
        }
    }

    /// Counters summed over the CPUs, without rows that are zero.
    fn counters(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let table = self.object.table("METRICS").expect("a table of the ABI");
        let mut rows = BTreeMap::new();
        for (key, value) in self.rows("METRICS") {
            let mut sum = MetricsEntry::default();
            for one in table.split_per_cpu(&value) {
                let one = MetricsEntry::read_from_bytes(&one).expect("a counter");
                sum.packets += one.packets;
                sum.bytes += one.bytes;
            }
            if sum != MetricsEntry::default() {
                rows.insert(key, sum.as_bytes().to_vec());
            }
        }
        rows
    }
}

impl Host for Kernel {
    fn reset(&mut self, world: &World) {
        for table in DUMPED.into_iter().filter(|table| !matches!(*table, "CONFIG" | "METRICS")) {
            self.object.table(table).expect("a table of the ABI").clear().expect("clear a table");
        }
        self.object.table("AFFINITY").expect("a table of the ABI").clear().expect("clear a table");
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
        while self.events.next().is_some() {}
        self.counted = self.counters();
    }

    fn packet(&mut self, input: &Input, _ticks: u64) -> Option<Outcome> {
        let context = Context {
            ifindex: input.ifindex,
            mark: input.mark,
            gso_size: input.gso_size,
            ..Context::default()
        };
        let run = TestRun::new(&input.frame).context(context);
        // Refused are frames that end within the header that their EtherType promises.
        let result = self.object.test_run(input.program.name(), &run).ok()?;
        let mut events = Vec::new();
        while let Some(event) = self.events.next() {
            events.push(normalise(event));
        }
        Some(Outcome {
            verdict: result.verdict.cast_signed(),
            frame: result.frame,
            mark: result.context.mark,
            events,
        })
    }

    fn age(&mut self, ticks: u32) {
        for table in TIMED {
            for (key, row) in self.rows(table) {
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
                match table {
                    "METRICS" => {}
                    "STAGED" => return (table, self.staged()),
                    _ => return (table, self.rows(table)),
                }
                let mut counters = self.counters();
                for (key, before) in &self.counted {
                    let Some(now) = counters.get_mut(key) else { continue };
                    let mut sum = MetricsEntry::read_from_bytes(now).expect("a counter");
                    let before = MetricsEntry::read_from_bytes(before).expect("a counter");
                    sum.packets -= before.packets;
                    sum.bytes -= before.bytes;
                    *now = sum.as_bytes().to_vec();
                }
                counters.retain(|_, value| value.iter().any(|&byte| byte != 0));
                (table, counters)
            })
            .collect()
    }
}

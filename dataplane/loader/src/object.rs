//! The eBPF object: parsed, checked against what is pinned, loaded.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData};
use aya::programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use thiserror::Error;

use crate::pins::Pins;
use crate::probe;
use crate::sys;
use crate::table::{Table, TableError, TableKind};
use crate::test_run::{TestRun, TestRunError, TestRunResult};

/// What to do differently from the object's own definitions.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Sizes of tables by name, instead of those in the object (rows; bytes for a ring buffer).
    pub max_entries: BTreeMap<String, u32>,
    /// Programs on calls of sockets are left out: a kernel without cgroup programs has no use for them and refuses them.
    pub no_sockets: bool,
    /// Number of the network namespace whose processes may not bind ports of services ([`probe::netns_cookie`]); zero: all may.
    pub protected_netns: u64,
}

impl LoadOptions {
    /// Leaves programs on calls of sockets out.
    #[must_use]
    pub const fn no_sockets(mut self, no_sockets: bool) -> Self {
        self.no_sockets = no_sockets;
        self
    }

    /// Keeps processes of a network namespace from binding ports of services; zero: of none.
    #[must_use]
    pub const fn protected_netns(mut self, cookie: u64) -> Self {
        self.protected_netns = cookie;
        self
    }

    /// Sets the size of one table.
    #[must_use]
    pub fn max_entries(mut self, table: &str, rows: u32) -> Self {
        self.max_entries.insert(table.to_owned(), rows);
        self
    }

    /// Sets the size of the conntrack tables (rows of each family).
    #[must_use]
    pub fn conntrack_rows(self, rows: u32) -> Self {
        self.max_entries("CT4", rows).max_entries("CT6", rows)
    }
}

/// Why an object could not be loaded. The text says what to do where there is something to do.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object file cannot be read.
    #[error("read the eBPF object {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bytes are no eBPF object.
    #[error("parse the eBPF object")]
    Parse(#[source] Box<aya_obj::ParseError>),
    /// The pin directory cannot be made.
    #[error("make the pin directory {path}; is a bpffs mounted there?")]
    PinDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pinned table has another layout than this build's. Rows cannot be read across layouts.
    #[error(
        "table {table} is pinned in {dir} with {pinned}, this build needs {wanted}: builds with another layout must \
         have another ABI version; drain the node and remove the directory, or start the version that made it"
    )]
    Layout {
        /// Table name.
        table: String,
        /// Pin directory.
        dir: PathBuf,
        /// What is pinned.
        pinned: Layout,
        /// What the object has.
        wanted: Layout,
    },
    /// A pinned table cannot be read.
    #[error("inspect a pinned table")]
    Table(#[from] TableError),
    /// The kernel refused maps or relocations.
    #[error("load the eBPF object")]
    Load(#[source] Box<aya::EbpfError>),
    /// The verifier refused a program.
    #[error("load program {program}: the verifier says: {log}")]
    Program {
        /// Program name.
        program: String,
        /// The end of the verifier's log.
        log: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A program was refused before the verifier saw it.
    #[error("load program {program}")]
    Unfit {
        /// Program name.
        program: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
}

impl LoadError {
    fn of_program(program: &str, error: ProgramError) -> Self {
        let program = program.to_owned();
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                let lines: Vec<&str> = log.lines().collect();
                let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                Self::Program { program, log, source: io_error }
            }
            error => Self::Unfit { program, source: Box::new(error) },
        }
    }
}

/// How many lines of the verifier's log an error carries: the reason and the totals stand at its end.
const LOG_LINES: usize = 12;

/// What two builds must agree on to share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The kind of map.
    pub kind: TableKind,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Creation flags.
    pub flags: u32,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} + {} bytes (flags {:#x})", self.kind, self.key_size, self.value_size, self.flags)
    }
}

/// A pinned table that was kept although it has another size than asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSize {
    /// Table name.
    pub table: String,
    /// Its size in the kernel.
    pub pinned: u32,
    /// The size that was asked for.
    pub wanted: u32,
}

impl fmt::Display for KeptSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "table {} keeps its {} rows instead of {}: a table in use is not resized; the new size comes with the \
             next boot of the node",
            self.table, self.pinned, self.wanted
        )
    }
}

/// A loaded object: its programs are verified and can be attached, its tables are open.
///
/// Dropping it takes nothing away that is pinned or attached.
#[derive(Debug)]
pub struct Object {
    ebpf: Ebpf,
    tables: BTreeMap<String, Table>,
    kept: Vec<KeptSize>,
}

/// A program's size as the verifier saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Program name.
    pub name: String,
    /// Instructions that the verifier walked through; `None` before kernel 5.16, which does not report it.
    pub verified_instructions: Option<u32>,
    /// Instructions after the kernel's rewriting, in bytes.
    pub translated_bytes: Option<u32>,
    /// Machine code in bytes.
    pub jited_bytes: u32,
}

impl Object {
    /// Loads an object file: see [`Object::load_bytes`].
    pub fn load(path: &Path, pins: Option<&Pins>, options: &LoadOptions) -> Result<Self, LoadError> {
        let bytes =
            std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Self::load_bytes(&bytes, pins, options)
    }

    /// Loads an object: takes over the tables that are pinned, makes and pins the others, and loads every program.
    ///
    /// A pinned table with another layout is an error ([`LoadError::Layout`]); one with another number of rows is kept
    /// as it is and reported by [`Object::kept_sizes`]. Without `pins` nothing is pinned: the tables live as long as
    /// this object (tests, verification).
    ///
    /// Nothing is attached. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn load_bytes(bytes: &[u8], pins: Option<&Pins>, options: &LoadOptions) -> Result<Self, LoadError> {
        let parsed = aya_obj::Object::parse(bytes).map_err(|error| LoadError::Parse(Box::new(error)))?;
        // Only what the ABI names is shared across loads. Scratch space and sections of globals (.rodata, .bss) are
        // maps too, but they belong to the programs of one load.
        let names: Vec<&str> = parsed.maps.keys().map(String::as_str).filter(|name| is_abi(name)).collect();
        let pin_paths: Vec<(&str, PathBuf)> =
            pins.map_or_else(Vec::new, |pins| names.iter().map(|&name| (name, pins.table(name))).collect());
        let mut kept = Vec::new();
        if let Some(pins) = pins {
            pins.create().map_err(|source| LoadError::PinDir { path: pins.dir(), source })?;
            for &name in &names {
                let map = &parsed.maps[name];
                let wanted = options.max_entries.get(name).copied().unwrap_or(map.max_entries());
                kept.extend(check_pinned(pins, name, map, wanted)?);
            }
        }

        let mut loader = EbpfLoader::new();
        for (name, path) in &pin_paths {
            loader.map_pin_path(name, path.as_path());
        }
        for (name, &rows) in &options.max_entries {
            loader.map_max_entries(name, rows);
        }
        let has_set_retval = probe::has_set_retval();
        // An object of another build may not ask for it.
        loader.override_global(probe::HAS_SET_RETVAL, &has_set_retval, false);
        loader.override_global(probe::PROTECTED_NETNS, &options.protected_netns, false);
        let mut ebpf = loader.load(bytes).map_err(|error| LoadError::Load(Box::new(error)))?;
        let mut tables = BTreeMap::new();
        for (name, map) in ebpf.maps() {
            if let Some(data) = map_data(map).filter(|_| is_abi(name)) {
                let fd = data.fd().as_fd().try_clone_to_owned().map_err(|source| TableError::Kernel {
                    name: name.to_owned(),
                    operation: "open",
                    source,
                })?;
                tables.insert(name.to_owned(), Table::from_fd(fd, Some(name))?);
            }
        }
        for (name, program) in ebpf.programs_mut() {
            let loaded = match program {
                Program::SchedClassifier(program) => program.load(),
                Program::CgroupSockAddr(program) if !options.no_sockets => program.load(),
                _ => Ok(()),
            };
            loaded.map_err(|error| LoadError::of_program(name, error))?;
        }
        // Loading reads the kernel's type information, tens of megabytes of small pieces, which a process that lives as
        // long as an agent should not keep: 14 MiB resident become 4. The loader holds them until it goes.
        drop(loader);
        drop(parsed);
        sys::release_memory();
        Ok(Self { ebpf, tables, kept })
    }

    /// The table with this name.
    pub fn table(&self, name: &str) -> Result<&Table, TableError> {
        self.tables
            .get(name)
            .ok_or_else(|| TableError::NotFound { name: name.to_owned(), path: "the eBPF object".to_owned() })
    }

    /// Every table, by name in ascending order.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// Pinned tables that were kept with another size than asked for; worth a warning each.
    pub fn kept_sizes(&self) -> &[KeptSize] {
        &self.kept
    }

    /// The names of the programs in ascending order.
    pub fn programs(&self) -> Vec<String> {
        let mut names: Vec<String> = self.ebpf.programs().map(|(name, _)| name.to_owned()).collect();
        names.sort();
        names
    }

    /// Sizes of the programs as loaded, by name in ascending order.
    pub fn stats(&self) -> Vec<ProgramStats> {
        let mut stats: Vec<ProgramStats> = self
            .ebpf
            .programs()
            .filter_map(|(name, program)| {
                let info = program.info().ok()?;
                Some(ProgramStats {
                    name: name.to_owned(),
                    verified_instructions: info.verified_instruction_count(),
                    translated_bytes: info.size_translated(),
                    jited_bytes: info.size_jitted(),
                })
            })
            .collect();
        stats.sort_by(|a, b| a.name.cmp(&b.name));
        stats
    }

    /// How often a program has run since the kernel was told to count (`kernel.bpf_stats_enabled`).
    pub fn run_count(&self, program: &str) -> Option<u64> {
        Some(self.ebpf.program(program)?.info().ok()?.run_count())
    }

    /// Runs a program once or many times on a frame, without any device: see [`TestRun`].
    pub fn test_run(&self, program: &str, run: &TestRun<'_>) -> Result<TestRunResult, TestRunError> {
        let classifier = self
            .classifier(program)
            .ok_or_else(|| TestRunError::NoProgram { program: program.to_owned() })?;
        run.on(program, classifier)
    }

    pub(crate) fn classifier(&self, name: &str) -> Option<&SchedClassifier> {
        match self.ebpf.program(name)? {
            Program::SchedClassifier(program) => Some(program),
            _ => None,
        }
    }

    pub(crate) fn classifier_mut(&mut self, name: &str) -> Option<&mut SchedClassifier> {
        match self.ebpf.program_mut(name)? {
            Program::SchedClassifier(program) => Some(program),
            _ => None,
        }
    }

    pub(crate) fn socket_program(&self, name: &str) -> Option<&CgroupSockAddr> {
        match self.ebpf.program(name)? {
            Program::CgroupSockAddr(program) => Some(program),
            _ => None,
        }
    }
}

/// Whether the ABI has a table of this name.
fn is_abi(name: &str) -> bool {
    dataplane_abi::table::by_name(name).is_some()
}

/// Compares a pinned table, if there is one, with the object's definition.
fn check_pinned(
    pins: &Pins,
    name: &str,
    map: &aya_obj::Map,
    wanted_rows: u32,
) -> Result<Option<KeptSize>, LoadError> {
    let table = match Table::open(pins, name) {
        Ok(table) => table,
        Err(TableError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let info = table.info();
    let pinned =
        Layout { kind: info.kind, key_size: info.key_size, value_size: info.value_size, flags: info.flags };
    let wanted = Layout {
        kind: TableKind::from_kernel(map.map_type()),
        key_size: map.key_size() as usize,
        value_size: map.value_size() as usize,
        flags: map.map_flags(),
    };
    if pinned != wanted {
        return Err(LoadError::Layout { table: name.to_owned(), dir: pins.dir(), pinned, wanted });
    }
    Ok((info.max_entries != wanted_rows).then(|| KeptSize {
        table: name.to_owned(),
        pinned: info.max_entries,
        wanted: wanted_rows,
    }))
}

/// The kernel's handle inside one of aya's map types, for the kinds that the dataplane uses.
fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

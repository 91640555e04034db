//! What the verifier of the running kernel thinks of each program: accepted at what cost, or refused and why.
//!
//! The cost is read from the verifier's log, which every supported kernel writes; the count in the program's information
//! came with 5.16 only. Nothing is attached, pinned or kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use aya_obj::ProgramSection;
use aya_obj::btf::Btf;
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use nix::sys::resource::{Resource, setrlimit};
use thiserror::Error;

use crate::{probe, sys};

/// Why the programs could not be brought before the verifier at all.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The bytes are no eBPF object, or a part of it does not fit together.
    #[error("prepare the eBPF object: {0}")]
    Object(String),
    /// The kernel refused a map or the type information.
    #[error("create {what}")]
    Kernel {
        /// What was to be made.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The verifier's word on one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Accepted after walking through so many instructions.
    Accepted {
        /// "processed … insns" of the log.
        instructions: u32,
    },
    /// Refused.
    Refused {
        /// The kernel's answer.
        error: String,
        /// The end of the verifier's log.
        log: String,
    },
}

/// Brings every program of the object before the verifier; the result is by program name.
pub fn judge(object: &[u8]) -> Result<BTreeMap<String, Judgement>, PrepareError> {
    // Before 5.11 maps and programs count against this limit. Where it may not be raised it is not needed.
    let _unlimited = setrlimit(Resource::RLIMIT_MEMLOCK, u64::MAX, u64::MAX);

    let unfit = |error: &dyn std::error::Error| PrepareError::Object(error.to_string());
    let mut object = aya_obj::Object::parse(object).map_err(|error| unfit(&error))?;
    let has_set_retval = probe::has_set_retval().to_ne_bytes();
    object
        .patch_map_data(HashMap::from([
            (probe::HAS_SET_RETVAL, (has_set_retval.as_slice(), false)),
            // Any number but zero, of which the verifier would know that what follows is not reached.
            (probe::PROTECTED_NETNS, (1_u64.to_ne_bytes().as_slice(), false)),
        ]))
        .map_err(|error| unfit(&error))?;
    let features = aya::features();
    let btf = match features.btf() {
        Some(features) => match object.fixup_and_sanitize_btf(features).map_err(|error| unfit(&error))? {
            Some(btf) => Some(sys::btf_load(&btf.to_bytes()).map_err(|source| PrepareError::Kernel {
                what: "the type information".to_owned(),
                source,
            })?),
            None => None,
        },
        None => None,
    };
    if let Ok(kernel) = Btf::from_sys_fs() {
        object.relocate_btf(&kernel).map_err(|error| unfit(&error))?;
    }

    let maps: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
    let mut fds: Vec<OwnedFd> = Vec::with_capacity(maps.len());
    for (name, map) in &maps {
        fds.push(create(name, map)?);
    }
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_maps(
            maps.iter().zip(&fds).map(|((name, map), fd)| (name.as_str(), fd.as_raw_fd(), map)),
            &sections,
        )
        .map_err(|error| unfit(&error))?;
    object.relocate_calls(&sections).map_err(|error| unfit(&error))?;
    object.sanitize_functions(features);

    let mut judgements = BTreeMap::new();
    for (name, program) in &object.programs {
        let function = object
            .functions
            .get(&program.function_key())
            .ok_or_else(|| PrepareError::Object(format!("program {name} has no code")))?;
        judgements.insert(name.clone(), judge_one(name, program, function, btf.as_ref()));
    }
    Ok(judgements)
}

/// [`judge`] for an object file.
pub fn judge_file(path: &Path) -> Result<BTreeMap<String, Judgement>, PrepareError> {
    let bytes = std::fs::read(path).map_err(|source| PrepareError::Kernel {
        what: format!("the object from {}", path.display()),
        source,
    })?;
    judge(&bytes)
}

fn create(name: &str, map: &aya_obj::Map) -> Result<OwnedFd, PrepareError> {
    let failed = |source| PrepareError::Kernel { what: format!("map {name}"), source };
    let inner = map.inner().map(|inner| create(name, &inner)).transpose()?;
    let def = sys::MapDef {
        kind: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
    };
    // Sections of globals are named with a dot in front, which the kernel takes only since 5.2.
    let fd = sys::map_create(name, &def, inner.as_ref().map(OwnedFd::as_fd)).map_err(failed)?;
    if !map.data().is_empty() {
        sys::map_update(fd.as_fd(), &[0; 4], map.data(), 0).map_err(failed)?;
        if map.section_kind() == aya_obj::EbpfSectionKind::Rodata {
            // The verifier takes frozen read-only data for constants.
            sys::map_freeze(fd.as_fd()).map_err(failed)?;
        }
    }
    Ok(fd)
}

fn judge_one(
    name: &str,
    program: &aya_obj::Program,
    function: &aya_obj::Function,
    btf: Option<&OwnedFd>,
) -> Judgement {
    let func_info = function.func_info.func_info_bytes();
    let line_info = function.line_info.line_info_bytes();
    let (kind, expected_attach_type) = match &program.section {
        ProgramSection::CgroupSockAddr { attach_type } => {
            (bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, bpf_attach_type::from(*attach_type) as u32)
        }
        _ => (bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 0),
    };
    let load = sys::ProgDef {
        kind: kind as u32,
        expected_attach_type,
        name,
        instructions: &function.instructions,
        license: &program.license,
        btf: btf.map(OwnedFd::as_fd),
        func_info: (&func_info, function.func_info_rec_size),
        line_info: (&line_info, function.line_info_rec_size),
    };
    let accepted = |log: &str| Judgement::Accepted { instructions: processed(log).unwrap_or(0) };
    // Statistics alone are a few lines; the whole log is wanted only of a program that is refused.
    let (result, log) = sys::prog_load(&load, sys::LOG_STATS, 1 << 16);
    if result.is_ok() {
        return accepted(&log);
    }
    let (again, log) = sys::prog_load(&load, sys::LOG_STEPS, 16 << 20);
    match again {
        Ok(_) => accepted(&log),
        Err(error) => {
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            Judgement::Refused { error: error.to_string(), log: tail }
        }
    }
}

/// The number in "processed 1234 insns (limit 1000000) …".
fn processed(log: &str) -> Option<u32> {
    let (_, rest) = log.rsplit_once("processed ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_the_log() {
        let log = "verification time 120 usec\nstack depth 64\nprocessed 1234 insns (limit 1000000) max_states_per_insn 4\n";
        assert_eq!(processed(log), Some(1234));
        assert_eq!(processed("nothing of the kind"), None);
    }
}

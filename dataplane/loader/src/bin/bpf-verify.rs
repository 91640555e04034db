//! Brings the programs of an eBPF object before the running kernel's verifier and prints what it says, one line each.
//!
//! Started as the first process of a VM it makes itself at home first, and ends the VM by ending.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dataplane_loader::verifier::{Judgement, judge_file};
use nix::mount::{MsFlags, mount};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
            if let Err(error) = mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>) {
                println!("bpf-verify: error cannot mount {kind} on {at}: {error}");
            }
        }
    }
    let object = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("/bristle.bpf.o"), PathBuf::from);
    let release = nix::sys::utsname::uname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.release().to_string_lossy().into_owned());
    println!("bpf-verify: kernel {release}");
    if verify(&object) {
        println!("bpf-verify: done");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn verify(object: &Path) -> bool {
    let judgements = match judge_file(object) {
        Ok(judgements) => judgements,
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            println!("bpf-verify: error {error}{cause}");
            return false;
        }
    };
    for (name, judgement) in judgements {
        match judgement {
            Judgement::Accepted { instructions } => println!("bpf-verify: program {name} {instructions}"),
            Judgement::Refused { error, log } => {
                println!("bpf-verify: refused {name} {error}");
                for line in log.lines() {
                    println!("bpf-verify: log {line}");
                }
            }
        }
    }
    true
}

//! The last word of a plain `cargo test`: which rungs of tests it left out, why, and how to run them.
//!
//! Not a libtest harness, so that what it prints is seen. It runs last because its package sorts last.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a rung needs, in the words of its remedy.
struct Need {
    met: bool,
    lacks: &'static str,
}

fn main() {
    // `cargo test -- --list` and the like ask harnesses for their tests: there is none to list here.
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let root = Need { met: is_root(), lacks: "root" };
    let object = Need { met: object().is_some_and(|path| path.exists()), lacks: "the eBPF object" };
    let programs = Need {
        met: std::env::var_os("BRISTLE_BIN_DIR")
            .is_some_and(|dir| Path::new(&dir).join("bristle-agent").exists()),
        lacks: "the programs (BRISTLE_BIN_DIR)",
    };
    let kubectl =
        Need { met: std::env::var_os("KUBECTL").is_some(), lacks: "kubectl 1.32 or later (KUBECTL)" };
    let engine = Need { met: has_engine(), lacks: "a Docker engine" };
    let rungs: [(&str, Vec<&Need>); 6] = [
        ("rung 5: the same frames in the kernel as natively", vec![&root, &object]),
        ("rung 5: attach, pin and replace on this kernel", vec![&root, &object]),
        ("rung 6: agents, CNI calls and pods in network namespaces", vec![&root, &object, &programs]),
        ("rung 6: sandboxes of containerd", vec![&root, &object, &programs]),
        ("the programs as a container engine runs them", vec![&programs, &engine]),
        ("kubectl against the simulated API server", vec![&kubectl]),
    ];
    let mut left_out = false;
    println!("\nbeside rungs 0 to 4 (layout, units, properties, journeys, clusters in one process):");
    for (rung, needs) in rungs {
        let missing: Vec<&str> = needs.iter().filter(|need| !need.met).map(|need| need.lacks).collect();
        if missing.is_empty() {
            println!("  ran       {rung}");
        } else {
            left_out = true;
            println!("  LEFT OUT  {rung}: no {}", missing.join(", no "));
        }
    }
    if left_out {
        println!("`cargo xtask test` as root installs and builds what they need and runs all of them\n");
        if std::env::var_os("BRISTLE_REQUIRE_ALL").is_some_and(|value| value == "1") {
            eprintln!("error: BRISTLE_REQUIRE_ALL=1, but something was left out");
            std::process::exit(1);
        }
    }
}

fn object() -> Option<PathBuf> {
    std::env::var_os("BRISTLE_BPF_OBJECT").map(PathBuf::from).or_else(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
        Some(root.join("target/bpf/bristle.bpf.o"))
    })
}

fn has_engine() -> bool {
    let mut client = Command::new("docker");
    client.args(["version", "--format", "{{.Server.Version}}"]).stderr(Stdio::null());
    client.output().is_ok_and(|output| output.status.success())
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        uids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
    })
}

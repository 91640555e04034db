//! Brings the programs of an eBPF object before the running kernel's verifier and prints what it says, one line each.
//!
//! Started as the first process of a VM it makes itself at home first, loads and attaches the object as the agent does,
//! and ends the VM by ending.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dataplane_abi::program::SocketProgram;
use dataplane_loader::attach::{Attached, detach, list};
use dataplane_loader::cgroup;
use dataplane_loader::verifier::{Judgement, judge};
use dataplane_loader::{Clock, Hook, HookKind, LoadOptions, Object, Sandbox, TestRun};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

fn main() -> ExitCode {
    let in_vm = std::process::id() == 1;
    if in_vm {
        settle();
    }
    let object = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("/bristle.bpf.o"), PathBuf::from);
    let release = nix::sys::utsname::uname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.release().to_string_lossy().into_owned());
    println!("bpf-verify: kernel {release}");
    match run(&object, in_vm) {
        Ok(()) => {
            println!("bpf-verify: done");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("bpf-verify: error {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// What an init does: mounts, and the modules that are there.
fn settle() {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
        if let Err(error) = mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>) {
            println!("bpf-verify: error cannot mount {kind} on {at}: {error}");
        }
    }
    for entry in std::fs::read_dir("/modules").into_iter().flatten().flatten() {
        let loaded = std::fs::File::open(entry.path())
            .and_then(|file| Ok(finit_module(file, c"", ModuleInitFlags::empty())?));
        if let Err(error) = loaded {
            println!("bpf-verify: error cannot load {}: {error}", entry.path().display());
        }
    }
}

fn run(object: &Path, in_vm: bool) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(object)?;
    let mut refused = false;
    for (name, judgement) in judge(&bytes)? {
        match judgement {
            Judgement::Accepted { instructions } => println!("bpf-verify: program {name} {instructions}"),
            Judgement::Refused { error, log } => {
                refused = true;
                println!("bpf-verify: refused {name} {error}");
                for line in log.lines() {
                    println!("bpf-verify: log {line}");
                }
            }
        }
    }
    if in_vm && !refused {
        // On a kernel that runs the tests, they try this and more.
        let kind = Sandbox::run(|sandbox| exercise(sandbox, &bytes).map_err(|error| chain(error.as_ref())))??;
        println!("bpf-verify: attached {kind}");
    }
    Ok(())
}

/// What an agent does with an object, and does again after a restart.
fn exercise(sandbox: &Sandbox, bytes: &[u8]) -> Result<HookKind, Box<dyn Error>> {
    let pins = sandbox.pins();
    let options = LoadOptions::default().conntrack_rows(4096);
    let hooks = [Hook::ingress("lo"), Hook::egress("lo")];
    let expect = |what: &str, wanted: Attached, found: Attached| {
        if wanted == found { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}")) }
    };

    let mut object = Object::load_bytes(bytes, Some(&pins), &options)?;
    for hook in &hooks {
        expect("first attach", Attached::New, object.attach(&pins, "to_host", hook)?)?;
        expect("another program", Attached::Replaced, object.attach(&pins, "to_container", hook)?)?;
    }
    Clock::calibrate(&object)?;
    object.test_run("from_container", &TestRun::new(&[0; 64]))?;

    exercise_sockets(sandbox, &object)?;
    drop(object);

    if list(&pins)?.len() != hooks.len() {
        return Err("the attachments did not outlive the object".into());
    }
    let mut object = Object::load_bytes(bytes, Some(&pins), &options)?;
    for hook in &hooks {
        expect("after a restart", Attached::Replaced, object.attach(&pins, "to_container", hook)?)?;
        if !detach(&pins, hook)? {
            return Err(format!("{hook} had nothing to detach").into());
        }
    }
    Ok(HookKind::of_kernel())
}

/// The same with the programs on calls of sockets.
fn exercise_sockets(sandbox: &Sandbox, object: &Object) -> Result<(), Box<dyn Error>> {
    let pins = sandbox.pins();
    let root = Path::new("/cgroup2");
    std::fs::create_dir_all(root)?;
    mount(Some("none"), root, Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
    let group = root.join("bristle");
    std::fs::create_dir_all(&group)?;
    for program in SocketProgram::ALL {
        for wanted in [Attached::New, Attached::Unchanged] {
            let found = object.attach_socket(&pins, program, &group)?;
            if found != wanted {
                return Err(format!("{}: {found:?} instead of {wanted:?}", program.name()).into());
            }
        }
        if !cgroup::detach(&pins, program)? {
            return Err(format!("{} was not attached", program.name()).into());
        }
    }
    Ok(())
}

/// An error with its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string().replace('\n', " / ");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

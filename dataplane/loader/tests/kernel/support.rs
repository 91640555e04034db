//! What the tests share: the sandbox or a loud skip, the object, and commands.

use std::path::PathBuf;
use std::process::Command;

use dataplane_loader::{LoadOptions, Object, Sandbox};

/// Runs the test in a sandbox, or says why it does not.
pub(crate) fn in_sandbox(body: impl FnOnce(&Sandbox) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    Sandbox::run(body).unwrap();
}

/// The eBPF object, or a loud skip.
pub(crate) fn object_bytes() -> Option<Vec<u8>> {
    let places = [
        std::env::var_os("BRISTLE_BPF_OBJECT").map(PathBuf::from),
        std::env::var_os("CARGO_TARGET_DIR").map(|dir| PathBuf::from(dir).join("bpf/bristle.bpf.o")),
        Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/bristle.bpf.o")),
    ];
    let found = places.into_iter().flatten().find(|path| path.exists());
    if found.is_none() {
        skip("needs the eBPF object: run `cargo xtask ebpf`");
    }
    found.map(|path| std::fs::read(path).unwrap())
}

fn skip(why: &str) {
    assert!(
        std::env::var_os("BRISTLE_REQUIRE_ALL").is_none(),
        "a test was to be skipped although all are required: {why}"
    );
    eprintln!("SKIPPED: this test {why}");
}

/// Runs the test with the object loaded and pinned in a sandbox.
pub(crate) fn with_object(body: impl FnOnce(&Sandbox, &[u8], Object) + Send) {
    let Some(bytes) = object_bytes() else {
        return;
    };
    in_sandbox(|sandbox| {
        let object = load(sandbox, &bytes);
        body(sandbox, &bytes, object);
    });
}

/// Loads and pins the object with small tables.
pub(crate) fn load(sandbox: &Sandbox, bytes: &[u8]) -> Object {
    Object::load_bytes(bytes, Some(&sandbox.pins()), &small()).unwrap()
}

/// Table sizes that a test machine has room for many times over.
pub(crate) fn small() -> LoadOptions {
    LoadOptions::default().conntrack_rows(4096)
}

/// Runs a command in the calling thread's namespaces.
pub(crate) fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Packets that a device of this thread's network namespace has received.
pub(crate) fn received(device: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':')).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

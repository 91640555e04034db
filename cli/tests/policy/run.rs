//! Runs the program.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// What a run came to.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn manifests(name: &str) -> String {
    format!("{}/tests/manifests/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `bristle policy` with these arguments; `@x` stands for the manifests `x`.
pub(crate) fn policy(args: &[&str], input: &str) -> Ran {
    let args = args.iter().map(|arg| arg.strip_prefix('@').map_or_else(|| (*arg).to_owned(), manifests));
    let mut child = Command::new(env!("CARGO_BIN_EXE_bristle"))
        .arg("policy")
        .args(args)
        .env_remove("BRISTLE_OUTPUT")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    Ran {
        code: done.status.code().unwrap(),
        out: String::from_utf8(done.stdout).unwrap(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

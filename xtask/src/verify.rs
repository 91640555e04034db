//! The object before the verifier of every kernel of the matrix: the running one, and Debian's in VMs.
//!
//! A VM has no disk: kernel, and an initial file system with one program (`bpf-verify`, with its libraries) and the
//! object. The program is the VM's first process; its lines come back over the serial console.

mod counts;
mod initramfs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::cmd;
use crate::setup::{self, Suite};

/// Verified instructions of each program.
type Counts = BTreeMap<String, u32>;

/// How long a VM may take from start to end. It takes about five seconds on an idle machine.
const VM_PATIENCE: Duration = Duration::from_mins(4);

/// Loads the object on the kernels named (all if none are), prints the counts and compares them with the docs, or
/// writes them there.
pub(crate) fn run(object: &Path, kernels: &[String], update: bool) -> anyhow::Result<()> {
    cmd::need_root("loading eBPF programs")?;
    let wanted = |name: &str| kernels.is_empty() || kernels.iter().any(|kernel| kernel == name);
    for kernel in kernels {
        if kernel != "running" && !Suite::ALL.iter().any(|suite| suite.version() == kernel) {
            bail!("no kernel {kernel}: use running, 5.10, 6.1 or 6.12");
        }
    }
    let verifier = build_verifier()?;
    let mut columns = Vec::new();
    let mut failures = Vec::new();
    let mut note = |kernel: &str, result: anyhow::Result<Counts>| match result {
        Ok(counts) => columns.push((kernel.to_owned(), counts)),
        // The others are still worth knowing.
        Err(error) => failures.push(format!("Linux {kernel}: {error:#}")),
    };
    if wanted("running") {
        note(&counts::running(&kernel_release()), on_this_kernel(&verifier, object));
    }
    let suites: Vec<Suite> = Suite::ALL.into_iter().filter(|suite| wanted(suite.version())).collect();
    if !suites.is_empty() {
        setup::ensure("verify")?;
        for suite in suites {
            let image = cmd::target_dir().join(format!("bpf/verify-{}.cpio", suite.version()));
            let kernel = setup::kernel(suite)?;
            initramfs::write(&image, &verifier, object, &kernel.modules)?;
            note(suite.version(), in_vm(&kernel.image, &image));
        }
    }
    print!("{}", counts::table(&columns));
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    if update { counts::write(&columns) } else { counts::compare(&columns) }
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

fn build_verifier() -> anyhow::Result<PathBuf> {
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--quiet", "--locked", "--package", "dataplane-loader", "--bin", "bpf-verify"]);
    cmd::run("build the verifier's caller", &mut cargo)?;
    Ok(cmd::target_dir().join("debug/bpf-verify"))
}

fn on_this_kernel(verifier: &Path, object: &Path) -> anyhow::Result<Counts> {
    eprintln!("==> verify on the running kernel");
    let output = Command::new(verifier).arg(object).stderr(Stdio::inherit()).output()?;
    parse(&String::from_utf8_lossy(&output.stdout), false)
}

/// Attempts at a VM. An emulated machine sometimes crashes while its kernel starts.
const ATTEMPTS: usize = 3;

fn in_vm(kernel: &Path, image: &Path) -> anyhow::Result<Counts> {
    eprintln!("==> verify in a VM: {}", kernel.file_name().unwrap_or_default().display());
    for attempt in 1.. {
        let log = image.with_extension("log");
        let console = boot(kernel, image, &log)?;
        // Only a start that never came to our program is tried again.
        if console.contains(STARTED) || attempt == ATTEMPTS {
            return parse(&console, true).with_context(|| format!("its console is in {}", log.display()));
        }
        eprintln!("    its kernel did not start; once more");
    }
    unreachable!("the last attempt returns")
}

/// Starts a VM and returns what its console said until it ended.
fn boot(kernel: &Path, image: &Path, log: &Path) -> anyhow::Result<String> {
    let qemu = setup::find_program("qemu-system-x86_64")
        .context("qemu-system-x86_64 is missing: run `cargo xtask setup --for verify`")?;
    let mut vm = Command::new(qemu)
        // No KVM: it hangs on machines that are VMs themselves, and verifying takes little.
        .args(["-accel", "tcg", "-cpu", "qemu64", "-m", "768", "-smp", "1", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-monitor", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        // The first process ends when it has said all; the kernel then panics, and leaves.
        .args(["-append", "console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/init mitigations=off"])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(log)?)
        .stderr(Stdio::inherit())
        .spawn()
        .context("start qemu")?;
    let start = Instant::now();
    while vm.try_wait()?.is_none() {
        if start.elapsed() > VM_PATIENCE {
            vm.kill()?;
            vm.wait()?;
            bail!("no end after {} s; its console is in {}", VM_PATIENCE.as_secs(), log.display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(String::from_utf8_lossy(&std::fs::read(log)?).into_owned())
}

/// The first word of `bpf-verify`.
const STARTED: &str = "bpf-verify: kernel";

/// Reads the lines of `bpf-verify`; anything but a judgement on every program and a proper end is an error.
/// `attached`: the programs must have been put on a device and taken off again, too.
fn parse(output: &str, attached: bool) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let mut refused = Vec::new();
    let (mut done, mut hooked) = (false, false);
    for line in output.lines() {
        // The console may put control characters before a line.
        let Some((_, line)) = line.split_once("bpf-verify: ") else { continue };
        let (word, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        match word {
            "program" => {
                let (name, count) = rest.split_once(' ').context("a line is cut off")?;
                counts.insert(name.to_owned(), count.trim().parse().context("a count is no number")?);
            }
            "refused" => refused.push(rest.to_owned()),
            "log" => refused.push(format!("    {rest}")),
            "error" => bail!("{rest}"),
            "attached" => {
                eprintln!("    attached, replaced and detached by {rest}");
                hooked = true;
            }
            "done" => done = true,
            _ => {}
        }
    }
    if !refused.is_empty() {
        bail!("the verifier refuses: {}", refused.join("\n"));
    }
    if !done || counts.is_empty() {
        bail!("the programs' judgements did not arrive");
    }
    if attached && !hooked {
        bail!("the programs were not attached");
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judgements_are_read_from_a_console() {
        let console = "noise\r\n\u{1b}[0mbpf-verify: kernel 5.10.0\r\nbpf-verify: program a 12\r\nbpf-verify: program b 34\r\nbpf-verify: done\r\nKernel panic\r\n";
        let counts = parse(console, false).expect("a whole console");
        assert!(parse(console, true).is_err());
        assert_eq!(counts, Counts::from([("a".to_owned(), 12), ("b".to_owned(), 34)]));
        assert!(parse("bpf-verify: program a 12\n", false).is_err());
        assert!(parse("bpf-verify: done\n", false).is_err());
        let refused = parse(
            "bpf-verify: program a 1\nbpf-verify: refused b EACCES\nbpf-verify: log R1 bad\nbpf-verify: done\n",
            false,
        );
        assert!(format!("{:#}", refused.expect_err("a refusal")).contains("R1 bad"));
    }
}

//! The commands of `bristle-lab`, as a person uses them.

use std::process::{Command, Output};

use lab::bins::BinDir;
use lab::plan::LabName;
use lab::preflight::can_test;
use lab::state::LabDir;
use nix::sys::signal::Signal;

/// A lab that is removed when the test ends.
struct Lab(LabName);

impl Lab {
    fn named(what: &str) -> Self {
        Self(format!("cmd-{what}-{}", std::process::id()).parse().expect("a name"))
    }

    fn run(&self, args: &[&str]) -> Output {
        let program = BinDir::find(None).expect("the programs are there").lab();
        Command::new(program)
            .args(&args[..1])
            .args(["--name", self.0.as_str()])
            .args(&args[1..])
            .output()
            .expect("the program runs")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

#[test]
fn a_lab_comes_up_is_used_and_goes() {
    if !can_test() {
        return;
    }
    let (lab, other) = (Lab::named("a"), Lab::named("b"));
    assert!(lab.refused(&["status"]).contains("there is no lab"));
    let up = lab.ok(&["up", "--nodes", "2"]);
    assert!(up.contains("ready after") && up.contains("kubeconfig: /run/bristle-lab/"), "{up}");
    assert!(lab.refused(&["up"]).contains("is up already"));
    other.ok(&["up", "--nodes", "1", "--family", "v4", "--routing", "native", "--bare"]);

    let status = lab.ok(&["status"]);
    assert!(
        status.contains("node-2") && status.contains("default/client") && !status.contains("NotReady"),
        "{status}"
    );
    assert_eq!(lab.ok(&["shell", "client", "--", "sh", "-c", "hostname; echo $((6 * 7))"]), "client\n42\n");
    assert_eq!(lab.ok(&["shell", "node-2", "--", "hostname"]), "node-2\n");
    // What is attached to the node's cgroup counts for who is in it.
    let cgroup = lab.ok(&["shell", "node-2", "--", "grep", "^0::", "/proc/self/cgroup"]);
    assert!(cgroup.ends_with("/node-2\n"), "{cgroup}");
    assert_eq!(lab.run(&["shell", "client", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert!(lab.refused(&["shell", "nobody"]).contains("lab status"));
    lab.ok(&["shell", "client", "--", "ping", "-c", "1", "-W", "5", "node-2"]);
    lab.ok(&["agent", "kill", "node-1"]);
    assert_eq!(lab.ok(&["fault", "list"]), "nothing is broken\n");
    assert!(lab.refused(&["fault", "partition", "node-1"]).contains("--software-fabric"));
    lab.ok(&["fault", "api", "down", "node-2"]);
    lab.ok(&["fault", "cni", "repeat-del", "1s", "--for", "1h"]);
    let broken = lab.ok(&["fault", "list"]);
    assert!(broken.contains("api down") && broken.matches("cni repeat-del").count() == 2, "{broken}");
    lab.ok(&["fault", "heal"]);
    assert_eq!(lab.ok(&["fault", "list"]), "nothing is broken\n");
    assert!(!lab.ok(&["logs", "node-1"]).is_empty());

    let program = BinDir::find(None).expect("the programs are there").lab();
    let list = Command::new(program).arg("list").output().expect("list runs");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains(lab.0.as_str()) && list.contains(other.0.as_str()), "{list}");
    assert_ne!(
        LabDir::of(&lab.0).record().expect("a").plan.index,
        LabDir::of(&other.0).record().expect("b").plan.index
    );
    lab.ok(&["down"]);
    assert!(!LabDir::of(&lab.0).path().exists());
    other.ok(&["status"]);
}

#[test]
fn what_a_crashed_lab_left_is_removed() {
    if !can_test() {
        return;
    }
    let lab = Lab::named("crash");
    lab.ok(&["up", "--nodes", "1", "--bare"]);
    let record = LabDir::of(&lab.0).record().expect("a record");
    record.owner.signal(Signal::SIGKILL).expect("the supervisor runs");
    assert!(record.owner.wait_gone(crate::common::PATIENCE));
    // The machines notice by themselves.
    for machine in &record.machines {
        assert!(machine.wait_gone(crate::common::PATIENCE), "{machine:?}");
    }
    assert!(lab.refused(&["status"]).contains("has crashed"));
    assert!(lab.refused(&["up"]).contains("crashed earlier"));
    lab.ok(&["down"]);
    assert!(!LabDir::of(&lab.0).path().exists());
    assert!(!lab::cgroup::lab_path(&lab.0).expect("cgroup2").exists());
}

#[test]
fn the_other_arm_is_refused_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_bristle-lab"))
        .args(["up", "--on", "kind"])
        .output()
        .expect("the program runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("use --on netns"));
}

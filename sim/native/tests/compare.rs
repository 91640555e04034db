//! `bristle-sim compare`: outcomes of two arms, told in sentences and in the exit code.

use std::path::Path;
use std::process::{Command, Output};

const SCENARIO: &str = "
bristle: scenario/v1
name: two
cluster: {nodes: 2}
steps:
  - pod: {name: a, node: node-1}
  - pod: {name: b, node: node-2}
  - wait: ready
  - traffic: {id: t, from: pod/a, to: pod/b, kind: ping}
  - wait: rest
";

fn sim(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bristle-sim"));
    command.args(args).current_dir(dir).output().expect("bristle-sim runs")
}

#[test]
fn equal_outcomes_compare_equal_and_a_difference_is_a_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    std::fs::write(dir.join("two.yaml"), SCENARIO).expect("is written");
    assert!(sim(&["run", "two.yaml", "--outcome", "a.json"], dir).status.success());
    assert!(sim(&["run", "two.yaml", "--outcome", "b.json", "--seed", "2"], dir).status.success());
    let same = sim(&["compare", "a.json", "b.json", "--scenario", "two.yaml"], dir);
    assert_eq!(same.status.code(), Some(0), "{}", String::from_utf8_lossy(&same.stdout));

    let text = std::fs::read_to_string(dir.join("b.json")).expect("an outcome");
    let other = text.replace("\"verdict\": \"ok\"", "\"verdict\": \"silent\"").replace("native", "netns");
    std::fs::write(dir.join("b.json"), other).expect("is written");
    let different = sim(&["compare", "a.json", "b.json", "--scenario", "two.yaml"], dir);
    assert_eq!(different.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&different.stdout), "traffic t: ok on native, silent on netns\n");

    std::fs::write(dir.join("b.json"), "{}").expect("is written");
    let nonsense = sim(&["compare", "a.json", "b.json", "--scenario", "two.yaml"], dir);
    assert_eq!(nonsense.status.code(), Some(2));
}

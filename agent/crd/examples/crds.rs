//! Writes the CustomResourceDefinitions to a directory, or says which files there differ: `cargo xtask crds`.

#![expect(clippy::disallowed_methods, reason = "the library does no I/O; this writes its results")]

use std::path::Path;
use std::process::ExitCode;

use agent_crd::crd;
use serde_json::Value;

const MADE: &str = "# Made from the types in agent/crd by `cargo xtask crds`; do not edit.\n";
const OPTIONAL: &str = "\
# Apply this one only where the cluster has no ClusterNetworkPolicy: it belongs to the Kubernetes network policy
# project, whose own definition is to be preferred. The operator never installs it.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (check, directory) = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--check", directory] => (true, Path::new(*directory)),
        [directory] => (false, Path::new(*directory)),
        _ => panic!("usage: crds [--check] DIRECTORY"),
    };
    let mut differ = false;
    for (name, text) in files() {
        let path = directory.join(&name);
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        if check {
            differ = true;
            eprintln!("{name} is not what the types say; run `cargo xtask crds`");
        } else {
            std::fs::write(&path, text).expect("the directory can be written to");
        }
    }
    if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn files() -> Vec<(String, String)> {
    let file = |definition: &Value, note: &str| {
        let plural = definition["spec"]["names"]["plural"].as_str().expect("it has a plural");
        let yaml = serde_yaml_ng::to_string(definition).expect("JSON is YAML");
        (format!("{plural}.yaml"), format!("{MADE}{note}{yaml}"))
    };
    let mut files: Vec<_> = crd::needed().iter().map(|definition| file(definition, "")).collect();
    let (name, text) = file(&crd::cluster_network_policy(), OPTIONAL);
    files.push((format!("optional/{name}"), text));
    files
}

//! The layers of the architecture, held by a check: who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::cmd;

/// Each crate of ours with the crates of ours that it may use (not counting tests).
const MAY_USE: &[(&str, &[&str])] = &[
    ("dataplane-abi", &[]),
    ("dataplane-core", &["dataplane-abi"]),
    ("dataplane-native", &["dataplane-abi", "dataplane-core"]),
    ("dataplane-ebpf", &["dataplane-abi", "dataplane-core"]),
    ("dataplane-loader", &["dataplane-abi"]),
    ("agent-api", &[]),
    ("agent-crd", &[]),
    ("agent-policy", &["dataplane-abi", "agent-crd"]),
    ("agent-control", &["dataplane-abi", "agent-api", "agent-crd", "agent-policy"]),
    ("agent-node", &[]),
    (
        "agent-daemon",
        &[
            "dataplane-abi",
            "dataplane-loader",
            "agent-api",
            "agent-crd",
            "agent-policy",
            "agent-control",
            "agent-node",
        ],
    ),
    ("bristle-cni", &["agent-api"]),
    // Explains policies from files: objects are read as the agent reads them, and its own engine answers.
    ("bristle-cli", &["agent-api", "agent-crd", "agent-policy", "agent-control"]),
    // Says of policies what agents say: their own reader is asked.
    ("bristle-operator", &["agent-crd", "agent-policy"]),
    ("sim-api", &[]),
    ("sim-controllers", &["sim-api"]),
    ("sim-net", &[]),
    ("sim-oracle", &[]),
    ("sim-policy", &["sim-oracle", "sim-scenario"]),
    ("sim-scenario", &[]),
    (
        "sim-native",
        &[
            "dataplane-abi",
            "dataplane-core",
            "dataplane-native",
            "agent-api",
            "agent-crd",
            "agent-control",
            "agent-crd",
            "bristle-operator",
            "sim-api",
            "sim-controllers",
            "sim-net",
            "sim-oracle",
            "sim-policy",
            "sim-scenario",
        ],
    ),
    ("lab", &["sim-api", "sim-controllers", "agent-api", "agent-crd", "agent-node"]),
    ("e2e", &["dataplane-abi", "agent-api", "lab", "sim-native", "sim-oracle", "sim-policy", "sim-scenario"]),
    ("bench", &["dataplane-abi", "dataplane-loader", "agent-node", "agent-api", "lab"]),
    ("xtask", &[]),
];

/// Outside crates that only some of ours may name.
const ONLY: &[(&str, &[&str])] = &[
    ("aya", &["dataplane-loader"]),
    ("aya-ebpf", &["dataplane-ebpf"]),
    ("kube", &["agent-daemon", "bristle-operator", "e2e"]),
];

/// Crates that may hold no unsafe code at all, in any file.
const NO_UNSAFE: &[&str] = &[
    "dataplane/abi",
    "dataplane/core",
    "dataplane/native",
    "agent/api",
    "agent/crd",
    "agent/policy",
    "agent/control",
    "agent/daemon",
    "cni",
    "cli",
    "operator",
    "sim/api",
    "sim/controllers",
    "sim/net",
    "sim/oracle",
    "sim/policy",
    "sim/scenario",
    "sim/native",
    "lab",
    "e2e",
    "xtask",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Fails with every dependency that the layers forbid.
pub(crate) fn check() -> anyhow::Result<()> {
    eprintln!("==> layers");
    let output = cmd::cargo()
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let mut findings = forbidden(&metadata);
    findings.extend(unsafe_allowed()?);
    if findings.is_empty() {
        return Ok(());
    }
    bail!("the layers do not hold:\n  {}", findings.join("\n  "))
}

fn forbidden(metadata: &Metadata) -> Vec<String> {
    let may_use: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut findings = Vec::new();
    for package in metadata.packages.iter().filter(|p| metadata.workspace_members.contains(&p.id)) {
        let Some(allowed) = may_use.get(package.name.as_str()) else {
            findings.push(format!("{} is in no layer: name it in xtask/src/layers.rs", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
            let name = dependency.name.as_str();
            if may_use.contains_key(name) && !allowed.contains(name) {
                findings.push(format!("{} may not depend on {name}", package.name));
            }
            if let Some((_, who)) = ONLY.iter().find(|(outside, _)| *outside == name)
                && !who.contains(&package.name.as_str())
            {
                findings.push(format!("{} may not name {name}: only {} may", package.name, who.join(", ")));
            }
        }
    }
    findings
}

fn unsafe_allowed() -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for dir in NO_UNSAFE {
        for root in ["src/lib.rs", "src/main.rs"] {
            let path = cmd::root().join(dir).join(root);
            if !path.exists() {
                continue;
            }
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if !text.contains("#![forbid(unsafe_code)]") {
                findings.push(format!("{dir}/{root} lacks #![forbid(unsafe_code)]"));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[(&str, Option<&str>)]) -> Package {
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            dependencies: uses
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
                .collect(),
        }
    }

    fn findings(package: Package) -> Vec<String> {
        forbidden(&Metadata { workspace_members: vec![package.id.clone()], packages: vec![package] })
    }

    #[test]
    fn a_lower_layer_may_not_know_a_higher_one() {
        assert_eq!(
            findings(package("agent-control", &[("dataplane-core", None), ("dataplane-abi", None)])),
            ["agent-control may not depend on dataplane-core"]
        );
    }

    #[test]
    fn tests_may_reach_further() {
        assert!(findings(package("agent-control", &[("dataplane-native", Some("dev"))])).is_empty());
    }

    #[test]
    fn only_the_loader_names_aya() {
        assert_eq!(
            findings(package("agent-daemon", &[("aya", None)])),
            ["agent-daemon may not name aya: only dataplane-loader may"]
        );
    }
}

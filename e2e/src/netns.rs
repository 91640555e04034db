//! The matrix on a lab of its own: one is brought up, tested and taken down again, whatever happens in between.

use std::path::PathBuf;

use anyhow::Context as _;
use lab::Cluster;
use lab::plan::{Family, Routing};
use sim_scenario::model::Translation;

/// Which lab to make.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Directory with `bristle-lab`, `bristle-agent`, `bristle-cni` and the eBPF object; none: beside this program.
    pub bin_dir: Option<PathBuf>,
    /// Number of nodes; the matrix uses two.
    pub nodes: u8,
    /// Families of nodes and pods.
    pub family: Family,
    /// Routing mode of the agents.
    pub routing: Routing,
    /// Whether the network outside knows the way to pods, so that it answers them untranslated.
    pub pod_routes: bool,
    /// Whether agents put policies for nodes in force.
    pub host_firewall: bool,
    /// Whether agents send calls to services to their endpoints; else nobody does.
    pub kube_proxy_replacement: bool,
    /// Where they do it.
    pub service_translation: Translation,
    /// Names of the two outside servers.
    pub outside_names: [String; 2],
}

/// Arguments of an agent that translates calls to services there; none where it does without being asked.
pub(crate) fn translation_args(translation: Translation) -> Vec<String> {
    let place = match translation {
        Translation::Socket => return Vec::new(),
        Translation::Packet => "packet",
        Translation::Both => "both",
    };
    vec!["--service-translation".to_owned(), place.to_owned()]
}

/// Arguments of an agent whose pods speak to the world with the node's address.
pub(crate) fn masquerade_args(masquerade: bool) -> Vec<String> {
    let flags = ["--enable-ipv4-masquerade", "--enable-ipv6-masquerade"];
    flags.into_iter().filter(|_| masquerade).map(str::to_owned).collect()
}

/// Makes the lab; dropping it removes everything.
pub async fn up(
    options: &LabOptions,
    progress: impl Fn(&str) + Send + Sync + 'static,
) -> anyhow::Result<Cluster> {
    let name = format!("e2e-{}", std::process::id()).parse().context("name the lab")?;
    Cluster::builder()
        .name(name)
        .nodes(options.nodes)
        .family(options.family)
        .routing(options.routing)
        .pod_routes(options.pod_routes)
        .agent_args(translation_args(options.service_translation))
        // Where the outside knows the way to pods it is to see them.
        .agent_args(masquerade_args(!options.pod_routes))
        .agent_args(options.host_firewall.then(|| "--host-firewall".to_owned()))
        .kube_proxy_replacement(options.kube_proxy_replacement)
        .outside_names(options.outside_names.clone())
        .bin_dir(options.bin_dir.clone())
        .progress(move |step| progress(&format!("lab: {}", step.0)))
        .build()
        .await
        .context("bring up the lab")
}

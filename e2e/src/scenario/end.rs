//! The state at the end of a scenario.

use sim_scenario::outcome::EndState;

use super::{Arm, agents, objects};

/// Reads it from the API and from every agent.
pub(super) async fn state(arm: &Arm) -> anyhow::Result<EndState> {
    let pods = objects::Pods::list(&arm.client).await?;
    let blocks = objects::node_blocks(&arm.client).await?;
    let mut end = EndState { pods: pods.ready(), ..EndState::default() };
    for node in arm.cluster.nodes() {
        let endpoints = agents::endpoints(node).await?;
        if !endpoints.is_empty() {
            end.endpoints.insert(node.name().to_owned(), endpoints);
        }
        end.ipcache.insert(node.name().to_owned(), agents::ipcache(node, &blocks).await?);
    }
    Ok(end)
}

//! Large clusters, for figures on size: all nodes and pods at once, no time between an agent's commands, no traffic.

use std::time::Duration;

use serde_json::{Value, json};
use sim_api::WriteOptions;
use sim_api::object::condition_is_true;
use sim_api::resource::{NAMESPACES, PODS};
use sim_scenario::model::Cluster;

use crate::sim::Sim;
use crate::steps::Runner;
use crate::world::{Stats, World};

/// Virtual time that a stretch may take to come to rest.
const LIMIT: Duration = Duration::from_mins(10);
/// The seed: which one does not matter to size.
const SEED: u64 = 1;

/// One stretch of work.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stretch {
    /// Time it took, by the caller's clock.
    pub took: Duration,
    /// Events that agents took in.
    pub events: u64,
    /// Tasks of the simulation.
    pub tasks: u64,
}

/// What a cluster of a size costs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ScaleReport {
    /// Nodes, each with its agent.
    pub nodes: u16,
    /// Pods.
    pub pods: u32,
    /// From nothing until all pods are ready and no agent has anything left to do.
    pub converge: Stretch,
    /// One more node after that.
    pub node_joins: Stretch,
    /// And one more pod.
    pub pod_comes: Stretch,
}

/// Builds a cluster with all its pods bound round robin, lets it come to rest, then adds one node and one pod.
///
/// `clock` tells the time that is really gone by, of which the simulator itself knows nothing.
///
/// # Errors
/// Why it did not come to rest, or in what state it did.
pub fn scale(nodes: u16, pods: u32, clock: &dyn Fn() -> Duration) -> Result<ScaleReport, String> {
    let cluster = Cluster { nodes, ..Cluster::default() };
    let mut stretches = Stretches { clock, begun: clock(), before: Stats::default() };
    let mut world = World::new(&cluster, SEED, true);
    world.boot();
    let sim = Sim::new(world);
    make_pods(&sim, nodes, pods)?;
    let converge = stretches.end(&sim)?;
    let ready =
        sim.world().store.list(&PODS, "").iter().filter(|pod| condition_is_true(pod, "Ready")).count();
    if ready != pods as usize {
        return Err(format!("{ready} of {pods} pods are ready"));
    }
    sim.world().join();
    let node_joins = stretches.end(&sim)?;
    let pod = pod("one-more", "node-1");
    let made = sim.world().store.create(&PODS, "default", pod, &WriteOptions::default());
    made.map_err(|error| error.to_string())?;
    sim.world().follow_store();
    let pod_comes = stretches.end(&sim)?;
    for n in [0, usize::from(nodes) / 2, usize::from(nodes)] {
        sim.world().check_rest_of(n);
    }
    match &sim.world().violation {
        Some(violation) => Err(violation.message.clone()),
        None => Ok(ScaleReport { nodes, pods, converge, node_joins, pod_comes }),
    }
}

fn make_pods(sim: &Sim, nodes: u16, pods: u32) -> Result<(), String> {
    let mut world = sim.world();
    let options = WriteOptions::default();
    if world.store.get(&NAMESPACES, "", "default").is_err() {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        world.store.create(&NAMESPACES, "", namespace, &options).map_err(|error| error.to_string())?;
    }
    for i in 0..pods {
        let node = format!("node-{}", i % u32::from(nodes) + 1);
        let pod = pod(&format!("pod-{i}"), &node);
        world.store.create(&PODS, "default", pod, &options).map_err(|error| error.to_string())?;
    }
    world.follow_store();
    Ok(())
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "bristle/client"}],
        },
    })
}

/// Measures stretch after stretch.
struct Stretches<'a> {
    clock: &'a dyn Fn() -> Duration,
    begun: Duration,
    before: Stats,
}

impl Stretches<'_> {
    /// Lets the cluster come to rest and says what that took since the last stretch.
    fn end(&mut self, sim: &Sim) -> Result<Stretch, String> {
        if !Runner::new(sim).wait_until(LIMIT, World::is_at_rest) {
            let world = sim.world();
            let violation = world.violation.as_ref().map(|violation| violation.message.clone());
            return Err(violation.unwrap_or_else(|| format!("not at rest: {}", world.restless())));
        }
        let now = (self.clock)();
        let stats = sim.world().stats;
        let stretch = Stretch {
            took: now.saturating_sub(self.begun),
            events: stats.events - self.before.events,
            tasks: stats.tasks - self.before.tasks,
        };
        self.before = stats;
        self.begun = (self.clock)();
        Ok(stretch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_comes_to_rest_and_grows() {
        let report = scale(5, 20, &|| Duration::ZERO).unwrap();
        assert_eq!((report.nodes, report.pods), (5, 20));
        // Every agent hears of every node; the new one hears of all, the others of it.
        assert!(report.converge.events >= 5 * 5 + 20, "{report:?}");
        assert!((5 + 6..40).contains(&report.node_joins.events), "{report:?}");
        assert!((1..20).contains(&report.pod_comes.events), "{report:?}");
    }

    #[test]
    fn pods_that_come_before_their_node_is_heard_of_are_nobodys_fault() {
        let report = scale(100, 500, &|| Duration::ZERO).unwrap();
        assert_eq!((report.nodes, report.pods), (100, 500));
    }
}

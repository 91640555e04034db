//! What is to happen, in the order of virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use sim_net::Frame;

use crate::fabric::Port;
use crate::kubelet::SandboxId;

/// Number of a node in [`crate::world::World::nodes`].
pub(crate) type NodeId = usize;

/// Something that happens at a moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Task {
    /// The cluster's controllers look at what has changed.
    Controllers,
    /// A node's agent hears from the API server.
    Watch(NodeId),
    /// A node's agent, or the operator, hears of a kind of objects from the API server.
    Listen(NodeId, agent_control::ObjectKind),
    /// The operator takes what waits for it.
    Operator,
    /// The operator is started, if that life of it has not begun yet.
    StartOperator(u64),
    /// A call of a life of the operator reaches the API server.
    OperatorCall(u64, u64, Box<bristle_operator::core::Action>),
    /// The answer to a call reaches that life.
    OperatorHears(u64, u64, Box<bristle_operator::core::Outcome>),
    /// What a node's agent tells the cluster is looked at.
    Publish(NodeId),
    /// A node's agent takes what waits for it and reconciles.
    Agent(NodeId),
    /// A node's agent is started, if that life of it has not begun yet.
    StartAgent(NodeId, u64),
    /// The object of a node is made.
    Register(NodeId),
    /// The kubelet of a node looks at its pods.
    Kubelet(NodeId),
    /// A call reaches the CNI socket of a node.
    CniCall(NodeId, crate::cni::Call),
    /// A node's agent tries again what lies in its queue of DELs.
    ReplayQueue(NodeId),
    /// The answer to a call reaches its caller.
    CniAnswer(NodeId, crate::cni::Call, agent_api::cni::Reply),
    /// The runtime destroys a network namespace.
    DestroyNetns(NodeId, String),
    /// The runtime calls GC.
    CollectGarbage(NodeId),
    /// The containers of a sandbox begin to run.
    RunPod(NodeId, SandboxId),
    /// The stack of a pod is due.
    Pod(NodeId, SandboxId),
    /// The stack of a node is due.
    Stack(NodeId),
    /// The stacks outside of the cluster are due.
    Outside,
    /// A frame comes out of the fabric.
    Arrive(Port, Frame),
    /// Traffic goes on with its next family, or is looked at for its end.
    Traffic(String),
    /// A fault ends by itself.
    FaultEnds(u64),
}

/// Tasks by time. Those of one moment come in an order that the seed decides.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    tasks: BTreeMap<(Duration, u64, u64), Task>,
    serial: u64,
}

impl Queue {
    /// Adds a task; `tie` decides among those of one moment.
    pub(crate) fn push(&mut self, at: Duration, tie: u64, task: Task) {
        self.serial += 1;
        self.tasks.insert((at, tie, self.serial), task);
    }

    /// The moment of the first task.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.tasks.keys().next().map(|(at, ..)| *at)
    }

    /// Takes the first task, if it is due by `until`.
    pub(crate) fn pop_until(&mut self, until: Duration) -> Option<(Duration, Task)> {
        let first = self.tasks.first_entry().filter(|first| first.key().0 <= until)?;
        let at = first.key().0;
        Some((at, first.remove()))
    }
}

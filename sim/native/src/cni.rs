//! Calls of the container runtime, from the plugin to the agent and back.

use std::time::Duration;

use agent_api::Timestamp;
use agent_api::cni::{Attachment, CniError, CniResult, ErrorCode, Operation, PodRef, Reply};
use agent_control::{CniRequest, Event, NetnsHandle, RequestId};

use crate::kubelet::SandboxId;
use crate::queue::{NodeId, Task};
use crate::world::World;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    /// Make the interface.
    Add,
    /// Remove it.
    Del,
    /// Remove all but these.
    Gc(Vec<Attachment>),
}

/// A call under way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// Names it; never the same twice on a node.
    pub(crate) number: u64,
    /// What is asked for.
    pub(crate) wanted: Wanted,
    /// The container and its interface.
    pub(crate) attachment: Attachment,
    /// Its network namespace, while it is there.
    pub(crate) netns: Option<String>,
    /// The pod it is for.
    pub(crate) pod: Option<PodRef>,
    /// What ADD was answered, if the runtime still knows.
    pub(crate) result: Option<CniResult>,
    /// It lies in the queue until it is done.
    pub(crate) queued: bool,
    /// The sandbox whose kubelet waits for the answer; without one nobody does.
    pub(crate) sandbox: Option<SandboxId>,
}

/// How long the agent waits before it tries a DEL of the queue again.
const AGAIN: Duration = Duration::from_secs(5);

impl World {
    /// Sends a call; it arrives a little later.
    pub(crate) fn call(&mut self, n: NodeId, call: Call, after: Duration) {
        let after = after + self.latency(Duration::from_millis(2));
        self.after(after, Task::CniCall(n, call));
    }

    /// A call arrives where the agent listens, if it does.
    pub(crate) fn call_arrives(&mut self, n: NodeId, call: Call) {
        self.note(n, "cni call", call.number);
        if self.nodes[n].agent.alive {
            self.hand_over(n, call);
            return;
        }
        match call.wanted {
            Wanted::Del => {
                // The plugin leaves it in the queue, where a repeated one takes the place of the earlier.
                let queue = &mut self.nodes[n].delete_queue;
                queue.retain(|queued| queued.attachment != call.attachment);
                queue.push(Call { sandbox: None, queued: true, ..call.clone() });
                self.answer(n, call, Reply::Done);
            }
            Wanted::Add | Wanted::Gc(_) => {
                let error = CniError::new(ErrorCode::TRY_AGAIN, "no agent listens");
                self.answer(n, call, error.into());
            }
        }
    }

    /// The agent takes what lies in the queue.
    pub(crate) fn replay_queue(&mut self, n: NodeId) {
        if self.nodes[n].agent.alive {
            for call in std::mem::take(&mut self.nodes[n].delete_queue) {
                self.hand_over(n, call);
            }
        }
    }

    /// Gives a call to the agent that lives.
    pub(crate) fn hand_over(&mut self, n: NodeId, call: Call) {
        // The plugin opens the namespace and passes the descriptor; one that is gone cannot be opened.
        let gone = call.netns.as_ref().is_none_or(|path| self.nodes[n].kubelet.is_gone(path));
        let operation = match &call.wanted {
            Wanted::Add if gone => {
                let error = CniError::new(ErrorCode::INVALID_ENVIRONMENT, "CNI_NETNS does not exist");
                self.answer(n, call, error.into());
                return;
            }
            Wanted::Add => Operation::Add {
                attachment: call.attachment.clone(),
                netns: call.netns.clone().unwrap_or_default(),
            },
            Wanted::Del => Operation::Del {
                attachment: call.attachment.clone(),
                netns: call.netns.clone(),
                prev_result: call.result.clone(),
            },
            Wanted::Gc(valid) => Operation::Gc { valid_attachments: valid.clone() },
        };
        let request = CniRequest {
            id: RequestId(call.number),
            received: Timestamp::from_unix_nanos(0),
            netns: (!gone).then_some(NetnsHandle(call.number)),
            pod: call.pod.clone(),
            operation,
        };
        self.nodes[n].agent.calls.insert(call.number, call);
        self.tell_agent(n, Event::Cni(request));
    }

    /// The agent answers.
    pub(crate) fn agent_answers(&mut self, n: NodeId, reply: agent_control::Reply) {
        if let Some(call) = self.nodes[n].agent.calls.remove(&reply.id.0) {
            if let Reply::Error { error } = &reply.outcome {
                self.check_failed(n, &call, &error.msg);
            } else if call.wanted == Wanted::Del {
                self.check_deleted(n, &call);
            }
            if call.queued && matches!(reply.outcome, Reply::Error { .. }) {
                // It stays in the queue, and the agent tries again.
                self.nodes[n].delete_queue.push(call);
                self.after(AGAIN, Task::ReplayQueue(n));
                return;
            }
            if call.wanted == Wanted::Add
                && let Reply::Added { result } = &reply.outcome
            {
                self.check_added(n, &call, result);
            }
            if let Reply::Error { error } = &reply.outcome
                && call.wanted == Wanted::Add
            {
                self.check_refused(n, &error.msg);
            }
            if let Reply::Error { error } = &reply.outcome
                && call.wanted == Wanted::Add
                && error.code == ErrorCode::INTERNAL
                && !self.nodes[n].troubled
            {
                let message =
                    format!("ADD of {} fails for no reason: {}", call.attachment.container_id, error.msg);
                self.violate("cni", message);
            }
            self.answer(n, call, reply.outcome);
        }
    }

    /// The agent died before it answered.
    pub(crate) fn connection_lost(&mut self, n: NodeId, call: Call) {
        if call.queued {
            // Taken from the queue and not done: its file is still there.
            self.nodes[n].delete_queue.push(call);
            return;
        }
        let error = CniError::new(ErrorCode::TRY_AGAIN, "the agent ended before it answered");
        self.answer(n, call, error.into());
    }

    fn answer(&mut self, n: NodeId, call: Call, reply: Reply) {
        let after = self.latency(Duration::from_millis(1));
        self.after(after, Task::CniAnswer(n, call, reply));
    }
}

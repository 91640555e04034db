//! The loop: virtual time goes from task to task.

use std::cell::{Cell, RefCell, RefMut};
use std::time::Duration;

use crate::queue::{NodeId, Task};
use crate::world::World;

/// Reconciles that may be interleaved with each other.
const MAX_DEPTH: u32 = 3;

/// A simulated cluster with its time.
///
/// Everything happens on one thread. An agent that reconciles lets time pass between two of its commands, so the loop
/// is entered again from within; no borrow of the world is held meanwhile.
pub(crate) struct Sim {
    world: RefCell<World>,
    depth: Cell<u32>,
}

impl Sim {
    /// Time begins.
    pub(crate) fn new(world: World) -> Self {
        Self { world: RefCell::new(world), depth: Cell::new(0) }
    }

    /// The cluster, for looking and acting between two tasks.
    pub(crate) fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    /// The cluster, when time is over.
    pub(crate) fn into_world(self) -> World {
        self.world.into_inner()
    }

    /// Performs all that is due until then; at the end it is then. Ends early if an invariant is broken.
    pub(crate) fn run_until(&self, until: Duration) {
        let mut late = Vec::new();
        loop {
            let next = {
                let mut world = self.world();
                if world.is_over() {
                    break;
                }
                world.take_due(until)
            };
            let Some((at, task)) = next else { break };
            match task {
                Task::Agent(node) if self.depth.get() >= MAX_DEPTH => late.push((at, Task::Agent(node))),
                Task::Agent(node) => self.run_agent(node, at),
                task => self.world().perform(at, task),
            }
        }
        let mut world = self.world();
        for (at, task) in late {
            world.put_back(at, task);
        }
        world.reach(until);
    }

    /// A moment passes between two commands of an agent.
    pub(crate) fn let_time_pass(&self, node: NodeId) {
        let until = {
            let mut world = self.world();
            let now = world.now;
            world.command_time(node).map(|time| now + time)
        };
        if let Some(until) = until {
            self.run_until(until);
        }
    }

    /// Lets an agent take what waits for it, and reconcile.
    fn run_agent(&self, node: NodeId, at: Duration) {
        let Some((mut agent, now, events)) = self.world().begin_agent(node, at) else { return };
        self.depth.set(self.depth.get() + 1);
        let mut replies = Vec::new();
        for event in events {
            replies.extend(agent.handle(now, event));
        }
        let report = agent.reconcile(
            now,
            &mut crate::ports::MapPort { sim: self, node },
            &mut crate::ports::NodePort { sim: self, node },
        );
        self.depth.set(self.depth.get() - 1);
        self.world().end_agent(node, agent, replies, report);
    }
}

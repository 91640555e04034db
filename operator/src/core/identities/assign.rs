//! Numbers for sets of labels: chosen, and created as objects.

use std::sync::Arc;
use std::time::Duration;

use agent_crd::CiliumIdentity;
use agent_crd::identity_labels::IdentityLabels;

use super::Identities;
use crate::core::event::{Action, Command, Outcome};
use crate::core::retry::{Attempt, CommandIds};

/// A number that is being given to a set of labels. It is kept until the API has said what became of it: a call that
/// seemed to fail may have been done, and then a second number must not follow.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) number: u32,
    pub(super) attempt: Attempt,
}

impl Identities {
    pub(super) fn assign(&mut self, labels: Arc<IdentityLabels>) {
        if self.assigned.contains_key(&labels) {
            return;
        }
        let last = self.last.get(&labels).copied().filter(|number| self.is_free(*number));
        let Some(number) = last.or_else(|| self.lowest_free()) else {
            self.exhausted = true;
            self.look.insert(labels);
            return;
        };
        self.assigned_numbers.insert(number);
        self.assigned.insert(labels, Assignment { number, attempt: Attempt::default() });
    }

    /// Takes a number back that is not needed, unless it is just being written.
    pub(super) fn unassign(&mut self, labels: &Arc<IdentityLabels>) {
        if self.assigned.get(labels).is_some_and(|a| !a.attempt.is_in_flight())
            && let Some(assignment) = self.assigned.remove(labels)
        {
            self.assigned_numbers.remove(&assignment.number);
            self.lowest = self.lowest.min(assignment.number);
        }
    }

    fn is_free(&self, number: u32) -> bool {
        !self.labels.contains_key(&number) && !self.assigned_numbers.contains(&number)
    }

    fn lowest_free(&mut self) -> Option<u32> {
        let from = self.lowest.max(CiliumIdentity::MIN);
        let number = (from..=CiliumIdentity::MAX).find(|number| self.is_free(*number));
        self.lowest = number.unwrap_or(CiliumIdentity::MAX);
        number
    }

    /// Commands to create what has been decided, up to `room` together with those in `commands`.
    pub(in crate::core) fn create(
        &mut self,
        now: Duration,
        room: usize,
        ids: &mut CommandIds,
        commands: &mut Vec<Command>,
    ) {
        for (labels, assignment) in &mut self.assigned {
            if commands.len() >= room {
                return;
            }
            if assignment.attempt.is_due(now) {
                let id = ids.next();
                assignment.attempt.start(id);
                self.creates.insert(id, Arc::clone(labels));
                let identity = CiliumIdentity::new(assignment.number, labels);
                commands.push(Command { id, action: Action::CreateIdentity(identity) });
            }
        }
    }

    pub(super) fn create_outcome(&mut self, now: Duration, labels: &Arc<IdentityLabels>, outcome: &Outcome) {
        self.look.insert(Arc::clone(labels));
        match outcome {
            // Either these labels have a number now, or somebody else has taken this one: another one is chosen.
            Outcome::Created(_) | Outcome::Exists(_) => {
                if let Some(assignment) = self.assigned.remove(labels) {
                    self.assigned_numbers.remove(&assignment.number);
                    self.lowest = self.lowest.min(assignment.number);
                }
            }
            Outcome::Done | Outcome::Gone | Outcome::Failed(_) => {
                if let Some(assignment) = self.assigned.get_mut(labels) {
                    assignment.attempt.failed(now);
                }
            }
        }
    }
}

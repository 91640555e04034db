//! The end of identities that nobody uses.

use std::time::Duration;

use agent_crd::CiliumIdentity;
use agent_crd::identity_labels::POD_NAMESPACE;

use super::{Identities, place};
use crate::core::event::{Action, Command, Outcome};
use crate::core::pods::Pods;
use crate::core::retry::{Attempt, CommandIds};

/// A deletion that is being tried.
#[derive(Debug)]
pub(super) struct Deletion {
    pub(super) uid: String,
    pub(super) attempt: Attempt,
}

impl Identities {
    /// Commands to delete what has been unused since `before`, up to `room` together with those in `commands`.
    pub(in crate::core) fn collect(
        &mut self,
        now: Duration,
        before: Option<Duration>,
        pods: &Pods,
        room: usize,
        ids: &mut CommandIds,
        commands: &mut Vec<Command>,
    ) {
        self.deleting.retain(|number, deletion| {
            deletion.attempt.is_in_flight() || self.unused_since.contains_key(number)
        });
        let Some(before) = before else { return };
        for (number, since) in &self.unused_since {
            if commands.len() >= room {
                return;
            }
            if *since > before {
                continue;
            }
            let Some(object) = self.objects.rows().get(&place(&number.to_string())) else { continue };
            // A pod whose namespace is not known yet may need it.
            let namespace =
                self.labels.get(number).and_then(|labels| labels.get(&format!("k8s:{POD_NAMESPACE}")));
            if namespace.is_some_and(|namespace| pods.has_unplaced(namespace)) {
                continue;
            }
            let deletion = self
                .deleting
                .entry(*number)
                .or_insert_with(|| Deletion { uid: String::new(), attempt: Attempt::default() });
            if deletion.attempt.is_due(now) {
                let id = ids.next();
                deletion.attempt.start(id);
                self.deletes.insert(id, *number);
                deletion.uid.clone_from(&object.metadata.uid);
                commands.push(Command {
                    id,
                    action: Action::DeleteIdentity {
                        name: object.metadata.name.clone(),
                        uid: object.metadata.uid.clone(),
                        resource_version: object.metadata.resource_version.clone(),
                    },
                });
            }
        }
    }

    pub(super) fn delete_outcome(&mut self, now: Duration, number: u32, outcome: &Outcome) {
        match outcome {
            Outcome::Done | Outcome::Gone => {
                let Some(deletion) = self.deleting.remove(&number) else { return };
                let name = number.to_string();
                // Somebody may have made another object of the name meanwhile.
                let is_it = |object: &CiliumIdentity| object.metadata.uid == deletion.uid;
                if self.objects.rows().get(&place(&name)).is_some_and(is_it) {
                    self.delete(&name);
                }
            }
            Outcome::Created(_) | Outcome::Exists(_) | Outcome::Failed(_) => {
                if let Some(deletion) = self.deleting.get_mut(&number) {
                    deletion.attempt.failed(now);
                }
            }
        }
    }
}

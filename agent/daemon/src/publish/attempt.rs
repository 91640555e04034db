//! What has been tried, and when it may be tried again.

use std::collections::BTreeMap;
use std::time::Instant;

use agent_control::ObjectName;
use agent_crd::CiliumEndpoint;

use crate::watch::Pause;

/// When something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Now.
    Now,
    /// Not before this.
    At(Instant),
    /// Not until something else changes.
    Never,
}

impl Due {
    fn after(at: Instant) -> Self {
        if at > Instant::now() { Self::At(at) } else { Self::Now }
    }
}

/// The last try of an object.
#[derive(Debug)]
struct Attempt {
    /// What was wanted; `None`: that it is gone.
    wanted: Option<CiliumEndpoint>,
    /// The version that came of it; `None`: it failed.
    version: Option<String>,
    pause: Pause,
    /// When it may be tried again.
    again: Instant,
}

/// The last tries, by object.
///
/// The same is tried again only after a pause that grows, also where it worked and somebody changes it back:
/// two who want an object otherwise must not write it in turns as fast as they can.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    objects: BTreeMap<ObjectName, Attempt>,
    annotation: Option<Annotation>,
}

/// The last try of the annotation.
#[derive(Debug)]
struct Annotation {
    revision: u64,
    pause: Pause,
    /// When it may be tried again.
    again: Instant,
}

impl Attempts {
    /// Forgets all objects but these.
    pub(super) fn keep(&mut self, which: impl Fn(&ObjectName) -> bool) {
        self.objects.retain(|name, _| which(name));
    }

    /// An object is as it shall be. One that does not stay so keeps its pause.
    pub(super) fn forget(&mut self, name: &ObjectName) {
        if self.objects.get(name).is_some_and(|attempt| attempt.again + Pause::MAX < Instant::now()) {
            self.objects.remove(name);
        }
    }

    /// Whether an object that has this version is to be written now.
    pub(super) fn due(&self, name: &ObjectName, wanted: Option<&CiliumEndpoint>, version: &str) -> Due {
        match self.objects.get(name).filter(|attempt| attempt.wanted.as_ref() == wanted) {
            None => Due::Now,
            // It is as it was written, and what differs is not for us to say.
            Some(attempt) if wanted.is_some() && attempt.version.as_deref() == Some(version) => Due::Never,
            Some(attempt) => Due::after(attempt.again),
        }
    }

    /// An object has been written, or not.
    pub(super) fn made(
        &mut self,
        name: &ObjectName,
        wanted: Option<&CiliumEndpoint>,
        version: Option<String>,
    ) {
        let before = self.objects.remove(name).filter(|attempt| attempt.wanted.as_ref() == wanted);
        let mut pause = before.map_or_else(Pause::new, |attempt| attempt.pause);
        let again = Instant::now() + pause.next().unwrap_or(Pause::MAX);
        self.objects.insert(name.clone(), Attempt { wanted: wanted.cloned(), version, pause, again });
    }

    /// When an object whose last try failed is due again.
    pub(super) fn next(&self, name: &ObjectName) -> Option<Instant> {
        self.objects.get(name).filter(|attempt| attempt.version.is_none()).map(|attempt| attempt.again)
    }

    /// The annotation is as it shall be. One that does not stay so keeps its pause.
    pub(super) fn annotation_stays(&mut self) {
        if self.annotation.as_ref().is_some_and(|last| last.again + Pause::MAX < Instant::now()) {
            self.annotation = None;
        }
    }

    /// Whether an annotation that says something else is to be written now.
    pub(super) fn annotation_due(&self, revision: u64) -> Due {
        match self.annotation.as_ref().filter(|last| last.revision == revision) {
            None => Due::Now,
            Some(last) => Due::after(last.again),
        }
    }

    /// The annotation has been written, or not.
    pub(super) fn annotated(&mut self, revision: u64) {
        let before = self.annotation.take().filter(|last| last.revision == revision);
        let mut pause = before.map_or_else(Pause::new, |last| last.pause);
        let again = Instant::now() + pause.next().unwrap_or(Pause::MAX);
        self.annotation = Some(Annotation { revision, pause, again });
    }
}

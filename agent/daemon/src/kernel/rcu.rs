//! Short waits for the kernel's read-copy-update while programs are put on links.
//!
//! Attaching the first program to a new link waits for a grace period (`tcx_entry_sync` in the kernel's
//! include/net/tcx.h), with all of the node's link changes held up meanwhile. A normal period takes 5 to 15 ms, two for
//! each pod, one pod after the other; an expedited one takes a few hundredths of a millisecond. The kernel's own waits
//! under the same lock are expedited already (`synchronize_net`); this one is not, so it is asked for while we attach.

use std::fs;
use std::path::{Path, PathBuf};
use tracing::debug;

const SETTING: &str = "/sys/kernel/rcu_expedited";

/// Asks for expedited grace periods, and takes it back.
#[derive(Debug)]
pub(super) struct Expedite {
    setting: PathBuf,
    /// There while we may have the setting on: a process that was killed in between leaves it to its successor.
    marker: PathBuf,
    holds: bool,
}

impl Expedite {
    /// Takes back what a killed agent left. `run_dir` is where the marker lies.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self::with(PathBuf::from(SETTING), run_dir)
    }

    fn with(setting: PathBuf, run_dir: &Path) -> Self {
        let this = Self { setting, marker: run_dir.join("rcu-expedited.tmp"), holds: false };
        if this.marker.exists() {
            this.set("0");
            drop(fs::remove_file(&this.marker));
        }
        this
    }

    /// Until [`Self::end`]. Does nothing where an administrator has switched it on for good, and nothing where it may
    /// not be switched: everything works without it, only slower.
    pub(super) fn begin(&mut self) {
        if self.holds || fs::read_to_string(&self.setting).is_ok_and(|value| value.trim() != "0") {
            return;
        }
        self.holds = fs::write(&self.marker, "").is_ok() && self.set("1");
    }

    /// Back to what it was.
    pub(super) fn end(&mut self) {
        if self.holds {
            self.holds = false;
            self.set("0");
            drop(fs::remove_file(&self.marker));
        }
    }

    fn set(&self, value: &str) -> bool {
        let result = fs::write(&self.setting, value);
        if let Err(problem) = &result {
            debug!("{}: {problem}", self.setting.display());
        }
        result.is_ok()
    }
}

impl Drop for Expedite {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::Expedite;
    use std::fs;

    #[test]
    fn is_on_only_while_held_and_a_killed_agents_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let setting = dir.path().join("setting");
        let value = || fs::read_to_string(&setting).unwrap();
        fs::write(&setting, "0").unwrap();
        let mut expedite = Expedite::with(setting.clone(), dir.path());
        expedite.begin();
        assert_eq!(value(), "1");
        expedite.end();
        assert_eq!(value(), "0");
        expedite.begin();
        let _killed = std::mem::ManuallyDrop::new(expedite);
        assert_eq!(value(), "1");
        drop(Expedite::with(setting.clone(), dir.path()));
        assert_eq!(value(), "0");
    }

    #[test]
    fn an_administrators_choice_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let setting = dir.path().join("setting");
        fs::write(&setting, "1\n").unwrap();
        let mut expedite = Expedite::with(setting.clone(), dir.path());
        expedite.begin();
        expedite.end();
        assert_eq!(fs::read_to_string(&setting).unwrap(), "1\n");
    }
}

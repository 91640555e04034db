//! Which waits are sure to end in time.

use std::time::Duration;

use super::ends::Room;
use super::{Doubt, Judge, longest, word};
use crate::model::{Until, Wait};

/// What a cluster needs to come to rest when nothing is broken: starts, watches, attempts of the kubelet, backoffs (up to 30 s).
const BASE: Duration = Duration::from_secs(60);
/// An address is kept back for 30 s after its release, and then the kubelet tries again.
const QUARANTINE: Duration = Duration::from_secs(90);
/// What a table refused is tried again within five minutes.
const RETRY: Duration = Duration::from_secs(330);

impl Judge<'_> {
    pub(super) fn wait(&mut self, step: usize, wait: &Wait) {
        let needed = match &wait.until {
            Until::Time(time) => {
                self.clock.pass(*time);
                return;
            }
            Until::Traffic(id) => {
                let open = self.traffic.iter().find(|open| open.traffic.id == *id);
                Ok(open.map_or(Duration::ZERO, |open| longest(open.traffic)) + Duration::from_secs(1))
            }
            Until::Ready => self.until_ready(),
            Until::Rest => self.until_ready().map(|ready| ready + self.until_traffic_ends()),
        };
        if let Ok(needed) = &needed {
            self.needed.push((step, *needed));
        }
        self.clock.pass_at_most(wait.within);
        let sure = match needed {
            Ok(needed) if needed <= wait.within => Ok(()),
            Ok(needed) => Err(format!("it may take {} s", needed.as_secs())),
            Err(why) => Err(why),
        };
        if let Err(why) = sure {
            self.doubts.insert(Doubt { subject: format!("wait for {}", word(&wait.until)), why });
        }
        // If the wait is not sure, a run that goes on has seen it succeed all the same.
        match &wait.until {
            Until::Traffic(id) => {
                self.traffic
                    .iter_mut()
                    .filter(|open| open.traffic.id == *id)
                    .for_each(|open| open.ended = true);
            }
            Until::Ready => self.pods.all_are_ready(),
            Until::Rest => self.rest(),
            Until::Time(_) => {}
        }
    }

    fn rest(&mut self) {
        self.pods.all_are_ready();
        for open in self.traffic.iter_mut().filter(|open| !open.traffic.background) {
            open.ended = true;
        }
        for fault in &mut self.faults {
            fault.on &= fault.lasts.is_none();
        }
        let late = self.faults.iter().filter(|fault| !fault.on).filter_map(super::Active::late_del).max();
        if let Some(by) = late {
            self.late_dels = Some((self.clock.now(), by));
        }
        self.faults.retain(|fault| fault.on);
        self.refused = false;
        self.policed &= !self.policies.is_empty() || super::isolates_all(self.scenario);
        self.rested = true;
    }

    /// How long it can take until every pod is ready.
    fn until_ready(&self) -> Result<Duration, String> {
        let tables = &self.scenario.cluster.tables;
        if let Some(table) =
            tables.keys().find(|name| matches!(name.as_str(), "CONFIG" | "ENDPOINTS" | "IPCACHE"))
        {
            return Err(format!("the table {table} is small"));
        }
        let mut needed = BASE + self.longest_restart;
        let mut lasts = Duration::ZERO;
        for fault in self.faults.iter().filter(|fault| fault.on) {
            let time = fault.lasts.ok_or_else(|| format!("the fault `{}` has no end", fault.kind.word()))?;
            lasts = lasts.max(time);
        }
        needed += lasts;
        needed += self.faults.iter().filter_map(super::Active::late_del).max().unwrap_or_default();
        needed += self.late_dels.map_or(Duration::ZERO, |(_, by)| by);
        match self.pods.room() {
            // ADDs that failed half way may have used addresses up.
            Room::Tight if self.faults.is_empty() => {}
            Room::Ample => {}
            Room::Tight | Room::Later => needed += QUARANTINE,
            Room::Never => return Err("there are more pods than addresses".to_owned()),
        }
        if self.refused {
            needed += RETRY;
        }
        Ok(needed)
    }

    fn until_traffic_ends(&self) -> Duration {
        let open = self.traffic.iter().filter(|open| !open.ended && !open.traffic.background);
        open.map(|open| longest(open.traffic)).max().unwrap_or_default()
    }
}

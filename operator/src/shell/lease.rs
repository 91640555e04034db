//! The lease that makes one operator of several the leader (coordination.k8s.io/v1 Lease).
//!
//! Others take a lease that they have seen unchanged for its whole duration. A holder counts that time from before it
//! sent the renewal, and stops acting after two thirds of it: what it has sent by then is done or refused before
//! another one begins. Clocks of machines are not compared.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::act::{MANAGER, chain};
use super::http::Shared;

/// How a lease is held.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    namespace: String,
    name: String,
    identity: String,
    duration: Duration,
}

impl LeaseSettings {
    /// A lease of that name, held by `identity`, which others may take `duration` after its last renewal.
    pub const fn new(namespace: String, name: String, identity: String, duration: Duration) -> Self {
        Self { namespace, name, identity, duration }
    }

    /// How long after a renewal the holder acts.
    fn fence(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Pause between tries.
    fn pause(&self) -> Duration {
        self.duration * 2 / 15
    }
}

/// What is compared to see whether a holder is alive.
type Mark = (Option<String>, Option<MicroTime>, Option<i32>);

/// One who wants the lease, or has it.
#[derive(Debug)]
pub struct Lease {
    api: Api<LeaseObject>,
    settings: LeaseSettings,
    /// The lease as it was last seen, and when it was first seen so.
    seen: Option<(Mark, Instant)>,
    /// Until when this one may act.
    fence: Instant,
}

/// What a try led to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tried {
    Held,
    /// Somebody else has it.
    Other(String),
}

impl Lease {
    /// One who does not have it yet.
    pub fn new(client: Client, settings: LeaseSettings) -> Self {
        let api = Api::namespaced(client, &settings.namespace);
        Self { api, settings, seen: None, fence: Instant::now() }
    }

    /// Waits until this one has the lease.
    pub async fn acquire(&mut self, shared: &Shared) {
        let mut said = String::new();
        loop {
            shared.beat();
            let text = match self.attempt().await {
                Ok(Tried::Held) => {
                    info!(lease = self.settings.name, identity = self.settings.identity, "leading");
                    return;
                }
                Ok(Tried::Other(holder)) => format!("{holder} leads; waiting"),
                Err(problem) => format!("cannot get the lease ({problem}); trying again"),
            };
            if text != said {
                info!(lease = self.settings.name, "{text}");
                said = text;
            }
            sleep(self.settings.pause()).await;
        }
    }

    /// Renews the lease from now on.
    pub fn keep(mut self) -> Kept {
        let (fence, watched) = watch::channel(self.fence);
        let (api, settings) = (self.api.clone(), self.settings.clone());
        let task = tokio::spawn(async move {
            loop {
                sleep(self.settings.pause()).await;
                match self.attempt().await {
                    Ok(Tried::Held) => {}
                    Ok(Tried::Other(holder)) => {
                        warn!(lease = self.settings.name, "{holder} has taken the lease");
                        self.fence = Instant::now();
                    }
                    Err(problem) => warn!(lease = self.settings.name, "cannot renew the lease: {problem}"),
                }
                fence.send_replace(self.fence);
                if self.fence <= Instant::now() {
                    return;
                }
            }
        });
        Kept { api, settings, fence: watched, task }
    }

    /// One try to get or to renew it.
    async fn attempt(&mut self) -> Result<Tried, String> {
        let sent = Instant::now();
        // A try that takes longer would end behind the fence.
        match timeout(self.settings.fence() / 2, self.ask(sent)).await {
            Ok(result) => result.map_err(|problem| chain(&problem)),
            Err(_elapsed) => Err("no answer in time".to_owned()),
        }
    }

    async fn ask(&mut self, sent: Instant) -> kube::Result<Tried> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let Some(there) = self.api.get_opt(&self.settings.name).await? else {
            let mut lease = LeaseObject::default();
            lease.metadata.name = Some(self.settings.name.clone());
            lease.spec = Some(self.spec(None));
            self.api.create(&params, &lease).await?;
            self.fence = sent + self.settings.fence();
            return Ok(Tried::Held);
        };
        let spec = there.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        if let Some(other) = holder.filter(|holder| *holder != self.settings.identity)
            && !self.has_expired(&spec)
        {
            return Ok(Tried::Other(other));
        }
        // The version goes with it: if somebody else writes first, this is refused.
        let renewed = LeaseObject { spec: Some(self.spec(Some(&spec))), ..there };
        self.api.replace(&self.settings.name, &params, &renewed).await?;
        self.fence = sent + self.settings.fence();
        Ok(Tried::Held)
    }

    /// Whether the lease has been seen unchanged for its duration.
    fn has_expired(&mut self, spec: &LeaseSpec) -> bool {
        let mark = (spec.holder_identity.clone(), spec.renew_time.clone(), spec.lease_transitions);
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if *seen == mark => *since,
            _ => {
                self.seen = Some((mark, now));
                now
            }
        };
        let duration = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        now >= since + duration.map_or(self.settings.duration, Duration::from_secs)
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let own = old.filter(|old| old.holder_identity.as_ref() == Some(&self.settings.identity));
        let transitions = old.map(|old| old.lease_transitions.unwrap_or(0));
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
            acquire_time: own.and_then(|own| own.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(match (own, transitions) {
                (None, Some(before)) => before.saturating_add(1),
                (_, before) => before.unwrap_or(0),
            }),
            ..LeaseSpec::default()
        }
    }
}

/// A lease that is being renewed.
#[derive(Debug)]
pub struct Kept {
    api: Api<LeaseObject>,
    settings: LeaseSettings,
    fence: watch::Receiver<Instant>,
    task: JoinHandle<()>,
}

impl Kept {
    /// Until when this one may act.
    pub fn fence(&self) -> Instant {
        *self.fence.borrow()
    }

    /// Gives the lease back, if this one still has it, so that another need not wait.
    pub async fn release(self) {
        self.task.abort();
        let give_back = async {
            let Ok(mut lease) = self.api.get(&self.settings.name).await else { return };
            let Some(spec) = &mut lease.spec else { return };
            if spec.holder_identity.as_ref() != Some(&self.settings.identity) {
                return;
            }
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            match self.api.replace(&self.settings.name, &params, &lease).await {
                Ok(_) => info!(lease = self.settings.name, "given back"),
                Err(problem) => {
                    warn!(lease = self.settings.name, "cannot give the lease back: {}", chain(&problem));
                }
            }
        };
        // The lease runs out by itself if this takes too long.
        drop(timeout(Duration::from_secs(2), give_back).await);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

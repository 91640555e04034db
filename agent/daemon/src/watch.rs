//! The watches on the API server: objects become events, and nothing else happens here.
//!
//! Each kind is listed and watched by itself. A lost connection, an unreachable server or a missing kubeconfig is no reason
//! to stop: pods keep what they have, and each watch is tried again with growing pauses up to [`Pause::MAX`].
//! A list that is cut short is told as such: it removes nothing.

mod client;
mod explain;
mod node;
mod object;
mod pause;
mod status;
#[cfg(test)]
mod tests;
mod transport;

pub(crate) use client::Connector;
pub(crate) use explain::call as call_failed;
pub(crate) use object::{resource, version};
pub(crate) use pause::Pause;
pub(crate) use status::WatchStatus;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use agent_control::{Event, ObjectKind};
use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, utils::Backoff as _, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tracing::debug;

use crate::control::Control;
use crate::publish::Observed;

/// After so many failures in a row the configuration is read again: certificates and tokens may have been renewed.
const FAILURES_BEFORE_RELOAD: u32 = 5;

/// How often a kind that need not be there is looked for again.
const LOOK_AGAIN: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(30) };

/// So many times in a row a kind that was there must be missing before its objects are taken for gone.
const MISSES: u32 = 3;

/// A kind of objects, and what becomes of them.
trait Source: Send + Sync + 'static {
    /// As they are decoded.
    type Object: kube::Resource + Clone + fmt::Debug + DeserializeOwned + Send + 'static;

    /// The kind's plural, for people.
    fn name(&self) -> &'static str;

    /// Where they are.
    fn api(&self, client: Client) -> Api<Self::Object>;

    /// Which of them.
    fn config(&self) -> watcher::Config {
        watcher::Config::default()
    }

    /// A cluster that does not know the kind has none of it.
    fn is_optional(&self) -> bool;

    /// What the agent is told.
    fn event(&self, event: watcher::Event<Self::Object>) -> Option<Event>;
}

/// Starts the watch on nodes, with `observed` those that identity and policy rest on, and with `services` those of services and
/// their endpoints. They run until the process ends.
///
/// Pods are those of the node `node`.
pub(crate) fn start(
    connector: &Arc<Connector>,
    control: &Control,
    node: &str,
    observed: Option<&Arc<Observed>>,
    services: bool,
) -> Vec<tokio::task::JoinHandle<()>> {
    let nodes = node::Nodes::new(node, observed.map(Arc::clone));
    let mut tasks = vec![tokio::spawn(run(nodes, Arc::clone(connector), control.clone()))];
    let of_services = |kind| services && matches!(kind, ObjectKind::Service | ObjectKind::EndpointSlice);
    let wanted = |kind: &ObjectKind| observed.is_some() || of_services(*kind);
    // Without policy no endpoints are watched, and nobody is told of any.
    let observed = observed.cloned().unwrap_or_default();
    for kind in ObjectKind::ALL.into_iter().filter(wanted) {
        let objects = object::Objects::new(kind, node, Arc::clone(&observed));
        tasks.push(tokio::spawn(run(objects, Arc::clone(connector), control.clone())));
    }
    tasks
}

async fn run<S: Source>(source: S, connector: Arc<Connector>, control: Control) {
    let (status, name) = (connector.status().clone(), source.name());
    status.expect(name);
    let mut watch =
        Watch { source, control, status: status.clone(), failures: 0, misses: 0, was_there: false };
    let mut pause = Pause::new();
    let mut number = 0;
    loop {
        let client = match connector.client(number).await {
            Ok((of, client)) => {
                number = of;
                client
            }
            Err(problem) => {
                status.failed(name, explain::brief(&problem));
                tokio::time::sleep(pause.next().unwrap_or(Pause::MAX)).await;
                continue;
            }
        };
        watch.failures = 0;
        loop {
            match watch.follow(client.clone()).await {
                End::Reload => break,
                End::Missing if watch.source.is_optional() => {
                    let known = !watch.was_there;
                    tokio::time::sleep(if known { LOOK_AGAIN } else { Pause::MIN }).await;
                }
                End::Missing => tokio::time::sleep(pause.next().unwrap_or(Pause::MAX)).await,
            }
            if watch.failures == 0 {
                pause.reset();
            }
        }
        tokio::time::sleep(pause.next().unwrap_or(Pause::MAX)).await;
    }
}

/// Why a watch has to begin anew.
enum End {
    /// The client fails again and again.
    Reload,
    /// The server does not know the kind.
    Missing,
}

struct Watch<S> {
    source: S,
    control: Control,
    status: WatchStatus,
    failures: u32,
    /// How often in a row the server did not know the kind.
    misses: u32,
    /// A whole list of the kind has been seen, and it has not been missing for good since.
    was_there: bool,
}

impl<S: Source> Watch<S> {
    async fn follow(&mut self, client: Client) -> End {
        let name = self.source.name();
        let api = self.source.api(client::observed(client, self.status.clone(), name));
        let mut events = pin!(watcher(api, self.source.config()).backoff(Pause::new()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let done = matches!(event, watcher::Event::InitDone);
                    // `Init` says that a list is about to be asked for, not that anything was answered.
                    if !matches!(event, watcher::Event::Init) {
                        (self.failures, self.misses) = (0, 0);
                        self.status.delivered(name);
                    }
                    self.tell(event);
                    if done {
                        self.was_there = true;
                        self.status.synced(name);
                    }
                }
                Err(problem) if explain::is_missing(&problem) => {
                    self.missing(&problem);
                    return End::Missing;
                }
                // Nothing has failed: the server does not remember that far, as after its restart, and all is listed anew.
                Err(watcher::Error::WatchError(status)) if status.code == 410 => {
                    debug!("{name}: {}; listing anew", status.message);
                }
                Err(problem) => {
                    self.failures += 1;
                    self.status.failed(name, explain::watch(name, &problem));
                    if self.failures >= FAILURES_BEFORE_RELOAD {
                        return End::Reload;
                    }
                }
            }
        }
        End::Reload
    }

    fn tell(&self, event: watcher::Event<S::Object>) {
        if let Some(event) = self.source.event(event) {
            self.control.event(event);
        }
    }

    /// The server does not know the kind. Where that may be, it is an empty list, which has begun already.
    fn missing(&mut self, problem: &watcher::Error) {
        let name = self.source.name();
        if !self.source.is_optional() {
            self.status.failed(name, explain::missing(name));
            return;
        }
        // A watch that cannot be taken up again says nothing of a list; the next thing is a list.
        if !matches!(problem, watcher::Error::InitialListFailed(_)) {
            return;
        }
        self.misses += 1;
        if self.was_there && self.misses < MISSES {
            return;
        }
        self.was_there = false;
        self.tell(watcher::Event::InitDone);
        self.status.answered(name);
        self.status.synced(name);
    }
}

//! A pod on its node: made, watched over, ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sim_api::Store;
use sim_api::object::{at, int_at, is_deleting, name, namespace, uid};
use sim_api::options::{DeleteOptions, Sub};
use sim_api::resource::PODS;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tracing::warn;

use super::container::{self, PodContext, Stop};
use super::context::{EventKind, Events, NodeContext};
use super::environment;
use super::sandbox::{self, Sandbox};
use super::spec::{PodSpec, RestartPolicy};
use super::state::{Phase, SharedState};
use crate::container::Mount;

/// Pause before a sandbox that could not be made or removed is tried again; doubles up to [`MAX_RETRY`].
const MIN_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(10);

/// What the worker of a pod is told.
#[derive(Debug)]
pub(crate) enum Update {
    /// The object is now this.
    Object(Arc<Value>),
    /// The object is gone from the API.
    Gone,
}

/// A pod that this node works on.
pub(crate) struct Pod {
    /// The cluster's objects.
    pub store: Store,
    /// Its state.
    pub state: Arc<SharedState>,
    /// Its spec.
    pub spec: Arc<PodSpec>,
    /// Its node.
    pub node: Arc<NodeContext>,
    /// Its object.
    pub object: watch::Receiver<Arc<Value>>,
    /// Its sandbox, once it is there.
    pub sandbox: watch::Receiver<Option<Sandbox>>,
    /// To its worker.
    pub updates: mpsc::UnboundedSender<Update>,
}

impl Pod {
    /// Starts working on a pod; the task ends when nothing of the pod is left.
    pub(crate) fn start(
        store: Store,
        node: Arc<NodeContext>,
        object: Arc<Value>,
    ) -> (Arc<Self>, JoinHandle<()>) {
        let (updates, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(SharedState::default());
        let spec = Arc::new(PodSpec::of(&object));
        let (object_tx, object_rx) = watch::channel(object);
        let (stop_tx, stop_rx) = watch::channel(Stop::No);
        let (sandbox_tx, sandbox_rx) = watch::channel(None);
        let pod = Arc::new(Self {
            store: store.clone(),
            state: Arc::clone(&state),
            spec: Arc::clone(&spec),
            node: Arc::clone(&node),
            object: object_rx.clone(),
            sandbox: sandbox_rx,
            updates,
        });
        let context = PodContext {
            node,
            store,
            pod: object_rx,
            spec,
            state,
            events: Arc::new(Events::default()),
            stop: stop_rx,
        };
        let worker = Worker { context, object: object_tx, stop: stop_tx, sandbox: sandbox_tx, gone: false };
        let task = tokio::spawn(worker.run(receiver));
        (pod, task)
    }
}

struct Worker {
    context: PodContext,
    object: watch::Sender<Arc<Value>>,
    stop: watch::Sender<Stop>,
    sandbox: watch::Sender<Option<Sandbox>>,
    gone: bool,
}

impl Worker {
    async fn run(mut self, mut updates: mpsc::UnboundedReceiver<Update>) {
        let first = self.object.borrow().clone();
        self.context.state.change(|s| {
            s.started = Some(self.context.store.now());
            s.initialized = self.context.spec.init_containers.is_empty();
        });
        let mut life = JoinSet::new();
        if let Some(phase @ ("Succeeded" | "Failed")) = at(&first, &["status", "phase"]).as_str() {
            tracing::debug!(pod = super::full_name(&first), phase, "pod has ended already");
        } else {
            life.spawn(live(self.context.clone(), self.sandbox.clone()));
        }
        self.take(Update::Object(first));
        loop {
            tokio::select! {
                update = updates.recv() => match update {
                    Some(update) => self.take(update),
                    None => return,
                },
                () = self.context.state.changed() => self.write_status(),
                _ = life.join_next(), if !life.is_empty() => {}
            }
            if *self.stop.borrow() != Stop::No {
                break;
            }
        }
        self.end(updates, life).await;
    }

    /// Takes in a change of the object.
    fn take(&mut self, update: Update) {
        match update {
            Update::Object(object) => {
                if is_deleting(&object) {
                    let seconds = int_at(&object, &["metadata", "deletionGracePeriodSeconds"])
                        .and_then(|s| u64::try_from(s).ok())
                        .unwrap_or(0);
                    let order =
                        if seconds == 0 { Stop::Now } else { Stop::Gracefully(Duration::from_secs(seconds)) };
                    self.stop.send_if_modified(|stop| {
                        let stricter = *stop == Stop::No || order == Stop::Now && *stop != Stop::Now;
                        if stricter {
                            *stop = order;
                        }
                        stricter
                    });
                }
                self.object.send_replace(object);
            }
            Update::Gone => {
                self.gone = true;
                self.stop.send_replace(Stop::Now);
            }
        }
    }

    /// Ends the containers, then the sandbox, then the object.
    async fn end(mut self, mut updates: mpsc::UnboundedReceiver<Update>, mut life: JoinSet<()>) {
        let object = self.object.borrow().clone();
        for container in self.context.spec.containers.iter().filter(|c| self.is_running(&c.name)) {
            self.context.event(
                EventKind::Normal,
                "Killing",
                &format!("Stopping container {}", container.name),
            );
        }
        while !life.is_empty() {
            tokio::select! {
                update = updates.recv() => if let Some(update) = update { self.take(update) },
                () = self.context.state.changed() => self.write_status(),
                _ = life.join_next() => {}
            }
        }
        self.write_status();
        let uid = uid(&object).to_owned();
        let made = self.sandbox.borrow().clone();
        match made {
            Some(made) => {
                let mut pause = MIN_RETRY;
                while let Err(e) = sandbox::remove(&self.context.node, &uid, &made).await {
                    let message = format!("failed to remove the sandbox: {}", crate::error_chain(&e));
                    warn!(pod = super::full_name(&object), message);
                    self.context.event(EventKind::Warning, "FailedKillPod", &message);
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_RETRY);
                }
            }
            None => sandbox::remove_files(&self.context.node, &uid).await,
        }
        if !self.gone {
            let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::now() };
            if let Err(e) = self.context.store.delete(&PODS, namespace(&object), name(&object), &options)
                && !e.is_not_found()
            {
                warn!(pod = super::full_name(&object), error = %e, "cannot delete the pod's object");
            }
        }
    }

    fn is_running(&self, container: &str) -> bool {
        self.context
            .state
            .lock()
            .containers
            .get(container)
            .is_some_and(|c| matches!(c.phase, Phase::Running { .. }))
    }

    /// Brings the object's status up to date.
    fn write_status(&self) {
        if self.gone {
            return;
        }
        let object = self.object.borrow().clone();
        let context = &self.context;
        let ours = uid(&object).to_owned();
        let written = context.store.modify(&PODS, namespace(&object), name(&object), Sub::Status, |pod| {
            if uid(pod) != ours {
                return;
            }
            let new =
                context.state.lock().status(pod, &context.spec, &context.node.addresses, context.store.now());
            if !pod["status"].is_object() {
                pod["status"] = serde_json::json!({});
            }
            for (key, value) in new.as_object().into_iter().flatten() {
                if value.is_null() {
                    pod["status"].as_object_mut().map(|s| s.shift_remove(key));
                } else {
                    pod["status"][key] = value.clone();
                }
            }
        });
        if let Err(e) = written
            && !e.is_not_found()
        {
            warn!(pod = super::full_name(&object), error = %e, "cannot write the pod's status");
        }
    }
}

/// The pod's life: sandbox, volumes, init containers, containers. Ends when all have ended, or early when the pod is to end.
async fn live(pod: PodContext, sandbox_out: watch::Sender<Option<Sandbox>>) {
    let Some(sandbox) = make_sandbox(&pod).await else { return };
    sandbox_out.send_replace(Some(sandbox.clone()));
    pod.state.change(|s| {
        s.sandbox = true;
        s.ips.clone_from(&sandbox.ips);
    });
    let Some((mounts, volumes)) = make_files(&pod, &sandbox).await else { return };
    let (mounts, volumes) = (Arc::new(mounts), Arc::new(volumes));

    let init_policy = match pod.spec.restart_policy {
        RestartPolicy::Never => RestartPolicy::Never,
        _ => RestartPolicy::OnFailure,
    };
    for init in &pod.spec.init_containers {
        let code = container::run(
            pod.clone(),
            init.clone(),
            sandbox.clone(),
            Arc::clone(&mounts),
            Arc::clone(&volumes),
            init_policy,
        )
        .await;
        if code != Some(0) {
            return;
        }
    }
    pod.state.change(|s| s.initialized = true);
    let mut running = JoinSet::new();
    for one in &pod.spec.containers {
        running.spawn(container::run(
            pod.clone(),
            one.clone(),
            sandbox.clone(),
            Arc::clone(&mounts),
            Arc::clone(&volumes),
            pod.spec.restart_policy,
        ));
    }
    while running.join_next().await.is_some() {}
}

async fn make_sandbox(pod: &PodContext) -> Option<Sandbox> {
    let object = pod.pod.borrow().clone();
    let mut pause = MIN_RETRY;
    for attempt in 0.. {
        if !pod.spec.host_network && !network_ready(pod).await {
            return None;
        }
        if *pod.stop.borrow() != Stop::No {
            return None;
        }
        // Not given up half way: what has been begun must be known, so that it can be undone.
        let made = if pod.spec.host_network {
            sandbox::create_host_network(&pod.node, &object)
        } else {
            sandbox::create(&pod.node, &object, attempt).await
        };
        match made {
            Ok(sandbox) => return Some(sandbox),
            Err(e) => {
                let message = format!("Failed to create pod sandbox: {}", crate::error_chain(&e));
                warn!(pod = super::full_name(&object), node = pod.node.name, message);
                pod.event(EventKind::Warning, "FailedCreatePodSandBox", &message);
            }
        }
        tokio::select! {
            () = pod.stopped() => return None,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(MAX_RETRY);
    }
    None
}

/// Waits until the node's CNI is ready; false when the pod is to end before.
async fn network_ready(pod: &PodContext) -> bool {
    let mut network = pod.node.network.subscribe();
    let waiting = network.borrow().as_ref().err().cloned();
    if let Some(why) = waiting {
        let message = format!("network is not ready: container runtime network not ready: {why}");
        pod.event(EventKind::Warning, "NetworkNotReady", &message);
    }
    tokio::select! {
        ready = network.wait_for(Result::is_ok) => ready.is_ok(),
        () = pod.stopped() => false,
    }
}

async fn make_files(pod: &PodContext, sandbox: &Sandbox) -> Option<(Vec<Mount>, BTreeMap<String, PathBuf>)> {
    let mut pause = MIN_RETRY;
    loop {
        let object = pod.pod.borrow().clone();
        let made =
            environment::write_pod_files(&pod.node, &object, &pod.spec, &sandbox.ips).and_then(|mounts| {
                Ok((mounts, environment::volumes(&pod.store, &pod.node, &object, &pod.spec, &sandbox.ips)?))
            });
        match made {
            Ok(made) => return Some(made),
            Err(e) => pod.event(
                EventKind::Warning,
                "FailedMount",
                &format!("MountVolume.SetUp failed: {}", crate::error_chain(&e)),
            ),
        }
        tokio::select! {
            () = pod.stopped() => return None,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(MAX_RETRY);
    }
}

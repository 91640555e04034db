//! The process around the operator's mind: watches become events, commands become calls to the API server.

mod act;
mod flags;
mod http;
mod install;
mod lease;
mod logs;
mod objects;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::http::HeaderValue;
use axum::http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::core::{self, Event, Operator, Outcome};

pub use flags::{Flags, LogFormat};
pub use http::{Shared, serve};
pub use lease::{Lease, LeaseSettings};

/// At least this often the loop turns, so that the health check can tell that it does.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// A deadline that has passed without anything to do is not met again sooner than this.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// Events that are handled together before commands are asked for.
const BATCH: usize = 1000;

/// Longest silence of the API server in a call or a list. Watches, which are mostly silent, are ended by the server before.
const SILENCE: Duration = Duration::from_mins(5);

/// Runs until a signal, or with `--once` until there is nothing to do.
///
/// # Errors
/// When it cannot run, or has lost the lease; in one sentence with what to do.
pub fn start(flags: &Flags) -> Result<()> {
    logs::init(flags.log_format, &flags.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start worker threads")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => info!("SIGTERM: the operator stops"),
                _ = interrupt.recv() => info!("SIGINT: the operator stops"),
            }
        };
        let client = client(flags).await?;
        let shared = Arc::new(Shared::default());
        if let Some(address) = flags.listen.0 {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}; give another --listen, or off"))?;
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                if let Err(problem) = serve(listener, shared).await {
                    warn!("{problem:#}");
                }
            });
        }
        run(flags, client, shared, stop).await
    })
}

/// The operator against an API server, until `stop` ends, or with `--once` until there is nothing to do.
///
/// # Errors
/// When the definitions cannot be installed, or when the lease is lost: another operator leads then, and this one
/// must be started anew.
pub async fn run(
    flags: &Flags,
    client: Client,
    shared: Arc<Shared>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut stop = std::pin::pin!(stop);
    let mut lease = match flags.lease() {
        Some(settings) => {
            let mut lease = Lease::new(client.clone(), settings);
            tokio::select! {
                () = lease.acquire(&shared) => {}
                () = &mut stop => return Ok(()),
            }
            Some(lease.keep())
        }
        None => None,
    };
    shared.lead(true);
    let result = tokio::select! {
        result = lead(flags, &client, &shared, lease.as_ref()) => result,
        () = &mut stop => Ok(()),
    };
    shared.lead(false);
    if let Some(lease) = lease.take() {
        // Nothing of ours is under way any more: the next one need not wait.
        lease.release().await;
    }
    result
}

/// What the leader does. Everything that it has started ends with this future.
async fn lead(
    flags: &Flags,
    client: &Client,
    shared: &Arc<Shared>,
    lease: Option<&lease::Kept>,
) -> Result<()> {
    if flags.install_crds {
        install::definitions(client).await?;
    }
    let (events, mut received) = mpsc::channel::<Event>(4096);
    let _watches = watch::start(client, &events, shared);
    let mut operator = Operator::new(flags.core());
    let mut calls: JoinSet<(u64, Outcome)> = JoinSet::new();
    let started = Instant::now();
    let mut exhausted = false;
    operator.handle(Duration::ZERO, Event::Leading(true));
    loop {
        let now = started.elapsed();
        let fence = lease.map(lease::Kept::fence);
        if fence.is_some_and(|fence| fence <= Instant::now()) {
            bail!(
                "the lease could not be renewed in time or was taken by another operator; start this one again"
            );
        }
        for command in operator.commands(now) {
            debug!(id = command.id, action = ?command.action, "command");
            let (client, shared) = (client.clone(), Arc::clone(shared));
            calls.spawn(async move {
                let outcome = act::perform(&client, command.action, fence, &shared).await;
                (command.id, outcome)
            });
        }
        let figures = operator.figures();
        if figures.exhausted && !exhausted {
            warn!(
                identities = figures.identities,
                "all numbers are taken: new sets of labels get no identity until unused ones are collected"
            );
        }
        exhausted = figures.exhausted;
        shared.turn(figures);
        if flags.once && operator.is_settled() && calls.is_empty() {
            info!("nothing is left to do");
            return Ok(());
        }
        let deadline = operator.deadline().map_or(LONGEST_SLEEP, |at| at.saturating_sub(started.elapsed()));
        let mut wake = Instant::now() + deadline.clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
        if let Some(fence) = fence {
            wake = wake.min(fence);
        }
        tokio::select! {
            event = received.recv() => {
                let now = started.elapsed();
                let Some(event) = event else { bail!("the watches have ended") };
                operator.handle(now, event);
                for _ in 0..BATCH {
                    let Ok(event) = received.try_recv() else { break };
                    operator.handle(now, event);
                }
            }
            Some(call) = calls.join_next() => {
                let (id, outcome) = call.context("a call has panicked")?;
                operator.handle(started.elapsed(), Event::Outcome { id, outcome });
            }
            () = sleep_until(wake) => operator.handle(started.elapsed(), Event::Tick),
        }
    }
}

/// By flag, by `$KUBECONFIG`, or as the pod that the operator runs in.
async fn client(flags: &Flags) -> Result<Client> {
    let path = flags.kubeconfig.clone().or_else(|| {
        std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(std::path::PathBuf::from)
    });
    let mut config = match path {
        Some(path) => {
            let describe = || format!("kubeconfig {}", path.display());
            let kubeconfig = Kubeconfig::read_from(&path).with_context(describe)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(describe)?
        }
        None => Config::incluster().context(
            "no way to the API server: give --kubeconfig FILE (or BRISTLE_KUBECONFIG), or run in a pod with a service account",
        )?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(SILENCE);
    config.headers.push((
        USER_AGENT,
        HeaderValue::from_static(concat!("bristle-operator/", env!("CARGO_PKG_VERSION"))),
    ));
    config.reset_reader_on_write = true;
    Client::try_from(config).context("cannot make a client for the API server from the kubeconfig")
}

impl Flags {
    fn core(&self) -> core::Config {
        core::Config {
            cluster: self.cluster_name.clone(),
            labels: self.labels.clone(),
            collect_after: Duration::from_secs(self.collect_after_s),
            ..core::Config::default()
        }
    }
}

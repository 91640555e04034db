//! The local HTTP API (see [`agent_api`]) on the unix socket, and metrics on a TCP address as well.

mod answers;

use crate::control::{Control, StoppedError, View};
use crate::metrics::{self, Figures, Metrics};
use crate::monitor::{Filter, Monitor, Parties};
use crate::tables::Tables;
use crate::watch::WatchStatus;
use crate::{process, status};
use agent_api::error::ApiError;
use agent_api::policy::Change;
use agent_api::{Endpoint, EndpointConfigChange};
use agent_api::{paths, status::Status};
use agent_control::Event;
use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use dataplane_loader::TableError;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

use answers::{Answer, internal, not_found, stopping, unreadable};

/// A table is shown with at most so many rows; the agent's memory matters more than a complete dump of half a million.
const MAP_ROWS: usize = 10_000;

/// Bytes of objects that may come with a question what they would change.
const MOST_CHANGES: usize = 16 << 20;

/// Bytes of a long list that are sent together.
const LIST_PART: usize = 16 * 1024;

/// A silent monitor stream gets an empty line this often, so that a reader that went away is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the handlers answer from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// The state.
    pub(crate) control: Control,
    /// The dataplane's tables.
    pub(crate) tables: Arc<Tables>,
    /// Events.
    pub(crate) monitor: Monitor,
    /// Who the ends of events are.
    pub(crate) parties: Parties,
    /// The watch.
    pub(crate) watch: WatchStatus,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// What does not change while the process lives.
    pub(crate) fixed: Arc<status::Fixed>,
}

/// Listens at `path`, in the place of a socket that an earlier agent left. Only root may connect.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn listen(path: &std::path::Path) -> Result<UnixListener> {
    drop(std::fs::remove_file(path));
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot restrict {}", path.display()))?;
    Ok(listener)
}

/// Serves the whole API until the process ends.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve(listener: UnixListener, sources: Sources) -> Result<()> {
    let router = Router::new()
        .route(paths::STATUS, get(status_page))
        .route(paths::HEALTH, get(health))
        .route(paths::ENDPOINTS, get(endpoints))
        .route(&format!("{}/{{id}}", paths::ENDPOINTS), get(endpoint))
        .route(&format!("{}/{{id}}/config", paths::ENDPOINTS), patch(configure))
        .route(paths::IPCACHE, get(ipcache))
        .route(paths::NODES, get(nodes))
        .route(paths::IDENTITIES, get(identities))
        .route(paths::POLICIES, get(policies))
        .route(paths::EXPLAIN, get(explain).post(what_if).layer(DefaultBodyLimit::max(MOST_CHANGES)))
        .route(paths::SERVICES, get(services))
        .route(paths::LB, get(frontends))
        .route(paths::MAPS, get(maps))
        .route(&format!("{}/{{name}}", paths::MAPS), get(map))
        .route(paths::CT, get(connections))
        .route(paths::NAT, get(ports))
        .route(paths::MONITOR, get(monitor))
        .route(paths::METRICS, get(metrics_page))
        .fallback(async || {
            not_found("there is no such path; the API's paths begin with /v1/, see docs/api.md")
        })
        .with_state(sources);
    axum::serve(listener, router).await.context("API socket")
}

/// Serves `/metrics` alone, without anything about single pods or connections.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve_metrics(listener: TcpListener, sources: Sources) -> Result<()> {
    let router = Router::new().route(paths::METRICS, get(metrics_page)).with_state(sources);
    axum::serve(listener, router).await.context("metrics address")
}

/// The status from all its sources.
async fn collect(sources: &Sources) -> Result<Status, StoppedError> {
    let fixed = Arc::clone(&sources.fixed);
    let mut status = sources.control.query(move |view: &mut View<'_>| status::of(view, &fixed)).await?;
    status.kubernetes = sources.watch.get();
    status.resident_bytes = process::resident_bytes();
    status.monitor.readers = sources.monitor.listeners();
    status.monitor.events = sources.monitor.events();
    let tables = Arc::clone(&sources.tables);
    let bpffs = sources.fixed.pins.clone();
    let read = tokio::task::spawn_blocking(move || {
        let links = dataplane_loader::attach::list(&bpffs).map_or(0, |links| links.len());
        (tables.events_lost(), tables.connections_count(), links)
    });
    if let Ok((lost, (entries, capacity), links)) = read.await {
        status.monitor.lost = lost;
        status.conntrack.entries = entries;
        status.conntrack.capacity = capacity;
        status.dataplane.links = links;
    }
    status::judge(&mut status);
    Ok(status)
}

async fn status_page(State(sources): State<Sources>) -> Answer {
    Ok(axum::Json(collect(&sources).await.map_err(stopping)?).into_response())
}

async fn health(State(sources): State<Sources>) -> Answer {
    let health = status::health(&collect(&sources).await.map_err(stopping)?);
    let code = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, axum::Json(health)).into_response())
}

async fn endpoints(State(sources): State<Sources>) -> Answer {
    let list = sources.control.query(|view| view.agent.endpoints()).await.map_err(stopping)?;
    Ok(axum::Json(list).into_response())
}

/// The endpoint with its number, and whether the state directory has all that is known of it.
async fn find_endpoint(sources: &Sources, id: &str) -> Result<(u16, Endpoint, bool), Response> {
    let id: u16 = id
        .parse()
        .map_err(|_| not_found("an endpoint's id is a number from 1 to 65535, as in /v1/endpoints"))?;
    let asked = sources.control.query(move |view| (view.agent.endpoints(), view.agent.is_kept(id))).await;
    let (list, is_kept) = asked.map_err(stopping)?;
    let found = list.into_iter().find(|endpoint| endpoint.id == id);
    found
        .map(|endpoint| (id, endpoint, is_kept))
        .ok_or_else(|| not_found(&format!("there is no endpoint {id} on this node")))
}

async fn endpoint(State(sources): State<Sources>, Path(id): Path<String>) -> Answer {
    let (_, endpoint, _) = find_endpoint(&sources, &id).await?;
    Ok(axum::Json(endpoint).into_response())
}

async fn configure(State(sources): State<Sources>, Path(id): Path<String>, body: Bytes) -> Answer {
    let change: EndpointConfigChange = serde_json::from_slice(&body)
        .map_err(|problem| answers::bad_request(&format!("this cannot be set: {problem}")))?;
    let (number, ..) = find_endpoint(&sources, &id).await?;
    sources.control.event(Event::EndpointConfig { id: number, change });
    // Asked after the event, it is answered after what followed from that.
    let (_, endpoint, is_kept) = find_endpoint(&sources, &id).await?;
    if !is_kept {
        let text = "it is set, but could not be written to the state directory yet, so that the next agent would not know it; \
                    see `bristle status`";
        return Err(error(StatusCode::INTERNAL_SERVER_ERROR, text));
    }
    Ok(axum::Json(endpoint).into_response())
}

async fn ipcache(State(sources): State<Sources>) -> Answer {
    let list = sources.control.query(|view| view.agent.ipcache()).await.map_err(stopping)?;
    Ok(axum::Json(list).into_response())
}

async fn nodes(State(sources): State<Sources>) -> Answer {
    let list = sources.control.query(|view| view.agent.nodes()).await.map_err(stopping)?;
    Ok(axum::Json(list).into_response())
}

async fn identities(State(sources): State<Sources>) -> Answer {
    let list = sources.control.query(|view| view.agent.identities()).await.map_err(stopping)?;
    Ok(axum::Json(list).into_response())
}

async fn policies(State(sources): State<Sources>) -> Answer {
    let list = sources.control.query(|view| view.agent.policies()).await.map_err(stopping)?;
    Ok(axum::Json(list).into_response())
}

#[derive(Debug, Default, serde::Deserialize)]
struct ExplainQuery {
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    protocol: String,
}

impl ExplainQuery {
    fn protocol(&self) -> Result<u8, String> {
        crate::words::protocol_number(&self.protocol).ok_or_else(|| {
            format!("`{}` is no protocol; give tcp, udp, sctp, icmp, icmpv6 or a number", self.protocol)
        })
    }
}

async fn explain(State(sources): State<Sources>, Query(query): Query<ExplainQuery>) -> Answer {
    let protocol = query.protocol().map_err(|text| answers::bad_request(&text))?;
    let ExplainQuery { from, to, port, .. } = query;
    let asked =
        sources.control.query(move |view| view.agent.explain_policy(&from, &to, protocol, port)).await;
    let explanation = asked.map_err(stopping)?.map_err(|text| not_found(&text))?;
    Ok(axum::Json(explanation).into_response())
}

async fn what_if(State(sources): State<Sources>, Query(query): Query<ExplainQuery>, body: Bytes) -> Answer {
    let protocol = query.protocol().map_err(|text| answers::bad_request(&text))?;
    let change: Change = serde_json::from_slice(&body)
        .map_err(|problem| answers::bad_request(&format!("the changes cannot be read: {problem}")))?;
    let ExplainQuery { from, to, port, .. } = query;
    let asked =
        sources.control.query(move |view| view.agent.what_if(&from, &to, protocol, port, &change)).await;
    let answer = asked.map_err(stopping)?.map_err(|text| not_found(&text))?;
    Ok(axum::Json(answer).into_response())
}

async fn services(State(sources): State<Sources>) -> Answer {
    let list = sources.control.query(|view| view.agent.services()).await.map_err(stopping)?;
    Ok(axum::Json(list).into_response())
}

async fn frontends(State(sources): State<Sources>) -> Answer {
    let tables = Arc::clone(&sources.tables);
    let list = tokio::task::spawn_blocking(move || tables.frontends()).await.map_err(internal)?;
    Ok(axum::Json(list.map_err(unreadable)?).into_response())
}

async fn maps(State(sources): State<Sources>) -> Answer {
    let tables = Arc::clone(&sources.tables);
    let list = tokio::task::spawn_blocking(move || tables.list()).await.map_err(internal)?;
    Ok(axum::Json(list).into_response())
}

async fn map(State(sources): State<Sources>, Path(name): Path<String>) -> Answer {
    let tables = Arc::clone(&sources.tables);
    let wanted = name.to_uppercase();
    let dump = tokio::task::spawn_blocking(move || tables.dump(&wanted, MAP_ROWS)).await.map_err(internal)?;
    match dump.map_err(unreadable)? {
        Some(dump) => Ok(axum::Json(dump).into_response()),
        None => Err(not_found(&format!("there is no map {name}; /v1/maps lists them"))),
    }
}

/// One JSON array, written as the table is read.
async fn connections(State(sources): State<Sources>) -> Answer {
    Ok(long_list(move |each| sources.tables.connections(each)))
}

async fn ports(State(sources): State<Sources>) -> Answer {
    Ok(long_list(move |each| sources.tables.ports(each)))
}

/// A list that is sent while it is read: a full table in words would be more memory than the agent has otherwise.
fn long_list<T: serde::Serialize>(
    read: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<(), TableError> + Send + 'static,
) -> Response {
    let (parts, received) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut text = vec![b'['];
        let mut first = true;
        let result = read(&mut |entry| {
            if !std::mem::replace(&mut first, false) {
                text.push(b',');
            }
            // Plain data: there is nothing in it that JSON cannot have.
            serde_json::to_writer(&mut text, &entry).expect("an entry is plain data");
            // The reader may be gone.
            text.len() < LIST_PART || parts.blocking_send(Ok(std::mem::take(&mut text))).is_ok()
        });
        text.push(b']');
        // An error in the middle ends the connection without an end of the list, which the reader notices.
        drop(parts.blocking_send(result.map(|()| text)));
    });
    let parts =
        futures::stream::unfold(received, async |mut received| Some((received.recv().await?, received)));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(parts)).into_response()
}

#[derive(Debug, Default, serde::Deserialize)]
struct MonitorQuery {
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    kind: String,
}

async fn monitor(State(sources): State<Sources>, Query(query): Query<MonitorQuery>) -> Answer {
    let filter = filter(&query).map_err(|text| answers::bad_request(&text))?;
    let listener = sources.monitor.listen(filter);
    let lines = futures::stream::unfold((listener, sources.parties), async |(mut listener, parties)| {
        let line = match tokio::time::timeout(KEEP_ALIVE, listener.next()).await {
            Ok(Some(event)) => serde_json::to_vec(&*parties.named(event).await).map_or_else(
                |_| Vec::new(),
                |mut line| {
                    line.push(b'\n');
                    line
                },
            ),
            Ok(None) => return None,
            Err(_silence) => b"\n".to_vec(),
        };
        Some((Ok::<_, std::convert::Infallible>(line), (listener, parties)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn filter(query: &MonitorQuery) -> Result<Filter, String> {
    let parts = |text: &str| {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut filter = Filter { kinds: parts(&query.kind), ..Filter::default() };
    for kind in &filter.kinds {
        if !matches!(kind.as_str(), "drop" | "trace" | "policy-verdict" | "debug") {
            return Err(format!("kind `{kind}` is none; there are drop, trace, policy-verdict and debug"));
        }
    }
    for id in parts(&query.endpoint) {
        filter
            .endpoints
            .push(id.parse().map_err(|_| format!("endpoint `{id}` is no number from 1 to 65535"))?);
    }
    Ok(filter)
}

async fn metrics_page(State(sources): State<Sources>) -> Answer {
    let status = collect(&sources).await.map_err(stopping)?;
    let asked = sources.control.query(|view| (view.agent.endpoints(), view.agent.staged_policies())).await;
    let (endpoints, staged) = asked.map_err(stopping)?;
    let figures = Figures { status, endpoints, staged };
    let (metrics, tables) = (Arc::clone(&sources.metrics), Arc::clone(&sources.tables));
    let text = tokio::task::spawn_blocking(move || metrics::render(&metrics, &figures, &tables))
        .await
        .map_err(internal)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

fn error(code: StatusCode, text: &str) -> Response {
    (code, axum::Json(ApiError { error: text.to_owned() })).into_response()
}

#[cfg(test)]
mod tests {
    use super::{MonitorQuery, filter};

    #[test]
    fn monitor_filters_are_lists_and_mistakes_are_named() {
        let query =
            |endpoint: &str, kind: &str| MonitorQuery { endpoint: endpoint.into(), kind: kind.into() };
        let some = filter(&query("1, 2", "drop,trace")).unwrap();
        assert_eq!(some.endpoints, [1, 2]);
        assert_eq!(some.kinds, ["drop", "trace"]);
        assert_eq!(filter(&query("", "")).unwrap(), crate::monitor::Filter::default());
        assert!(filter(&query("x", "")).unwrap_err().contains('x'));
        assert!(filter(&query("", "drops")).unwrap_err().contains("drops"));
    }
}

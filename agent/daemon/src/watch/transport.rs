//! Connections to the API server, and when they are given up.
//!
//! Most of them are watches, which are silent for minutes. A server that is gone without a word, or a network that loses
//! everything, would show only when a watch is due to end: till then the agent would take what it knows for the present.

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt as _;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, ServiceBuilder};

/// A connection must be made in this time.
const CONNECT: Duration = Duration::from_secs(5);

/// By then a call must have begun to be answered. API servers give up on a call after a minute themselves.
const ANSWER: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_mins(1) };

/// Longest silence in the middle of an answer. Watches are ended by the server before.
const SILENCE: Duration = Duration::from_mins(5);

/// The kernel asks the other end of a silent connection whether it is there after so long,
const PROBE_AFTER: Duration = Duration::from_secs(20);
/// again after so long,
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// and so many times before the connection fails.
const PROBES: u32 = 3;

/// A client for the server of a configuration.
///
/// # Errors
/// When its certificates or credentials are of no use.
pub(super) fn client(config: Config) -> kube::Result<Client> {
    let mut tcp = HttpConnector::new();
    // TLS is the business of the layer above.
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(PROBE_AFTER));
    tcp.set_keepalive_interval(Some(PROBE_EVERY));
    tcp.set_keepalive_retries(Some(PROBES));
    // The same for a connection on which something was sent: it is repeated instead of probed, and for a quarter of an hour.
    tcp.set_tcp_user_timeout(Some(PROBE_AFTER + PROBE_EVERY * PROBES));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_reset_reader_on_write(true);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .layer(TimeoutLayer::new(ANSWER))
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}

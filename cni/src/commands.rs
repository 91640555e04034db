//! The commands of the specification (section 2), each as one exchange with the agent.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent_api::cni::delete_queue::{DeleteQueue, QueuedDelete, dir_for_socket};
use agent_api::cni::{
    CniError, CniResult, ErrorCode, Operation, PROTOCOL_VERSION, Reply, Request, SUPPORTED_VERSIONS,
};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use serde_json::{Value, json};

use crate::agent::{Connection, ExchangeError};
use crate::config::{Config, asked_version};
use crate::environment::{Lookup, Parameters, Strictness, parameters};
use crate::output::result_in_version;
use crate::version::Version;

/// Between attempts of a DEL whose agent ended in the middle.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Carries out one command and prints its result or error.
pub(crate) fn run(command: &str, get: Lookup<'_>, input: &mut dyn Read) -> ExitCode {
    let mut version = Version::LATEST;
    match answer(command, get, input, &mut version) {
        Ok(Some(result)) if !print(&result) => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let mut object = json!({"cniVersion": version.as_str(), "code": error.code, "msg": error.msg});
            if !error.details.is_empty() {
                object["details"] = error.details.into();
            }
            print(&object);
            ExitCode::FAILURE
        }
    }
}

/// Writes an object to stdout. False if nobody reads it; then the runtime counts the call as failed and cleans up by DEL.
fn print(value: &Value) -> bool {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{value}").and_then(|()| stdout.flush()).is_ok()
}

/// The result to print, if the command has one. Sets `version` as soon as it is known, so that errors carry it, too.
fn answer(
    command: &str,
    get: Lookup<'_>,
    input: &mut dyn Read,
    version: &mut Version,
) -> Result<Option<Value>, CniError> {
    let strictness = match command {
        "VERSION" => {
            let supported =
                json!({"cniVersion": asked_version(input), "supportedVersions": SUPPORTED_VERSIONS});
            return Ok(Some(supported));
        }
        "ADD" | "CHECK" => Some(Strictness::NeedsNetns),
        "DEL" => Some(Strictness::Lenient),
        "GC" | "STATUS" => None,
        unknown => {
            let msg = format!(
                "CNI_COMMAND {unknown:?} is unknown; it must be ADD, DEL, CHECK, GC, STATUS or VERSION"
            );
            return Err(CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg));
        }
    };
    let parameters = strictness.map(|strictness| parameters(get, strictness)).transpose()?;
    let config = Config::read(input)?;
    *version = config.version;
    config.name()?;
    match (command, &parameters) {
        ("ADD", Some(parameters)) => result_in_version(&add(&config, parameters)?, config.version).map(Some),
        ("CHECK", Some(parameters)) => check(&config, parameters).map(|()| None),
        ("DEL", Some(parameters)) => del(&config, parameters).map(|()| None),
        ("GC", _) => gc(&config).map(|()| None),
        _ => status(&config).map(|()| None),
    }
}

fn add(config: &Config, parameters: &Parameters) -> Result<CniResult, CniError> {
    config.refuse_unsupported()?;
    let (netns, path) = open_netns(parameters)?;
    let request = request(
        config,
        parameters,
        Operation::Add { attachment: parameters.attachment.clone(), netns: path },
    )?;
    match connect(config)?.exchange(&request, Some(netns.as_fd()))? {
        Reply::Added { result } => Ok(result),
        Reply::Error { error } => Err(error),
        Reply::Done => Err(CniError::new(ErrorCode::INTERNAL, "the agent answered ADD without a result")),
    }
}

fn check(config: &Config, parameters: &Parameters) -> Result<(), CniError> {
    config.version.require("CHECK", Version::V0_4_0)?;
    let Some(prev_result) = config.prev_result()? else {
        return Err(CniError::new(
            ErrorCode::INVALID_NETWORK_CONFIG,
            "CHECK needs prevResult; the container runtime has to pass it",
        ));
    };
    let (netns, path) = open_netns(parameters)?;
    let operation = Operation::Check { attachment: parameters.attachment.clone(), netns: path, prev_result };
    let request = request(config, parameters, operation)?;
    done(connect(config)?.exchange(&request, Some(netns.as_fd()))?)
}

/// Never fails for a reason that a retry cannot cure: the runtime would repeat it for hours and keep the sandbox.
fn del(config: &Config, parameters: &Parameters) -> Result<(), CniError> {
    let netns = open_netns(parameters).ok();
    let operation = Operation::Del {
        attachment: parameters.attachment.clone(),
        netns: parameters.netns.clone(),
        // Only information; an unreadable one must not keep us from cleaning up.
        prev_result: config.prev_result().unwrap_or(None),
    };
    let request = request(config, parameters, operation)?;
    let (socket, timeout) = (config.socket()?, config.timeout()?);
    let deadline = Instant::now() + timeout;
    loop {
        let Some(connection) = connect_or_queue(&socket, timeout, &request)? else { return Ok(()) };
        match connection.exchange(&request, netns.as_ref().map(|(file, _)| file.as_fd())) {
            Ok(reply) => return done(reply),
            // It may or may not have done it. The next agent shall: repeating does no harm.
            Err(ExchangeError::Ended(_)) if Instant::now() < deadline => std::thread::sleep(RETRY_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A connection, or `None` after the request was left for the next agent.
fn connect_or_queue(
    socket: &Path,
    timeout: Duration,
    request: &Request,
) -> Result<Option<Connection>, CniError> {
    match Connection::open(socket, timeout) {
        Err(ExchangeError::Down(_)) => {}
        other => return Ok(Some(other?)),
    }
    let dir = dir_for_socket(socket);
    let failed = |error: std::io::Error| {
        let msg = format!(
            "no agent listens on {}, and the request cannot be kept for it in {}",
            socket.display(),
            dir.display()
        );
        CniError::new(ErrorCode::IO_FAILURE, msg).with_details(error.to_string())
    };
    let queue = DeleteQueue::lock(&dir).map_err(failed)?;
    // Under the lock: an agent that has started meanwhile may have emptied the queue already (see delete_queue).
    match Connection::open(socket, timeout) {
        Err(ExchangeError::Down(_)) => {}
        other => return Ok(Some(other?)),
    }
    queue.push(&QueuedDelete { request: request.clone() }).map_err(failed)?;
    Ok(None)
}

fn gc(config: &Config) -> Result<(), CniError> {
    config.version.require("GC", Version::LATEST)?;
    let operation = Operation::Gc { valid_attachments: config.valid_attachments()? };
    done(connect(config)?.exchange(&plain_request(config, operation)?, None)?)
}

fn status(config: &Config) -> Result<(), CniError> {
    config.version.require("STATUS", Version::LATEST)?;
    let request = plain_request(config, Operation::Status)?;
    let reply = Connection::open(&config.socket()?, config.timeout()?)
        .and_then(|connection| connection.exchange(&request, None));
    // Whatever keeps the agent from answering keeps it from serving an ADD.
    let reply = reply.map_err(|error| CniError { code: ErrorCode::UNAVAILABLE, ..error.into() })?;
    done(reply)
}

fn connect(config: &Config) -> Result<Connection, CniError> {
    Ok(Connection::open(&config.socket()?, config.timeout()?)?)
}

fn done(reply: Reply) -> Result<(), CniError> {
    match reply {
        Reply::Done => Ok(()),
        Reply::Error { error } => Err(error),
        Reply::Added { .. } => {
            Err(CniError::new(ErrorCode::INTERNAL, "the agent answered with a result that was not asked for"))
        }
    }
}

fn request(config: &Config, parameters: &Parameters, operation: Operation) -> Result<Request, CniError> {
    Ok(Request { args: parameters.args.clone(), ..plain_request(config, operation)? })
}

fn plain_request(config: &Config, operation: Operation) -> Result<Request, CniError> {
    Ok(Request {
        protocol: PROTOCOL_VERSION,
        cni_version: config.version.as_str().into(),
        network: config.name()?.into(),
        args: std::collections::BTreeMap::new(),
        config: config.for_agent(),
        operation,
    })
}

/// Opens the pod's namespace; the file and the path that the runtime gave.
///
/// # Errors
/// Code 8 if it is gone, is no namespace, or is the one the plugin runs in (then the runtime has mixed up something, and the pod's routes
/// would end up on the node).
fn open_netns(parameters: &Parameters) -> Result<(File, String), CniError> {
    let path = parameters.netns.clone().unwrap_or_default();
    let bad = |what: &str, details: String| {
        let msg = format!("CNI_NETNS {path:?} {what}");
        CniError::new(ErrorCode::INVALID_NETNS, msg).with_details(details)
    };
    let file = File::open(&path).map_err(|error| {
        bad("cannot be opened; the sandbox is gone or the path is wrong", error.to_string())
    })?;
    let kind = fstatfs(&file).map_err(|errno| bad("cannot be looked at", errno.to_string()))?;
    if kind.filesystem_type() != NSFS_MAGIC {
        return Err(bad("is not a network namespace (an unmounted leftover?)", String::new()));
    }
    let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
    let own = File::open("/proc/self/ns/net").and_then(|file| identity(&file)).ok();
    if !parameters.netns_override && own.is_some() && own == identity(&file).ok() {
        return Err(bad(
            "is the namespace of the node itself; pods with host networking need no CNI call",
            String::new(),
        ));
    }
    Ok((file, path))
}

//! Commands in pods, through `pods/exec`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::AttachParams;
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

/// Why a command could not be run (its own failure is an [`Output`]).
#[derive(Debug, Error)]
pub enum ExecError {
    /// The API server refused the call or the connection broke.
    #[error("exec in pod {pod}")]
    Api {
        /// Name of the pod.
        pod: String,
        /// What the client library says.
        #[source]
        source: Box<kube::Error>,
    },
    /// A stream of the command broke.
    #[error("read the output of a command in pod {pod}")]
    Stream {
        /// Name of the pod.
        pod: String,
        /// What broke.
        #[source]
        source: std::io::Error,
    },
    /// It did not end in time.
    #[error("a command in pod {pod} did not end within {limit_s} s")]
    TimedOut {
        /// Name of the pod.
        pod: String,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// It ended and nobody said how.
    #[error("exec in pod {pod} ended without a status")]
    NoStatus {
        /// Name of the pod.
        pod: String,
    },
}

/// A pod's container that commands run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The first line of what it complained about, or of what it said.
    pub fn complaint(&self) -> String {
        let line = |text: &str| text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
        line(&self.stderr).or_else(|| line(&self.stdout)).unwrap_or_else(|| "no output".to_owned())
    }
}

/// Runs a command and waits for its end, at most `limit`.
pub async fn run(
    pods: &Api<Pod>,
    place: &Place,
    command: &[String],
    limit: Duration,
) -> Result<Output, ExecError> {
    let pod = || place.pod.clone();
    timeout(limit, run_to_end(pods, place, command))
        .await
        .unwrap_or_else(|_| Err(ExecError::TimedOut { pod: pod(), limit_s: limit.as_secs() }))
}

async fn run_to_end(pods: &Api<Pod>, place: &Place, command: &[String]) -> Result<Output, ExecError> {
    let pod = || place.pod.clone();
    let params = AttachParams::default().container(&place.container).stdin(false).stdout(true).stderr(true);
    let mut process = pods
        .exec(&place.pod, command, &params)
        .await
        .map_err(|source| ExecError::Api { pod: pod(), source: Box::new(source) })?;
    let status = process.take_status();
    let mut stdout = process.stdout().expect("stdout was asked for");
    let mut stderr = process.stderr().expect("stderr was asked for");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (read_out, read_err) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
    read_out.and(read_err).map_err(|source| ExecError::Stream { pod: pod(), source })?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let code = status.as_ref().and_then(exit_code).ok_or_else(|| ExecError::NoStatus { pod: pod() })?;
    Ok(Output {
        code,
        stdout: String::from_utf8_lossy(&out).into_owned(),
        stderr: String::from_utf8_lossy(&err).into_owned(),
    })
}

/// The exit code in the status that ends an exec session (`remotecommand`'s error channel).
pub fn exit_code(status: &Status) -> Option<i32> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let cause = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
    cause.message.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_found_in_the_status() {
        let status = |json: serde_json::Value| serde_json::from_value::<Status>(json).expect("a status");
        assert_eq!(exit_code(&status(serde_json::json!({"status": "Success"}))), Some(0));
        let failed = serde_json::json!({
            "status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with exit code 28",
            "details": {"causes": [{"reason": "ExitCode", "message": "28"}]},
        });
        assert_eq!(exit_code(&status(failed)), Some(28));
        let broken =
            serde_json::json!({"status": "Failure", "reason": "InternalError", "message": "no such file"});
        assert_eq!(exit_code(&status(broken)), None);
    }

    #[test]
    fn the_complaint_is_the_first_line_that_says_something() {
        let output = |stdout: &str, stderr: &str| {
            Output { code: 1, stdout: stdout.into(), stderr: stderr.into() }.complaint()
        };
        assert_eq!(output("x", "\n  curl: (28) timeout\nmore"), "curl: (28) timeout");
        assert_eq!(output("PING\n0 received", ""), "PING");
        assert_eq!(output("", " "), "no output");
    }
}

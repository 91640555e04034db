//! Packet captures made by `tcpdump` in pods, streamed back over `pods/exec` while a case runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::capture::{self, Capture};
use crate::exec::Place;

/// What tcpdump says on stderr when no later packet escapes it.
const READY: &str = "listening on";
const START_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// tcpdump runs in the background of a shell that waits for a line on its stdin: closing an exec session does not end
/// the process on every container runtime, and end of input does not reach it on older protocols; a line always does.
const SCRIPT: &str = r#"tcpdump -i "$0" -n -s 0 -U --immediate-mode -w - $1 & p=$!; read -r _; kill "$p" 2>/dev/null; wait "$p""#;

/// A capture that is being made.
pub struct Recorder {
    path: PathBuf,
    process: AttachedProcess,
    stdout: JoinHandle<std::io::Result<()>>,
    stderr: JoinHandle<String>,
}

impl Recorder {
    /// Starts tcpdump on a device of a pod (`any` for all) and returns when it listens.
    pub async fn start(
        pods: &Api<Pod>,
        place: &Place,
        device: &str,
        filter: &str,
        path: &Path,
    ) -> anyhow::Result<Self> {
        let command = ["sh", "-c", SCRIPT, device, filter];
        let params = AttachParams::default()
            .container(&place.container)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .max_stdout_buf_size(1 << 20);
        let started = timeout(START_LIMIT, pods.exec(&place.pod, command, &params)).await;
        let mut process =
            started.context("exec did not answer")?.with_context(|| format!("exec in pod {}", place.pod))?;
        let mut from = process.stdout().context("exec gave no stdout")?;
        let mut file =
            tokio::fs::File::create(path).await.with_context(|| format!("create {}", path.display()))?;
        let stdout = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let len = from.read(&mut buffer).await?;
                if len == 0 {
                    return file.flush().await;
                }
                file.write_all(&buffer[..len]).await?;
                // The checker reads the file while it grows.
                file.flush().await?;
            }
        });
        let mut errors = process.stderr().context("exec gave no stderr")?;
        let mut said = Vec::new();
        let ready = timeout(START_LIMIT, async {
            let mut byte = [0; 512];
            while !String::from_utf8_lossy(&said).contains(READY) {
                match errors.read(&mut byte).await {
                    Ok(0) | Err(_) => return false,
                    Ok(len) => said.extend_from_slice(&byte[..len]),
                }
            }
            true
        })
        .await;
        let text = String::from_utf8_lossy(&said).trim().to_owned();
        match ready {
            Ok(true) => {}
            Ok(false) => bail!("tcpdump in pod {} ended at once: {text}", place.pod),
            Err(_) => {
                bail!("tcpdump in pod {} did not start within {} s: {text}", place.pod, START_LIMIT.as_secs())
            }
        }
        let stderr = tokio::spawn(async move {
            let mut rest = Vec::new();
            let _: std::io::Result<usize> = errors.read_to_end(&mut rest).await;
            String::from_utf8_lossy(&rest).into_owned()
        });
        Ok(Self { path: path.to_owned(), process, stdout, stderr })
    }

    /// What has been captured until now.
    pub fn so_far(&self) -> Capture {
        capture::read_file(&self.path).unwrap_or_default()
    }

    /// Ends tcpdump, waits for the rest of its output and reads the file.
    pub async fn stop(mut self) -> anyhow::Result<Capture> {
        let mut stdin = self.process.stdin().context("exec gave no stdin")?;
        stdin.write_all(b"\n").await.context("tell tcpdump to stop")?;
        stdin.flush().await.context("tell tcpdump to stop")?;
        let written = timeout(STOP_LIMIT, &mut self.stdout).await.context("tcpdump did not end")?;
        written
            .context("the capture's writer failed")?
            .with_context(|| format!("write {}", self.path.display()))?;
        drop(stdin);
        let said =
            timeout(STOP_LIMIT, &mut self.stderr).await.context("tcpdump did not end")?.unwrap_or_default();
        if let Some(lost) = dropped_by_kernel(&said).filter(|lost| *lost > 0) {
            bail!("the capture is not whole: the kernel dropped {lost} packets before tcpdump saw them");
        }
        Ok(capture::read_file(&self.path)?)
    }
}

/// The number in tcpdump's closing words `N packets dropped by kernel`.
fn dropped_by_kernel(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("dropped by kernel"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_packets_are_read_from_the_closing_words() {
        let said = "\n5 packets captured\n5 packets received by filter\n2 packets dropped by kernel\n";
        assert_eq!(dropped_by_kernel(said), Some(2));
        assert_eq!(dropped_by_kernel("tcpdump: eth0: no such device"), None);
    }
}

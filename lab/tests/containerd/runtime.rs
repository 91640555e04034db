//! A containerd of its own inside a node of the lab.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::cgroup;
use lab::cluster::Node;

use super::cri::Cri;
use super::image::{self, PAUSE_IMAGE};

/// Where it lives inside the node: a tmpfs, on which an image's layers can lie.
const DIR: &str = "/run/containerd-test";

/// Gives containerd a view of the control groups like a real node's. The lab shows nodes one group without controllers, but runc wants to
/// set CPU shares. The mount namespace is containerd's own, so that nothing else in the node notices; that the agent therefore does not
/// see the network namespaces that containerd mounts is on purpose, too: it gets them as descriptors.
const START: &str = r#"
set -e
mount --make-rprivate /
umount /sys/fs/cgroup
# Controllers of version 1 with their hierarchies; those that share one are mounted together.
hierarchies=$(awk '!/^#/ && $2 > 0 && $4 == 1 { names[$2] = names[$2] (names[$2] ? "," : "") $1 } END { for (id in names) print names[id] }' /proc/cgroups)
if [ -z "$hierarchies" ]; then
  mount -t cgroup2 none /sys/fs/cgroup
else
  mount -t tmpfs none /sys/fs/cgroup
  for names in $hierarchies unified; do
    mkdir "/sys/fs/cgroup/$names"
    case "$names" in
    unified) mount -t cgroup2 none /sys/fs/cgroup/unified ;;
    *) mount -t cgroup -o "$names" none "/sys/fs/cgroup/$names" ;;
    esac
  done
fi
exec containerd --config "$1/config.toml"
"#;

/// containerd before 2.0 runs the reference plugin `loopback`; this one does the same in one line.
const LOOPBACK: &str = r#"#!/bin/sh
cat > /dev/null
case "$CNI_COMMAND" in
ADD)
  nsenter --net="$CNI_NETNS" ip link set lo up || exit 1
  echo '{"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"address":"127.0.0.1/8","interface":0}]}'
  ;;
esac
"#;

/// A running containerd. Dropping it ends it and removes its control groups.
pub(crate) struct Runtime {
    process: Child,
    log: PathBuf,
    cgroup: String,
}

impl Runtime {
    /// Starts it and imports the pause image.
    pub(crate) async fn start(node: &Node, scratch: &Path) -> io::Result<Self> {
        let dir = node.file(DIR);
        fs::create_dir_all(dir.join("bin"))?;
        write_program(&dir.join("bin/loopback"), LOOPBACK)?;
        // The plugin is the one that the node has; containerd takes a single directory of plugins.
        fs::copy(node.file("/opt/cni/bin/bristle-cni"), dir.join("bin/bristle-cni"))?;
        fs::write(dir.join("config.toml"), config())?;
        fs::copy(image::write(scratch)?, dir.join("pause.tar"))?;

        let log = scratch.join("containerd.log");
        let output = fs::File::create(&log)?;
        let started = node.machine().ns().run_blocking(move || {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", START, "sh", DIR]).current_dir("/").stdin(Stdio::null());
            command.stdout(output.try_clone()?).stderr(output).spawn()
        });
        let process = started.map_err(io::Error::other)??;
        let runtime = Self { process, log, cgroup: format!("/bristle-containerd-{}", std::process::id()) };
        runtime.wait_and_import(node).await?;
        Ok(runtime)
    }

    async fn wait_and_import(&self, node: &Node) -> io::Result<()> {
        let socket = format!("{DIR}/containerd.sock");
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let output = node.run(
                "ctr",
                &["-a", &socket, "-n", "k8s.io", "images", "import", &format!("{DIR}/pause.tar")],
            )?;
            if output.status.success() {
                return Ok(());
            }
            if Instant::now() > end {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(io::Error::other(format!("{text}\n{}", self.log())));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Connects to its CRI socket.
    pub(crate) async fn cri(&self, node: &Node) -> io::Result<Cri> {
        Cri::connect(&node.file(DIR).join("containerd.sock")).await
    }

    /// The control group for sandboxes.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// A file as containerd sees it.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.process.id()))
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Sandboxes that are left belong to the node's PID namespace and end with it; here only their groups matter.
        drop(self.process.kill());
        drop(self.process.wait());
        for hierarchy in hierarchies() {
            cgroup::remove(&hierarchy.join(self.cgroup.trim_start_matches('/')));
        }
    }
}

/// Where the control group hierarchies are mounted on the host, of both versions.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_line = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let kind = back.split(' ').next()?;
        let path = front.split(' ').nth(4)?;
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
    };
    mounts.lines().filter_map(of_line).collect()
}

fn write_program(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn config() -> String {
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE a negative value is refused and runc fails.
    format!(
        r#"
version = 2
root = "{DIR}/root"
state = "{DIR}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{DIR}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{DIR}/bin"
    conf_dir = "/etc/cni/net.d"
"#
    )
}

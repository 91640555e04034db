//! The programs as a container engine runs them: as process 1, in an image that has them and the libraries they are linked with,
//! and nothing else: no shell, no certificates, no `/etc/passwd`, no `/tmp`.
//!
//! Needs a Docker engine on this machine (`DOCKER_HOST`, else `/var/run/docker.sock`), the client `docker`, and the built programs.
//! No image is pulled: it is made here and imported.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic with its place")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lab::bins;
use serde_json::json;
use sim_api::kubeconfig::kubeconfig;
use sim_api::resource::{LEASES, PODS};
use sim_api::store::StoreOptions;
use sim_api::{Gr, ServerConfig, Store, WriteOptions};
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::core::{Mount, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};

const IDENTITIES: Gr = Gr::new("cilium.io", "ciliumidentities");
const PROGRAMS: [&str; 3] = ["bristle-agent", "bristle-cni", "bristle-operator"];
/// Repository of the imported images.
const NAME: &str = "bristle-test";
/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn docker(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("docker").args(arguments).output()
}

/// Why no container can be run here, if none can.
fn missing() -> Option<String> {
    let programs = bins::dir(None);
    if let Some(program) = PROGRAMS.into_iter().find(|program| !programs.join(program).is_file()) {
        return Some(format!("{} is not built", programs.join(program).display()));
    }
    if std::env::var("DOCKER_HOST").is_ok_and(|host| !host.starts_with("unix:")) {
        return Some("DOCKER_HOST is not an engine of this machine".to_owned());
    }
    match docker(&["version", "--format", "{{.Server.Version}}"]) {
        Err(error) => Some(format!("the client docker cannot be run: {error}")),
        Ok(output) if !output.status.success() => {
            Some(format!("no engine answers: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Ok(_) => None,
    }
}

/// An image in the engine, for as long as this lives.
struct Image {
    tag: String,
}

impl Image {
    /// `None` where no container can be run, said loudly.
    fn import(test: &str) -> Option<Self> {
        if let Some(reason) = missing() {
            let said =
                format!("the {test} in a container need a Docker engine and the built programs: {reason}");
            assert!(std::env::var_os("BRISTLE_REQUIRE_ALL").is_none(), "{said}");
            eprintln!("SKIPPED: {said}");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let mut files: BTreeSet<PathBuf> = BTreeSet::new();
        for program in PROGRAMS {
            let path = bins::dir(None).join(program);
            std::fs::copy(&path, root.path().join(program)).unwrap();
            files.extend(libraries(&path));
        }
        for file in files {
            let inside = root.path().join(file.strip_prefix("/").unwrap());
            std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
            std::fs::copy(&file, inside).unwrap();
        }
        let tag = format!("{test}-{}", std::process::id());
        let mut tar = Command::new("tar")
            .args(["--create", "--owner=0", "--group=0", "--directory"])
            .arg(root.path())
            .arg(".")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let imported = Command::new("docker")
            .args(["import", "-", &format!("{NAME}:{tag}")])
            .stdin(tar.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(tar.wait().unwrap().success());
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        Some(Self { tag })
    }

    fn program(&self, program: &str, wait: WaitFor) -> GenericImage {
        GenericImage::new(NAME, &self.tag).with_entrypoint(&format!("/{program}")).with_wait_for(wait)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Nobody misses a test's image that stays.
        drop(docker(&["image", "rm", "--force", &format!("{NAME}:{}", self.tag)]));
    }
}

/// What a program is linked with, the loader among it.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let path = |line: &str| {
        let place = line.rsplit_once("=> ").map_or(line, |(_, place)| place);
        place.split_whitespace().next().filter(|path| path.starts_with('/')).map(PathBuf::from)
    };
    String::from_utf8(output.stdout).unwrap().lines().filter_map(path).collect()
}

/// Runs a container to its end and returns what it wrote to standard output and to standard error.
async fn run(request: ContainerRequest<GenericImage>) -> (String, String) {
    let container = request.start().await.unwrap();
    written(&container).await
}

async fn written(container: &ContainerAsync<GenericImage>) -> (String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(container.stdout_to_vec().await.unwrap()), text(container.stderr_to_vec().await.unwrap()))
}

async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ended(code: i64) -> WaitFor {
    WaitFor::exit(ExitWaitStrategy::new().with_exit_code(code))
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_need_nothing_but_their_libraries_and_say_what_they_lack() {
    let Some(image) = Image::import("programs") else { return };
    for program in ["bristle-agent", "bristle-operator"] {
        let (out, _) = run(image.program(program, ended(0)).with_cmd(["--version"])).await;
        assert_eq!(out.trim(), format!("{program} {}", env!("CARGO_PKG_VERSION")));
    }
    let json = |out: String| -> serde_json::Value {
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("no JSON: {out}"))
    };
    let request = image.program("bristle-cni", ended(0)).with_env_var("CNI_COMMAND", "VERSION");
    let versions = json(run(request).await.0);
    assert!(versions["supportedVersions"].as_array().unwrap().contains(&json!("1.0.0")), "{versions}");
    // The specification wants errors as JSON on standard output.
    let request = image.program("bristle-cni", ended(1)).with_env_var("CNI_COMMAND", "ADD");
    let error = json(run(request).await.0);
    assert!(error["code"].is_u64() && error["msg"].is_string(), "{error}");
    // An agent without privileges says what it lacks and ends.
    let request = image.program("bristle-agent", ended(1)).with_cmd(["--node-name", "a"]);
    let (_, log) = run(request).await;
    assert!(log.contains("CAP_"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_works_in_a_container_and_gives_its_lease_back_when_that_is_stopped() {
    let Some(image) = Image::import("operators") else { return };
    let store = Store::new(StoreOptions::default());
    let server = ServerConfig::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let server = sim_api::server::start(store.clone(), server).unwrap();
    let pod = json!({
        "metadata": {"name": "a", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
    });
    store.create(&PODS, "default", pod, &WriteOptions::default()).unwrap();

    let config = tempfile::NamedTempFile::new().unwrap();
    // As every kubeconfig for TLS it has the authority whose certificates count: there are no others in the image.
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let authority =
        format!("certificate-authority-data: {}\n    server: ", BASE64_STANDARD.encode(authority));
    let text = kubeconfig("c", &server.url()).replace("server: ", &authority);
    std::fs::write(config.path(), text).unwrap();

    // The engine's containers in the network of this machine reach the server, as pods with `hostNetwork` do.
    let container = image
        .program("bristle-operator", WaitFor::message_on_stderr("identity created"))
        .with_network("host")
        .with_mount(Mount::bind_mount(config.path().to_str().unwrap(), "/kubeconfig"))
        .with_cmd(["--kubeconfig", "/kubeconfig", "--listen", "off"])
        .with_readonly_rootfs(true)
        .with_cap_drop("ALL")
        .with_startup_timeout(PATIENCE)
        .start()
        .await
        .unwrap();
    let identity = store.get(&IDENTITIES, "", "256").unwrap();
    assert_eq!(identity["security-labels"]["k8s:app"], "web");

    // As process 1 it gets no signal that it does not ask for; without the lease in hand another one would have to wait.
    let holder = |store: &Store| {
        store.get(&LEASES, "kube-system", "bristle-operator").unwrap()["spec"]["holderIdentity"].clone()
    };
    assert!(holder(&store).is_string());
    container.stop_with_timeout(Some(10)).await.unwrap();
    let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", container.id()]).unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&code).trim(), "0", "{}", written(&container).await.1);
    eventually("the lease", || holder(&store).is_null().then_some(())).await;
}

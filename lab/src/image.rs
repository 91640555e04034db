//! Built-in images: programs that pods run without any registry.
//!
//! An image is chosen by the name in the pod's spec. They run as process 1 of the container in this same binary.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use nix::sys::signal::SigSet;
use tokio::signal::unix::{SignalKind, signal};

pub mod dns;
pub mod echo;
pub mod http_echo;

use crate::container::Program;

/// What an image name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// HTTP server that tells what it was asked.
    HttpEcho,
    /// TCP, UDP and HTTP servers that send back what comes.
    Echo,
    /// Sleeps; commands are run in it.
    Client,
    /// Cluster DNS.
    Dns,
}

/// All built-in images: name without tag, what it is.
pub const IMAGES: [(&str, Image); 4] = [
    ("bristle/http-echo", Image::HttpEcho),
    ("bristle/echo", Image::Echo),
    ("bristle/client", Image::Client),
    ("bristle/dns", Image::Dns),
];

impl Image {
    /// Finds the image by the name in a pod's spec; tag, digest and the registry `docker.io` do not matter.
    pub fn by_name(name: &str) -> Option<Self> {
        let name = name.split('@').next().unwrap_or(name);
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        // A colon after the last slash starts the tag; one before it belongs to a registry's port.
        let name = match name.rsplit_once(':') {
            Some((front, tag)) if !tag.contains('/') => front,
            _ => name,
        };
        IMAGES.iter().find(|(known, _)| *known == name).map(|(_, image)| *image)
    }

    /// The program for `command` and `args` of the container's spec: a command replaces the image's own program, arguments
    /// alone are passed to it (as with an entry point).
    pub fn program(self, command: &[String], args: &[String]) -> Program {
        if !command.is_empty() {
            return Program::Command([command, args].concat());
        }
        let builtin = |name: &str| Program::Builtin([&[name.to_owned()], args].concat());
        match self {
            Self::HttpEcho => builtin("http-echo"),
            Self::Echo => builtin("echo"),
            Self::Dns => builtin("dns"),
            Self::Client if args.is_empty() => builtin("client"),
            Self::Client => Program::Command(args.to_vec()),
        }
    }
}

/// The message of a pod whose image does not exist.
pub fn unknown_image(name: &str) -> String {
    let known: Vec<&str> = IMAGES.iter().map(|(name, _)| *name).collect();
    format!(
        "there is no image \"{name}\" in a lab, and nothing is pulled; the built-in images are {}, and `command` runs programs of this machine in them",
        known.join(", ")
    )
}

#[derive(Debug, Parser)]
#[command(name = "image", no_binary_name = true)]
enum Builtin {
    /// HTTP server that tells what it was asked
    HttpEcho(http_echo::Options),
    /// TCP, UDP and HTTP servers that send back what comes
    Echo(echo::Options),
    /// Sleeps until it is told to end
    Client,
    /// Cluster DNS
    Dns(dns::Options),
}

/// Runs a built-in image until SIGTERM or SIGINT.
pub fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let builtin = match Builtin::try_parse_from(args) {
        Ok(builtin) => builtin,
        Err(e) => {
            eprintln!("{e}");
            return Ok(ExitCode::from(2));
        }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
        // Blocked since the start of the container, so that none is lost before there are handlers.
        SigSet::all().thread_unblock().context("unblock signals")?;
        let linger = match &builtin {
            Builtin::Echo(options) => options.linger(),
            _ => Duration::ZERO,
        };
        let end = async {
            let signal = terminate.recv().await;
            tokio::time::sleep(linger).await;
            signal
        };
        let work = async {
            match builtin {
                Builtin::HttpEcho(options) => http_echo::serve(&options).await,
                Builtin::Echo(options) => echo::serve(&options).await,
                Builtin::Client => std::future::pending().await,
                Builtin::Dns(options) => dns::serve(&options).await,
            }
        };
        tokio::select! {
            result = work => result.map(|()| ExitCode::SUCCESS),
            _ = end => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
        }
    })
}

/// Binds `[::]:port`, which takes IPv4 too, or `0.0.0.0:port` where the pod has no IPv6.
pub(crate) async fn listen_tcp(port: u16) -> anyhow::Result<tokio::net::TcpListener> {
    let any6 = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    let any4 = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port));
    match tokio::net::TcpListener::bind(any6).await {
        Ok(listener) => Ok(listener),
        Err(_) => tokio::net::TcpListener::bind(any4).await.with_context(|| format!("listen on port {port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_digests_and_the_default_registry_do_not_matter() {
        for name in [
            "bristle/client",
            "bristle/client:1.2",
            "docker.io/bristle/client:latest",
            "bristle/client@sha256:00",
        ] {
            assert_eq!(Image::by_name(name), Some(Image::Client), "{name}");
        }
        for name in ["client", "nginx:latest", "other:5000/bristle/client", ""] {
            assert_eq!(Image::by_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_command_replaces_the_program_and_arguments_are_passed_to_it() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let echo = Image::HttpEcho;
        assert_eq!(
            echo.program(&[], &words(&["--port", "80"])),
            Program::Builtin(words(&["http-echo", "--port", "80"]))
        );
        assert_eq!(
            echo.program(&words(&["sleep"]), &words(&["1"])),
            Program::Command(words(&["sleep", "1"]))
        );
        assert_eq!(
            Image::Client.program(&[], &words(&["sleep", "1"])),
            Program::Command(words(&["sleep", "1"]))
        );
    }
}

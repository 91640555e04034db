//! `bristle-lab`: clusters on this machine, for people.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lab::container::{attach, init, shim};
use lab::machine;

#[derive(Debug, Parser)]
#[command(name = "bristle-lab", version, about = "Clusters on this machine: real agents, real CNI calls, real eBPF")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// First process of a machine (internal)
    #[command(hide = true)]
    NodeInit,
    /// Starts and watches a container (internal)
    #[command(hide = true)]
    Shim,
    /// First process of a container (internal)
    #[command(hide = true)]
    ContainerInit,
    /// Runs a program in the namespaces of a process (internal)
    #[command(hide = true)]
    NodeExec(attach::Target),
    /// Second half of node-exec (internal)
    #[command(hide = true)]
    ExecInner {
        #[arg(long)]
        tty: bool,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Try (temporary)
    Try,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::NodeInit => machine::init::main().map(|()| ExitCode::SUCCESS),
        Command::Shim => shim::main(),
        Command::ContainerInit => init::main(),
        Command::NodeExec(target) => attach::outer(&target),
        Command::ExecInner { tty, command } => attach::inner(tty, &command),
        Command::Try => {
            tracing_subscriber::fmt().init();
            let rt = tokio::runtime::Runtime::new().unwrap();
            rt.block_on(async {
                let t = std::time::Instant::now();
                let c = lab::Cluster::builder().nodes(3).build().await?;
                println!("{:?}", t.elapsed());
                for (p, a) in [("ping", vec!["-c2", "-i0.2", "node-2"]), ("ping", vec!["-6", "-c2", "-i0.2", "node-3"]), ("curl", vec!["-s", "http://two.outside.test/"]),("sh",vec!["-c","hostname; ls /sys/fs/cgroup /sys/fs/bpf; ps ax; ip a; mount | tail -20; ls -la /etc/cni /opt/bristle/bin | head"])] {
                    let o = c.nodes()[0].run(p, &a)?;
                    println!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
                }
                let t = std::time::Instant::now();
                drop(c);
                println!("{:?}", t.elapsed());
                Ok(ExitCode::SUCCESS)
            })
        }
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

//! The programs: one for each hook, each a straight list of stages.

use dataplane_abi::config::NodeConfig;
use dataplane_abi::program::{Program, SocketProgram};

use crate::flight::Route;
use crate::host::Host;
use crate::report;
use crate::socket::{SocketHost, SocketVerdict};
use crate::verdict::{Step, Verdict};

pub mod from_container;
pub mod from_host;
pub mod from_netdev;
pub mod from_overlay;
pub mod sock_bind;
pub mod sock_connect;
pub mod sock_getpeername;
pub mod sock_recvmsg;
pub mod sock_sendmsg;
pub mod to_container;
pub mod to_netdev;
pub mod watch;

pub use from_container::from_container;
pub use from_host::from_host;
pub use from_netdev::from_netdev;
pub use from_overlay::from_overlay;
pub use sock_bind::sock_bind;
pub use sock_connect::sock_connect;
pub use sock_getpeername::sock_getpeername;
pub use sock_recvmsg::sock_recvmsg;
pub use sock_sendmsg::sock_sendmsg;
pub use to_container::to_container;
pub use to_netdev::to_netdev;
pub use watch::to_host;

/// Runs a program by name. For hosts that choose at run time; the kernel's has an entry point for each.
pub fn run<H: Host>(program: Program, host: H) -> Verdict {
    match program {
        Program::FromContainer => from_container(host),
        Program::ToContainer => to_container(host),
        Program::FromOverlay => from_overlay(host),
        Program::FromNetdev => from_netdev(host),
        Program::ToNetdev => to_netdev(host),
        Program::FromHost => from_host(host),
        Program::ToHost => to_host(host),
    }
}

/// Runs a program on calls of sockets by name, likewise.
pub fn run_socket<H: SocketHost>(program: SocketProgram, host: H) -> SocketVerdict {
    match program {
        SocketProgram::Connect4 | SocketProgram::Connect6 => sock_connect(host),
        SocketProgram::Sendmsg4 | SocketProgram::Sendmsg6 => sock_sendmsg(host),
        SocketProgram::Recvmsg4 | SocketProgram::Recvmsg6 => {
            sock_recvmsg(host);
            SocketVerdict::Pass
        }
        SocketProgram::Getpeername4 | SocketProgram::Getpeername6 => {
            sock_getpeername(host);
            SocketVerdict::Pass
        }
        SocketProgram::Bind4 | SocketProgram::Bind6 => sock_bind(host),
    }
}

/// What every packet program has around its stages: the node's configuration before, counters and events after.
/// A node that is not configured yet forwards by its stack alone.
#[inline(always)]
fn with_config<H: Host, const PROGRAM: u8>(
    host: H,
    stages: impl FnOnce(&NodeConfig, &mut Route) -> Step,
) -> Verdict {
    match host.config() {
        Some(config) if config.abi_version == dataplane_abi::ABI_VERSION => {
            let mut route = Route::NONE;
            let step = stages(config, &mut route);
            report::finish::<H, PROGRAM>(host, config, step, &route)
        }
        _ => Verdict::Skip,
    }
}

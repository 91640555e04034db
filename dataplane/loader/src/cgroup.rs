//! Programs on calls of sockets: on a cgroup, for all processes in it and below, put there, replaced and taken away without
//! missing a call.
//!
//! Each is a link that is pinned under the program's name below [`Pins::links`]; an attach that finds the pin updates the link
//! in place. Programs of others on the cgroup, or above and below it, run as well.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya_obj::generated::{bpf_attach_type, bpf_link_type};
use dataplane_abi::program::SocketProgram;
use nix::libc;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use thiserror::Error;

use crate::attach::Attached;
use crate::object::Object;
use crate::pins::Pins;
use crate::sys;

/// One program that is attached, as [`list`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAttachment {
    /// The program.
    pub program: SocketProgram,
    /// The kernel's id of it.
    pub program_id: u32,
    /// The kernel's id of the cgroup; `None` when the cgroup is gone, and with it the attachment: only the pin is left.
    pub cgroup_id: Option<u64>,
}

/// Why a program on calls of sockets was not attached or taken away.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The path is no directory of a version 2 hierarchy.
    #[error("attach to {path}: it is no cgroup of version 2; mount one with `mount -t cgroup2 none PATH`")]
    NoCgroup {
        /// The path.
        path: PathBuf,
    },
    /// The object has no such program.
    #[error("attach {program} to {path}: the object has no such program")]
    NoProgram {
        /// Program name.
        program: &'static str,
        /// Where it should go.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("attach {program} to {path}: {operation}")]
    Kernel {
        /// Program name.
        program: &'static str,
        /// Where it should go.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Detaching failed.
    #[error("detach {program}")]
    Detach {
        /// Program name.
        program: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Is the path a directory of a version 2 hierarchy?
pub fn is_cgroup(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

const fn attach_type(program: SocketProgram) -> bpf_attach_type {
    match program {
        SocketProgram::Connect4 => bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
        SocketProgram::Connect6 => bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
        SocketProgram::Sendmsg4 => bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG,
        SocketProgram::Sendmsg6 => bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG,
        SocketProgram::Recvmsg4 => bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG,
        SocketProgram::Recvmsg6 => bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG,
        SocketProgram::Getpeername4 => bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
        SocketProgram::Getpeername6 => bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
        SocketProgram::Bind4 => bpf_attach_type::BPF_CGROUP_INET4_BIND,
        SocketProgram::Bind6 => bpf_attach_type::BPF_CGROUP_INET6_BIND,
    }
}

/// A pinned link, opened.
struct OldLink {
    fd: OwnedFd,
    program_id: u32,
    /// Zero when the cgroup is gone.
    cgroup_id: u64,
}

fn open_pin(path: &Path) -> Option<OldLink> {
    let fd = sys::obj_get(path).ok()?;
    let info = sys::link_info(fd.as_fd()).ok()?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        return None;
    }
    // SAFETY: the link is one of a cgroup, so the kernel filled this variant; it is plain data.
    let cgroup_id = unsafe { info.__bindgen_anon_1.cgroup.cgroup_id };
    Some(OldLink { fd, program_id: info.prog_id, cgroup_id })
}

/// Removes the name of a link, if it has one.
fn remove_pin(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes a link off its cgroup. One whose cgroup is gone is off.
fn take_off(link: &OldLink) -> io::Result<()> {
    match sys::link_detach(link.fd.as_fd()) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV)) => Err(error),
        _ => Ok(()),
    }
}

impl Object {
    /// Puts a program on the cgroup at `path`, in place of the one of ours that may be there or on another cgroup.
    ///
    /// Safe to repeat; a call meets either the old or the new program, never none. The attachment outlives this process:
    /// it ends with [`detach`] or with the cgroup.
    pub fn attach_socket(
        &self,
        pins: &Pins,
        program: SocketProgram,
        path: &Path,
    ) -> Result<Attached, CgroupError> {
        let name = program.name();
        let failed = |operation| {
            let path = path.to_owned();
            move |source| CgroupError::Kernel { program: name, path, operation, source }
        };
        if !is_cgroup(path) {
            return Err(CgroupError::NoCgroup { path: path.to_owned() });
        }
        let loaded = self
            .socket_program(name)
            .ok_or_else(|| CgroupError::NoProgram { program: name, path: path.to_owned() })?;
        let fd = loaded.fd().map_err(|error| failed("the program is not loaded")(io::Error::other(error)))?;
        let own = sys::prog_info(fd.as_fd()).map_err(failed("read the program's id"))?;
        pins.create().map_err(failed("make the pin directory"))?;
        let cgroup = File::open(path).map_err(failed("open the cgroup"))?;
        // The kernel numbers the directories of a hierarchy as it numbers its cgroups.
        let cgroup_id = cgroup.metadata().map_err(failed("read the cgroup's id"))?.ino();

        let pin = pins.socket_link(program);
        let mut places = vec![pin.clone()];
        places.extend(pins.older_socket_links(program));
        let found: Vec<(PathBuf, OldLink)> =
            places.into_iter().filter_map(|place| open_pin(&place).map(|link| (place, link))).collect();
        for (place, old) in found.iter().filter(|(_, old)| old.cgroup_id == cgroup_id) {
            if old.program_id == own.id && *place == pin {
                return Ok(Attached::Unchanged);
            }
            match sys::link_update(old.fd.as_fd(), fd.as_fd()) {
                Ok(()) => {
                    if *place != pin {
                        remove_pin(&pin).map_err(failed("remove a stale pin"))?;
                        sys::obj_pin(old.fd.as_fd(), &pin).map_err(failed("pin the link"))?;
                        remove_pin(place).map_err(failed("remove the older pin"))?;
                    }
                    return Ok(Attached::Replaced);
                }
                // The cgroup went between the two calls.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
                Err(error) => return Err(failed("update the link")(error)),
            }
        }
        let link = sys::cgroup_link_create(fd.as_fd(), cgroup.as_fd(), attach_type(program) as u32)
            .map_err(failed("create the link"))?;
        // Those on other cgroups go when the new one is there; a call that meets both is changed by one of them only.
        for (place, old) in &found {
            remove_pin(place).map_err(failed("remove the older pin"))?;
            take_off(old).map_err(failed("take the older program off"))?;
        }
        remove_pin(&pin).map_err(failed("remove a stale pin"))?;
        sys::obj_pin(link.as_fd(), &pin).map_err(failed("pin the link"))?;
        Ok(if found.is_empty() { Attached::New } else { Attached::Replaced })
    }
}

/// Takes our program off its cgroup. True when one was there.
pub fn detach(pins: &Pins, program: SocketProgram) -> Result<bool, CgroupError> {
    let failed = |source| CgroupError::Detach { program: program.name(), source };
    let mut places = vec![pins.socket_link(program)];
    places.extend(pins.older_socket_links(program));
    let mut was_there = false;
    for place in places {
        if let Some(link) = open_pin(&place) {
            take_off(&link).map_err(failed)?;
            was_there = true;
        }
        remove_pin(&place).map_err(failed)?;
    }
    Ok(was_there)
}

/// Every program that has a pin, in the order of [`SocketProgram::ALL`].
pub fn list(pins: &Pins) -> Vec<SocketAttachment> {
    let attachment = |program: SocketProgram| {
        let link = open_pin(&pins.socket_link(program))?;
        let cgroup_id = (link.cgroup_id != 0).then_some(link.cgroup_id);
        Some(SocketAttachment { program, program_id: link.program_id, cgroup_id })
    };
    SocketProgram::ALL.into_iter().filter_map(attachment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_no_hierarchy() {
        assert!(!is_cgroup(Path::new("/proc")));
    }
}

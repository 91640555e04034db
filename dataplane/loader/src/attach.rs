//! Hooks: a program on one direction of a device, put there, replaced and taken away without missing a packet.
//!
//! From kernel 6.6 on a hook is a TCX link that is pinned below [`Pins::links`]; an attach that finds the pin updates
//! the link in place. Before, it is a filter in direct-action mode on the `clsact` qdisc, always with the same priority
//! and handle, which the kernel replaces in one step; the program itself is pinned under the link's name then, so that
//! the directory always tells what is attached where.
//!
//! Devices are looked up by name in the calling thread's network namespace.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use aya::programs::tc::{
    NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcAttachType, TcError, TcHandle,
    qdisc_add_clsact, qdisc_detach_program,
};
use aya_obj::generated::{bpf_attach_type, bpf_link_type};
use nix::libc;
use thiserror::Error;

use crate::object::Object;
use crate::pins::{Pins, parse_link_name};
use crate::{probe, sys};

/// Priority of our filter on a clsact qdisc: the first one.
const FILTER_PRIORITY: u16 = 1;
/// Handle of our filter at that priority.
const FILTER_HANDLE: u16 = 1;

/// Which way packets pass the device, from the node's view of it: ingress is what the device delivers to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Packets that come from the device.
    Ingress,
    /// Packets that leave through the device.
    Egress,
}

impl Direction {
    fn tc(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    fn tcx(self) -> u32 {
        match self {
            Self::Ingress => bpf_attach_type::BPF_TCX_INGRESS as u32,
            Self::Egress => bpf_attach_type::BPF_TCX_EGRESS as u32,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl FromStr for Direction {
    type Err = UnknownDirection;

    fn from_str(text: &str) -> Result<Self, UnknownDirection> {
        match text {
            "ingress" => Ok(Self::Ingress),
            "egress" => Ok(Self::Egress),
            _ => Err(UnknownDirection(text.to_owned())),
        }
    }
}

/// A direction that is neither "ingress" nor "egress".
#[derive(Debug, Error)]
#[error("{0} is no direction, use ingress or egress")]
pub struct UnknownDirection(String);

/// Where a program goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hook {
    /// Device name.
    pub device: String,
    /// Direction on the device.
    pub direction: Direction,
}

impl Hook {
    /// The ingress side of a device.
    pub fn ingress(device: impl Into<String>) -> Self {
        Self { device: device.into(), direction: Direction::Ingress }
    }

    /// The egress side of a device.
    pub fn egress(device: impl Into<String>) -> Self {
        Self { device: device.into(), direction: Direction::Egress }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.device, self.direction)
    }
}

/// By which mechanism programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookKind {
    /// TCX links (kernel 6.6 and later).
    Tcx,
    /// Filters on the clsact qdisc.
    Clsact,
}

impl HookKind {
    /// The best mechanism of the running kernel.
    pub fn of_kernel() -> Self {
        if probe::kernel_version().is_some_and(|version| version >= (6, 6)) {
            Self::Tcx
        } else {
            Self::Clsact
        }
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// How an attach was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Nothing of ours was there.
    New,
    /// Our older program was replaced in one step.
    Replaced,
    /// Exactly this program was attached already.
    Unchanged,
}

/// One hook that is in use, as [`list`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Where.
    pub hook: Hook,
    /// By which mechanism.
    pub kind: HookKind,
    /// Name of the program (the kernel's, at most 15 characters).
    pub program: String,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// The device's index; `None` when the device is gone, and with it the attachment: only the pin is left.
    pub ifindex: Option<u32>,
}

/// Why attaching or detaching failed.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The object has no such program.
    #[error("attach {program} to {hook}: the object has no such program")]
    NoProgram {
        /// Program name.
        program: String,
        /// Where it should go.
        hook: Hook,
    },
    /// There is no such device in this network namespace.
    #[error("attach {program} to {hook}: no such device")]
    NoDevice {
        /// Program name.
        program: String,
        /// Where it should go.
        hook: Hook,
    },
    /// The kernel refused.
    #[error("attach {program} to {hook}: {operation}")]
    Kernel {
        /// Program name.
        program: String,
        /// Where it should go.
        hook: Hook,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Detaching failed.
    #[error("detach {hook}")]
    Detach {
        /// Where.
        hook: Hook,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl AttachError {
    /// True when the device is not there (any more), which a caller may take for done.
    pub fn is_no_device(&self) -> bool {
        match self {
            Self::NoDevice { .. } => true,
            Self::Kernel { source, .. } | Self::Detach { source, .. } => {
                source.raw_os_error() == Some(libc::ENODEV)
            }
            Self::NoProgram { .. } => false,
        }
    }
}

/// The index of a device in this network namespace.
pub fn ifindex(device: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(device).ok()
}

/// The pinned link of a hook, opened.
struct OldLink {
    fd: OwnedFd,
    program_id: u32,
    ifindex: u32,
    kind: HookKind,
}

fn open_pin(path: &Path) -> Option<OldLink> {
    let fd = sys::obj_get(path).ok()?;
    if let Ok(info) = sys::link_info(fd.as_fd())
        && info.type_ == bpf_link_type::BPF_LINK_TYPE_TCX as u32
    {
        return Some(OldLink {
            fd,
            program_id: info.prog_id,
            ifindex: tcx_ifindex(&info),
            kind: HookKind::Tcx,
        });
    }
    // Not a link: the pin of a program that a filter holds.
    let info = sys::prog_info(fd.as_fd()).ok()?;
    Some(OldLink { fd, program_id: info.id, ifindex: 0, kind: HookKind::Clsact })
}

fn tcx_ifindex(info: &aya_obj::generated::bpf_link_info) -> u32 {
    // SAFETY: the caller has checked that the link is a TCX one, so the kernel filled this variant; it is plain data.
    unsafe { info.__bindgen_anon_1.tcx.ifindex }
}

/// The kernel's cut names are compared as far as they go.
fn kernel_name(raw: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = raw.iter().map(|&c| c.to_ne_bytes()[0]).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Object {
    /// Puts the program `program` on `hook`, in place of the program of ours that may be there.
    ///
    /// Safe to repeat; a packet meets either the old or the new program, never none. The attachment outlives this
    /// process: it ends with [`detach`] or with the device.
    pub fn attach(&mut self, pins: &Pins, program: &str, hook: &Hook) -> Result<Attached, AttachError> {
        self.attach_by(pins, program, hook, HookKind::of_kernel())
    }

    /// [`Object::attach`] by a mechanism of the caller's choice.
    pub fn attach_by(
        &mut self,
        pins: &Pins,
        program: &str,
        hook: &Hook,
        kind: HookKind,
    ) -> Result<Attached, AttachError> {
        let failed = |operation: &'static str| {
            let (program, hook) = (program.to_owned(), hook.clone());
            move |source: io::Error| AttachError::Kernel { program, hook, operation, source }
        };
        let ifindex = ifindex(&hook.device)
            .ok_or_else(|| AttachError::NoDevice { program: program.to_owned(), hook: hook.clone() })?;
        pins.create().map_err(failed("make the pin directory"))?;
        let classifier = self
            .classifier_mut(program)
            .ok_or_else(|| AttachError::NoProgram { program: program.to_owned(), hook: hook.clone() })?;
        match kind {
            HookKind::Tcx => attach_tcx(classifier, pins, hook, ifindex)
                .map_err(|(operation, source)| failed(operation)(source)),
            HookKind::Clsact => {
                attach_clsact(classifier, pins, hook).map_err(|(operation, source)| failed(operation)(source))
            }
        }
    }
}

type Step<T> = Result<T, (&'static str, io::Error)>;

fn step<T>(operation: &'static str, result: io::Result<T>) -> Step<T> {
    result.map_err(|error| (operation, error))
}

fn attach_tcx(program: &SchedClassifier, pins: &Pins, hook: &Hook, ifindex: u32) -> Step<Attached> {
    let fd = program.fd().map_err(|error| ("the program is not loaded", io::Error::other(error)))?;
    let own = sys::prog_info(fd.as_fd()).map_err(|error| ("read the program's id", error))?;
    let pin = pins.link(&hook.device, hook.direction);
    let mut places = vec![pin.clone()];
    places.extend(pins.older_links(&hook.device, hook.direction));
    for place in places {
        let Some(old) = open_pin(&place) else {
            continue;
        };
        // A link whose device is gone reports index 0, one of an older device of this name another index.
        if old.kind == HookKind::Tcx && old.ifindex == ifindex {
            if old.program_id == own.id && place == pin {
                return Ok(Attached::Unchanged);
            }
            match sys::link_update(old.fd.as_fd(), fd.as_fd()) {
                Ok(()) => {
                    if place != pin {
                        step("pin the link", sys::obj_pin(old.fd.as_fd(), &pin))?;
                        step("remove the older pin", std::fs::remove_file(&place))?;
                    }
                    return Ok(Attached::Replaced);
                }
                // The device went between the two calls.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
                Err(error) => return Err(("update the link", error)),
            }
        }
        step("remove a stale pin", std::fs::remove_file(&place))?;
    }
    let link = step("create the link", sys::tcx_link_create(fd.as_fd(), ifindex, hook.direction.tcx()))?;
    step("pin the link", sys::obj_pin(link.as_fd(), &pin))?;
    Ok(Attached::New)
}

fn attach_clsact(program: &mut SchedClassifier, pins: &Pins, hook: &Hook) -> Step<Attached> {
    match qdisc_add_clsact(&hook.device) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(error) => {
            let error = io_error(error);
            if error.raw_os_error() != Some(libc::EEXIST) {
                return Err(("add the clsact qdisc", error));
            }
        }
    }
    let options =
        || NlOptions { priority: FILTER_PRIORITY, handle: TcHandle::new(0, FILTER_HANDLE), classid: None };
    let created =
        program.attach_with_options(&hook.device, hook.direction.tc(), TcAttachOptions::Netlink(options()));
    let (link, how) = if let Ok(link) = created {
        (link, Attached::New)
    } else {
        // Something has our place: replace it.
        let old = step(
            "find the filter",
            SchedClassifierLink::attached(
                &hook.device,
                hook.direction.tc(),
                FILTER_PRIORITY,
                TcHandle::new(0, FILTER_HANDLE),
                None,
            ),
        )?;
        let link = program.attach_to_link(old).map_err(|error| ("replace the filter", io_error(error)))?;
        (link, Attached::Replaced)
    };
    // aya would take the filter away when the handle is dropped; it is to stay.
    let link = program.take_link(link).map_err(|error| ("keep the filter", io_error(error)))?;
    #[expect(clippy::mem_forget, reason = "a filter has no pin: not dropping the handle is how it stays")]
    std::mem::forget(link);
    let pin = pins.link(&hook.device, hook.direction);
    let _ = std::fs::remove_file(&pin);
    let fd = program.fd().map_err(|error| ("the program is not loaded", io::Error::other(error)))?;
    step("pin the program", sys::obj_pin(fd.as_fd(), &pin))?;
    for place in pins.older_links(&hook.device, hook.direction) {
        step("remove the older pin", std::fs::remove_file(&place))?;
    }
    Ok(how)
}

/// The operating system's error inside one of aya's, so that its number survives.
fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && let Some(number) = io.raw_os_error()
        {
            return io::Error::from_raw_os_error(number);
        }
        cause = inner.source();
    }
    io::Error::other(error)
}

/// Takes our program off a hook. True when one was there. A device that is gone is fine: only the pin is removed.
pub fn detach(pins: &Pins, hook: &Hook) -> Result<bool, AttachError> {
    let failed = |source| AttachError::Detach { hook: hook.clone(), source };
    let pin = pins.link(&hook.device, hook.direction);
    let Some(old) = open_pin(&pin) else {
        return Ok(false);
    };
    match old.kind {
        HookKind::Tcx => match sys::link_detach(old.fd.as_fd()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            Err(error) => return Err(failed(error)),
        },
        HookKind::Clsact => {
            if ifindex(&hook.device).is_some() {
                let info = sys::prog_info(old.fd.as_fd()).map_err(failed)?;
                let name = kernel_name(&info.name);
                match qdisc_detach_program(&hook.device, hook.direction.tc(), &name) {
                    Ok(()) => {}
                    Err(error) => {
                        let error = io_error(error);
                        if error.kind() != io::ErrorKind::NotFound {
                            return Err(failed(error));
                        }
                    }
                }
            }
        }
    }
    std::fs::remove_file(&pin).map_err(failed)?;
    Ok(true)
}

/// Every hook that has a pin, in the order of device names, including those whose device is gone.
pub fn list(pins: &Pins) -> io::Result<Vec<Attachment>> {
    let entries = match std::fs::read_dir(pins.links()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some((device, direction)) = entry.file_name().to_str().and_then(parse_link_name) else {
            continue;
        };
        let Some(link) = open_pin(&entry.path()) else {
            continue;
        };
        let program = sys::prog_by_id(link.program_id)
            .and_then(|fd| sys::prog_info(fd.as_fd()))
            .map(|info| kernel_name(&info.name))
            .unwrap_or_default();
        let ifindex = match link.kind {
            HookKind::Tcx => (link.ifindex != 0).then_some(link.ifindex),
            HookKind::Clsact => ifindex(&device),
        };
        found.push(Attachment {
            hook: Hook { device, direction },
            kind: link.kind,
            program,
            program_id: link.program_id,
            ifindex,
        });
    }
    found.sort_by(|a, b| a.hook.cmp(&b.hook));
    Ok(found)
}

/// Removes the pins of hooks whose device is gone; returns them.
pub fn prune(pins: &Pins) -> Result<Vec<Hook>, AttachError> {
    let mut gone = Vec::new();
    let all = list(pins).map_err(|source| AttachError::Detach { hook: Hook::ingress("*"), source })?;
    for attachment in all {
        if attachment.ifindex.is_none() {
            detach(pins, &attachment.hook)?;
            gone.push(attachment.hook);
        }
    }
    Ok(gone)
}

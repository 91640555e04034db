//! Kernel settings below /proc/sys.
//!
//! Keys are written with slashes (`net/ipv4/ip_forward`), because a device's name may hold a dot.
//! Those below `net/` belong to the network namespace of the calling thread: set another namespace's inside [`crate::Netns::run`].

use std::fs;
use std::io;
use std::path::Path;

/// A setting that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} sysctl {key}")]
pub struct SysctlError {
    /// `read` or `write`, with the value.
    pub operation: String,
    /// The key.
    pub key: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl SysctlError {
    /// True if this kernel (or this device) has no such setting, such as those of IPv6 where it is switched off at boot.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Reads a setting, without the line's end.
///
/// # Errors
/// When it does not exist or may not be read.
pub fn read(key: &str) -> Result<String, SysctlError> {
    fs::read_to_string(Path::new("/proc/sys").join(key))
        .map(|text| text.trim_end().to_owned())
        .map_err(|source| SysctlError { operation: "read".into(), key: key.into(), source })
}

/// Sets a value.
///
/// # Errors
/// When it does not exist or may not be written.
pub fn write(key: &str, value: &str) -> Result<(), SysctlError> {
    fs::write(Path::new("/proc/sys").join(key), value).map_err(|source| SysctlError {
        operation: format!("write {value} to"),
        key: key.into(),
        source,
    })
}

/// Sets a value unless it is set already, so that a read-only /proc/sys is no obstacle where an administrator has prepared everything.
/// True if it was changed.
///
/// # Errors
/// As of [`read`] and [`write`].
pub fn ensure(key: &str, value: &str) -> Result<bool, SysctlError> {
    if read(key)? == value {
        return Ok(false);
    }
    write(key, value)?;
    Ok(true)
}

/// True if the kernel has IPv6 and it is not switched off altogether (`ipv6.disable=1`).
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").is_dir()
}

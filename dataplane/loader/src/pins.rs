//! Where a node's maps and links are pinned: `<bpffs>/bristle/v<ABI>/<NAME>`, `…/links/<device>-<direction>` and, of programs on
//! calls of sockets, `…/links/<program>`.

use std::io;
use std::path::{Path, PathBuf};

use dataplane_abi::program::SocketProgram;

use crate::attach::Direction;

/// The directory below a bpffs that one ABI version of the dataplane keeps its pins in.
///
/// Pins of different ABI versions live side by side, so that a new agent can be put in place before the old one's
/// tables go: an attach takes over the link that another version has pinned for its hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    base: PathBuf,
    version: u32,
}

impl Pins {
    /// Pins below `<bpffs>/bristle/v<ABI version>`. Nothing is touched yet.
    pub fn new(bpffs: &Path) -> Self {
        Self { base: bpffs.join("bristle"), version: dataplane_abi::ABI_VERSION }
    }

    /// The same place for another ABI version (migration and its tests).
    #[must_use]
    pub fn with_version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The directory of this ABI version.
    pub fn dir(&self) -> PathBuf {
        self.base.join(format!("v{}", self.version))
    }

    /// Where the map `name` is pinned.
    pub fn table(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The directory of the link pins.
    pub fn links(&self) -> PathBuf {
        self.dir().join("links")
    }

    /// Where the link of a device and a direction is pinned.
    pub fn link(&self, device: &str, direction: Direction) -> PathBuf {
        self.links().join(link_name(device, direction))
    }

    /// Where the link of a program on calls of sockets is pinned.
    pub fn socket_link(&self, program: SocketProgram) -> PathBuf {
        self.links().join(program.name())
    }

    /// Makes the directories.
    pub fn create(&self) -> io::Result<()> {
        std::fs::create_dir_all(self.links())
    }

    /// Link pins that other ABI versions hold for this device and direction: an attach takes them over, so that the
    /// change of version is one atomic update of the link as well.
    pub(crate) fn older_links(&self, device: &str, direction: Direction) -> Vec<PathBuf> {
        self.older(&link_name(device, direction))
    }

    /// As [`Pins::older_links`], for a program on calls of sockets.
    pub(crate) fn older_socket_links(&self, program: SocketProgram) -> Vec<PathBuf> {
        self.older(program.name())
    }

    /// Pins of this name that other ABI versions have among their links.
    fn older(&self, name: &str) -> Vec<PathBuf> {
        let own = self.dir();
        let Ok(entries) = std::fs::read_dir(&self.base) else {
            return Vec::new();
        };
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|dir| *dir != own)
            .map(|dir| dir.join("links").join(name))
            .filter(|path| path.exists())
            .collect();
        found.sort();
        found
    }

    /// Removes every pin of this ABI version: links first (which detaches them), then the tables.
    ///
    /// For the end of a node's life; an agent that merely stops leaves everything in place.
    pub fn remove_all(&self) -> io::Result<()> {
        for dir in [self.links(), self.dir()] {
            match std::fs::read_dir(&dir) {
                Ok(entries) => {
                    for entry in entries {
                        let path = entry?.path();
                        if !path.is_dir() {
                            std::fs::remove_file(path)?;
                        }
                    }
                    std::fs::remove_dir(&dir)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The file name of a link pin. bpffs keeps dots for itself, and device names may have them (`eth0.100`).
fn link_name(device: &str, direction: Direction) -> String {
    let device = device.replace('%', "%25").replace('.', "%2e");
    format!("{device}-{direction}")
}

/// The device and direction that a link pin's file name stands for.
pub(crate) fn parse_link_name(name: &str) -> Option<(String, Direction)> {
    let (device, direction) = name.rsplit_once('-')?;
    let direction = direction.parse().ok()?;
    let device = device.replace("%2e", ".").replace("%25", "%");
    (!device.is_empty()).then_some((device, direction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_link_pins_round_trip() {
        for device in ["eth0", "eth0.100", "a-b", "50%", "lxc0123456789a"] {
            for direction in [Direction::Ingress, Direction::Egress] {
                let name = link_name(device, direction);
                assert!(!name.contains('.'), "{name}");
                assert_eq!(parse_link_name(&name), Some((device.to_owned(), direction)));
            }
        }
        for program in SocketProgram::ALL {
            assert_eq!(parse_link_name(program.name()), None);
        }
        assert_eq!(parse_link_name("eth0"), None);
        assert_eq!(parse_link_name("eth0-sideways"), None);
        assert_eq!(parse_link_name("-ingress"), None);
    }

    #[test]
    fn paths_carry_the_version() {
        let pins = Pins::new(Path::new("/sys/fs/bpf")).with_version(3);
        assert_eq!(pins.table("CT4"), Path::new("/sys/fs/bpf/bristle/v3/CT4"));
        assert_eq!(
            pins.link("bond0.5", Direction::Egress),
            Path::new("/sys/fs/bpf/bristle/v3/links/bond0%2e5-egress")
        );
    }
}

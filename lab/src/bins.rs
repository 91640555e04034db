//! Where the project's built programs are.

use std::path::{Path, PathBuf};

use crate::preflight::PreflightError;

/// Environment variable that names the directory with the binaries.
pub const BIN_DIR_ENV: &str = "BRISTLE_BIN_DIR";
/// The eBPF object's file name.
pub const OBJECT: &str = "bristle.bpf.o";

/// A directory with `bristle-lab`, `bristle-agent`, `bristle-operator`, `bristle-cni` and, beside them or elsewhere, the eBPF object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinDir {
    /// The directory.
    pub path: PathBuf,
    /// The eBPF object.
    pub object: PathBuf,
}

impl BinDir {
    /// Looks for them in the directory that [`dir`] names.
    ///
    /// # Errors
    /// When a program or the eBPF object is not there.
    pub fn find(given: Option<PathBuf>) -> Result<Self, PreflightError> {
        let path = dir(given);
        for program in ["bristle-lab", "bristle-agent", "bristle-operator", "bristle-cni"] {
            if !path.join(program).is_file() {
                return Err(PreflightError::NoBinary(path.join(program)));
            }
        }
        let object = find_object(&path).ok_or_else(|| PreflightError::NoObject(path.clone()))?;
        Ok(Self { path, object })
    }

    /// Path of `bristle-lab`, which also runs machines and containers.
    pub fn lab(&self) -> PathBuf {
        self.path.join("bristle-lab")
    }
}

/// The directory of the programs: the given one, else that of the environment, else that of the running program (for a test or
/// bench: the one above, where cargo puts binaries). Whether they are there is not looked at.
pub fn dir(given: Option<PathBuf>) -> PathBuf {
    let path = given
        .or_else(|| std::env::var_os(BIN_DIR_ENV).map(PathBuf::from))
        .unwrap_or_else(beside_this_program);
    std::path::absolute(&path).unwrap_or(path)
}

fn beside_this_program() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let dir = program.parent().unwrap_or(Path::new("/"));
    if dir.file_name().is_some_and(|name| name == "deps") {
        dir.parent().unwrap_or(dir).to_owned()
    } else {
        dir.to_owned()
    }
}

/// The object named by the environment, beside the binaries, in cargo's target directory above them, or installed.
fn find_object(bin_dir: &Path) -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> =
        std::env::var_os("BRISTLE_BPF_OBJECT").map(PathBuf::from).into_iter().collect();
    candidates.push(bin_dir.join(OBJECT));
    candidates.extend(bin_dir.ancestors().take(3).map(|dir| dir.join("bpf").join(OBJECT)));
    candidates.push(Path::new("/usr/lib/bristle").join(OBJECT));
    candidates.into_iter().find(|path| path.is_file())
}

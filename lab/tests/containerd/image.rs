//! A pause image made from scratch: one static program of nine bytes of code.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// Its name; no registry has it, and none is asked.
pub(crate) const PAUSE_IMAGE: &str = "bristle.test/pause:1";

/// Machine code of `loop { pause() }`, without a stack or anything else.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0xb8, 0x22, 0, 0, 0, // mov eax, 34 (pause)
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the start
];

/// Machine code of `loop { ppoll(NULL, 0, NULL, NULL, 0) }`.
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, // mov x0, 0
    0x01, 0x00, 0x80, 0xd2, // mov x1, 0
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x00, 0x80, 0xd2, // mov x3, 0
    0x28, 0x09, 0x80, 0xd2, // mov x8, 73 (ppoll)
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0xfa, 0xff, 0xff, 0x17, // b to the start
];

#[cfg(target_arch = "x86_64")]
const MACHINE: (u16, &str) = (62, "amd64");
#[cfg(target_arch = "aarch64")]
const MACHINE: (u16, &str) = (183, "arm64");

/// A static executable with [`CODE`] at its entry point: ELF header, one program header, code.
fn executable() -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    let size = HEADERS + CODE.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend(2_u16.to_le_bytes()); // executable
    elf.extend(MACHINE.0.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64_u64.to_le_bytes()); // program headers
    elf.extend(0_u64.to_le_bytes()); // no sections
    elf.extend(0_u32.to_le_bytes());
    for field in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes()); // load
    elf.extend(5_u32.to_le_bytes()); // readable, executable
    for field in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(CODE);
    elf
}

/// Writes an archive that `ctr images import` reads (the layout of `docker save`) into `dir`.
pub(crate) fn write(dir: &Path) -> io::Result<PathBuf> {
    use std::fmt::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let work = dir.join("pause-image");
    let layer_dir = work.join("layer");
    fs::create_dir_all(&layer_dir)?;
    fs::write(layer_dir.join("pause"), executable())?;
    fs::set_permissions(layer_dir.join("pause"), fs::Permissions::from_mode(0o755))?;
    tar(&work.join("layer.tar"), &layer_dir, &["pause"])?;
    let mut digest = String::new();
    for byte in Sha256::digest(fs::read(work.join("layer.tar"))?) {
        write!(digest, "{byte:02x}").map_err(io::Error::other)?;
    }
    let config = serde_json::json!({
        "architecture": MACHINE.1,
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(work.join("config.json"), config.to_string())?;
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    let archive = dir.join("pause.tar");
    tar(&archive, &work, &["manifest.json", "config.json", "layer.tar"])?;
    Ok(archive)
}

fn tar(archive: &Path, dir: &Path, names: &[&str]) -> io::Result<()> {
    let status = Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(dir).args(names).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("tar: {status}"))) }
}

//! The initial file system of a VM: an archive in cpio's "newc" format, which the kernel unpacks by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Writes an archive with `init`, the libraries it loads, the object and kernel modules.
pub(super) fn write(image: &Path, init: &Path, object: &Path, modules: &[PathBuf]) -> anyhow::Result<()> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "sys", "modules"] {
        archive.entry(dir, DIRECTORY, (0, 0), &[]);
    }
    // Without a console node the first process would have no standard output.
    archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    archive.file("init", init)?;
    archive.file("bristle.bpf.o", object)?;
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), module)?;
    }
    for library in libraries(init)? {
        let inside = library.strip_prefix("/").unwrap_or(&library).to_path_buf();
        archive.directories_of(&inside);
        archive.file(&inside.to_string_lossy(), &library)?;
    }
    let bytes = archive.finish();
    if let Some(dir) = image.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(image, bytes).with_context(|| format!("write {}", image.display()))
}

/// The dynamic loader and the libraries of a program, as ldd(1) finds them.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    if !output.status.success() {
        bail!("ldd {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)".
fn parse_ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| {
            let place = line.rsplit_once("=> ").map_or(line, |(_, place)| place).trim();
            let path = place.split_whitespace().next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: Vec<PathBuf>,
}

impl Archive {
    fn file(&mut self, name: &str, from: &Path) -> anyhow::Result<()> {
        let data = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.entry(name, PROGRAM, (0, 0), &data);
        Ok(())
    }

    fn directories_of(&mut self, file: &Path) {
        let mut missing: Vec<PathBuf> = file
            .ancestors()
            .skip(1)
            .filter(|dir| !dir.as_os_str().is_empty() && !self.directories.iter().any(|known| known == dir))
            .map(Path::to_path_buf)
            .collect();
        missing.reverse();
        for dir in missing {
            self.entry(&dir.to_string_lossy(), DIRECTORY, (0, 0), &[]);
            self.directories.push(dir);
        }
    }

    /// One header of eight-digit hexadecimal fields, the name and the data, each padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let fields = [
            self.entries, // inode
            mode,
            0, // uid
            0, // gid
            1, // links
            0, // time
            length(data.len()),
            0,
            0, // device that holds it
            device.0,
            device.1,
            length(name.len() + 1),
            0, // no checksum
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/libgcc_s.so.1 (0x00)\n\t/lib64/ld-linux.so.2 (0x00)\n\tstatically linked\n";
        assert_eq!(
            parse_ldd(text),
            [PathBuf::from("/lib/libgcc_s.so.1"), PathBuf::from("/lib64/ld-linux.so.2")]
        );
    }

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::default();
        archive.directories_of(Path::new("a/b/c"));
        archive.directories_of(Path::new("a/b/d"));
        archive.entry("x", PROGRAM, (0, 0), b"12345");
        assert_eq!(archive.entries, 3);
        let bytes = archive.finish();
        assert!(bytes.len().is_multiple_of(4));
        assert!(bytes.starts_with(b"070701"));
        assert!(String::from_utf8_lossy(&bytes).contains("TRAILER!!!"));
    }
}

//! The verified instruction counts that are kept in docs/, and the comparison with them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::Counts;
use crate::cmd;

/// Growth over the recorded count, in percent, that wants a word from a person.
const LIMIT_PERCENT: u32 = 20;

/// The most instructions a kernel walks through (`BPF_COMPLEXITY_LIMIT_INSNS`).
const KERNEL_LIMIT: u32 = 1_000_000;

/// Counts by kernel.
type Column = (String, Counts);

fn file() -> PathBuf {
    cmd::root().join("docs/verifier-counts.md")
}

const HEAD: &str = "\
# Verified instructions

How many instructions the verifier of each kernel walks through for each program, taken by `cargo xtask ebpf --verify`.
No kernel walks through more than 1,000,000.
`cargo xtask check` fails when a count has grown by more than 20 %; after a growth on purpose write the new counts with `cargo xtask ebpf --verify --update`.
The running kernel is the one of the machine on which the counts were taken last; on a machine with another one it is not compared.

";

/// The name of the running kernel's column: with its version, because counts of different kernels are not comparable.
pub(super) fn running(release: &str) -> String {
    let version: Vec<&str> = release.trim().split(['.', '-']).take(2).collect();
    format!("{RUNNING}{}", version.join("."))
}

const RUNNING: &str = "running ";

/// The counts as a Markdown table.
pub(super) fn table(columns: &[Column]) -> String {
    let programs: BTreeSet<&String> = columns.iter().flat_map(|(_, counts)| counts.keys()).collect();
    let mut text = String::from("| program |");
    for (kernel, _) in columns {
        let _ = write!(text, " {kernel} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(columns.len()));
    text.push('\n');
    for program in programs {
        let _ = write!(text, "| `{program}` |");
        for (_, counts) in columns {
            match counts.get(program) {
                Some(count) => {
                    let _ = write!(text, " {count} |");
                }
                None => text.push_str(" – |"),
            }
        }
        text.push('\n');
    }
    text
}

fn parse(text: &str) -> Vec<Column> {
    let mut rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        Some(cells)
    });
    let Some(head) = rows.next() else { return Vec::new() };
    let mut columns: Vec<Column> =
        head.iter().skip(1).map(|kernel| ((*kernel).to_owned(), Counts::new())).collect();
    for row in rows.skip(1) {
        let Some((program, cells)) = row.split_first() else { continue };
        for ((_, counts), cell) in columns.iter_mut().zip(cells) {
            if let Ok(count) = cell.parse() {
                counts.insert(program.trim_matches('`').to_owned(), count);
            }
        }
    }
    columns
}

/// Writes the counts; columns of kernels that were not run keep their place.
pub(super) fn write(columns: &[Column]) -> anyhow::Result<()> {
    let mut all = std::fs::read_to_string(file()).map_or_else(|_| Vec::new(), |text| parse(&text));
    if columns.iter().any(|(kernel, _)| kernel.starts_with(RUNNING)) {
        // There is one machine on which counts were taken last.
        all.retain(|(kernel, _)| {
            !kernel.starts_with(RUNNING) || columns.iter().any(|(known, _)| known == kernel)
        });
    }
    for (kernel, counts) in columns {
        match all.iter_mut().find(|(known, _)| known == kernel) {
            Some((_, known)) => known.clone_from(counts),
            None => all.push((kernel.clone(), counts.clone())),
        }
    }
    all.sort_by_key(|(kernel, _)| !kernel.starts_with(RUNNING));
    std::fs::write(file(), format!("{HEAD}{}", table(&all)))
        .with_context(|| format!("write {}", file().display()))?;
    eprintln!("    written to {}", file().display());
    Ok(())
}

/// Fails when a count has grown by more than the limit, or a program is new.
pub(super) fn compare(columns: &[Column]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file())
        .with_context(|| format!("read {}; write it with --update", file().display()))?;
    let findings = findings(&parse(&text), columns);
    if findings.is_empty() {
        eprintln!("    no count has grown by more than {LIMIT_PERCENT} %");
        return Ok(());
    }
    bail!(
        "{}\nwrite them down on purpose with `cargo xtask ebpf --verify --update`, or find out what grew",
        findings.join("\n")
    );
}

fn findings(recorded: &[Column], columns: &[Column]) -> Vec<String> {
    let mut findings = Vec::new();
    for (kernel, counts) in columns {
        let known = recorded.iter().find(|(name, _)| name == kernel).map(|(_, counts)| counts);
        if known.is_none()
            && kernel.starts_with(RUNNING)
            && recorded.iter().any(|(name, _)| name.starts_with(RUNNING))
        {
            eprintln!("    {kernel}: the docs have counts of another kernel, not compared");
            continue;
        }
        for (program, &count) in counts {
            if count > KERNEL_LIMIT * 9 / 10 {
                findings.push(format!(
                    "{program} on {kernel}: {count}, close to the kernel's limit of {KERNEL_LIMIT}"
                ));
            }
            match known.and_then(|counts| counts.get(program)) {
                None => findings.push(format!("{program} on {kernel}: {count}, and none is recorded")),
                Some(&before)
                    if u64::from(count) * 100 > u64::from(before) * u64::from(100 + LIMIT_PERCENT) =>
                {
                    findings.push(format!("{program} on {kernel}: {count}, recorded are {before}"));
                }
                Some(_) => {}
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kernel: &str, counts: &[(&str, u32)]) -> Column {
        (kernel.to_owned(), counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }

    #[test]
    fn tables_round_trip() {
        let columns = [column("running", &[("a", 100), ("b", 7)]), column("5.10", &[("a", 90)])];
        assert_eq!(parse(&format!("{HEAD}{}", table(&columns))), columns);
    }

    #[test]
    fn another_running_kernel_is_not_compared() {
        assert_eq!(running("6.18.44-fc\n"), "running 6.18");
        let recorded = [column("running 6.18", &[("a", 100)])];
        assert_eq!(findings(&recorded, &[column("running 6.11", &[("a", 500)])]), Vec::<String>::new());
        assert_eq!(findings(&recorded, &[column("running 6.18", &[("a", 500)])]).len(), 1);
        assert_eq!(findings(&[], &[column("running 6.18", &[("a", 500)])]).len(), 1);
    }

    #[test]
    fn only_growth_beyond_the_limit_is_found() {
        let recorded = [column("5.10", &[("a", 100)])];
        let check = |now: &[(&str, u32)], expect: usize| {
            assert_eq!(findings(&recorded, &[column("5.10", now)]).len(), expect, "{now:?}");
        };
        check(&[("a", 100)], 0);
        check(&[("a", 120)], 0);
        check(&[("a", 121)], 1);
        check(&[("a", 10)], 0);
        check(&[("a", 100), ("new", 5)], 1);
        check(&[("a", 950_000)], 2);
    }
}

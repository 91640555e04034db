//! Panics of a run: a finding like any other, with the place in the code that it comes from.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// A panic that was caught.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Panic {
    /// What it says, and where.
    pub(crate) message: String,
    /// The calls that led there, a line each, if `RUST_BACKTRACE` asks for them.
    pub(crate) backtrace: Vec<String>,
}

thread_local! {
    /// Whether what this thread does is watched.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// Its last panic meanwhile.
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Does it; a panic is returned instead of being printed.
pub(crate) fn caught<T>(act: impl FnOnce() -> T) -> Result<T, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        // Threads that run no simulation keep the hook that was there.
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                LAST.set(Some(panic_of(info)));
            } else {
                others(info);
            }
        }));
    });
    let before = WATCHED.replace(true);
    // Whoever asks gets a cluster that stands still in the middle of a step, and only looks at it.
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| begin_of_a_run(act)));
    WATCHED.set(before);
    result.map_err(|_| LAST.take().unwrap_or_default())
}

fn panic_of(info: &PanicHookInfo<'_>) -> Panic {
    let said = info.payload_as_str().unwrap_or("it says nothing");
    let place = info.location().map(|at| format!(" ({at})")).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let lines = match backtrace.status() {
        BacktraceStatus::Captured => between(&backtrace.to_string()),
        _ => Vec::new(),
    };
    Panic { message: format!("{said}{place}"), backtrace: lines }
}

/// Where backtraces end: a frame of its own in every build.
#[inline(never)]
fn begin_of_a_run<T>(act: impl FnOnce() -> T) -> T {
    act()
}

/// The calls of the run alone. Who asked for it is no part of it and would make equal runs differ, and how a panic is told is
/// the same for all.
fn between(backtrace: &str) -> Vec<String> {
    let lines: Vec<&str> = backtrace.lines().collect();
    let told = lines.iter().position(|line| line.contains("rust_begin_unwind")).map_or(0, |at| at + 1);
    // A frame's place stands in a line of its own.
    let of_run = lines[told..].iter().skip_while(|line| line.trim_start().starts_with("at "));
    let of_run = of_run.take_while(|line| !line.contains("begin_of_a_run"));
    of_run.map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_returned_with_what_it_says_and_its_place() {
        let panic = caught(|| panic!("{} of {}", 3, 2)).expect_err("it panicked");
        assert!(panic.message.starts_with("3 of 2 ("), "{}", panic.message);
        assert!(panic.message.contains("caught.rs:"), "{}", panic.message);
        assert_eq!(caught(|| 7), Ok(7), "the next one is not touched");
    }

    #[test]
    fn a_backtrace_has_the_calls_of_the_run_alone() {
        let told = [
            " 0: hook",
            " 1: __rustc::rust_begin_unwind",
            "      at ./std.rs:1:2",
            " 2: core::panicking::panic_fmt",
            " 3: agent",
            "      at ./a.rs:1:2",
            " 4: sim_native::caught::begin_of_a_run",
            " 5: main",
        ];
        assert_eq!(between(&told.join("\n")), told[3..6]);
    }
}

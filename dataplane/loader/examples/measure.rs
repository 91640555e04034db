//! Prints nanoseconds per packet of each program: `cargo run --release --example measure OBJECT`.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("name the eBPF object")?;
    for figure in dataplane_loader::measure::all(&std::fs::read(path)?, 300)? {
        println!("{:<44} {:>8.1} ns", figure.name(), figure.ns);
    }
    Ok(())
}

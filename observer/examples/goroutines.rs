//! Prints the goroutines of a Go process as JSON, and on standard error how long the looks took.
//!
//! `cargo run --release -p observer --example goroutines -- PID [LOOKS]`
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example that prints"
)]

use std::{env, error::Error, time::Instant};

use observer::runtimes::go::{Limits, Target};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let pid = args.next().ok_or("a process, please")?.parse()?;
    let looks: usize = args.next().map_or(Ok(1), |looks| looks.parse())?;
    let start = Instant::now();
    let mut target = Target::open(pid)?;
    eprintln!("{} found in {:?}", target.release(), start.elapsed());
    let mut inventory = target.snapshot(&Limits::default())?;
    for _ in 1..looks {
        eprintln!(
            "{} goroutines in {:.1} ms, {} retried, {} torn",
            inventory.total,
            inventory.took_ns as f64 / 1e6,
            inventory.retried,
            inventory.torn
        );
        inventory = target.snapshot(&Limits::default())?;
    }
    println!("{}", serde_json::to_string_pretty(&inventory)?);
    Ok(())
}

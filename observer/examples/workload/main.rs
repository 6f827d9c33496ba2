//! Ground truth: small programs that wait in a known way and measure it themselves. `observer verify` carries the
//! same ones.

use std::process::ExitCode;

fn main() -> ExitCode {
    observer::workload::main(std::env::args().skip(1))
}

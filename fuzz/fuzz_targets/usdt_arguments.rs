//! What a probe says of its arguments.
#![no_main]

use observer::inspect::usdt::{Machine, argument};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for machine in [Machine::X86_64, Machine::Arm64] {
        let _ = argument::parse(machine, text);
    }
});

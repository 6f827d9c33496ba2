//! A program's file, for its probes.
#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| observer::inspect::usdt::fuzzing::file(file));

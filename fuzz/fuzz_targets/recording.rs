//! A recording: lines, compressed frames, snapshots of the model, and what is made of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| observer::record::fuzzing::recording(bytes));

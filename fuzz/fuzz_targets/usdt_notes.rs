//! The section `.note.stapsdt` of a program.
#![no_main]

libfuzzer_sys::fuzz_target!(|section: &[u8]| observer::inspect::usdt::fuzzing::notes(section));

//! The debug information of a program, for the layout of Go's structs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| observer::runtimes::go::fuzzing::debug_information(bytes));

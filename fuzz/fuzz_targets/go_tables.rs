//! `runtime.firstmoduledata` and the pclntab, in a process's memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|memory: &[u8]| observer::runtimes::go::fuzzing::tables(memory));

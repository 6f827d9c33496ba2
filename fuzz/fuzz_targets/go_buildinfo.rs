//! The section `.go.buildinfo` of a program.
#![no_main]

libfuzzer_sys::fuzz_target!(|section: &[u8]| {
    let _ = observer::runtimes::go::Release::parse(section);
});

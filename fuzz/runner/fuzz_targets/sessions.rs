#![no_main]
#[path = "../../../examples/fuzz/sessions.rs"]
#[allow(dead_code)]
mod target;
libfuzzer_sys::fuzz_target!(|data: &[u8]| target::sessions(data));

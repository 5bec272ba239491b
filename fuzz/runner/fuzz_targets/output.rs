#![no_main]
#[path = "../../../examples/fuzz/output.rs"]
mod target;
libfuzzer_sys::fuzz_target!(|data: &[u8]| target::output(data));

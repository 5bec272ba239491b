#![no_main]
#[path = "../../../acp/fuzz/mux.rs"]
mod target;
libfuzzer_sys::fuzz_target!(|data: &[u8]| target::mux(data));

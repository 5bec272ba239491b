#![no_main]
#[path = "../../../postgres/src/copy.rs"]
#[allow(dead_code)]
mod copy;
#[path = "../../../postgres/fuzz/log.rs"]
mod target;
#[path = "../../../postgres/src/wire.rs"]
#[allow(dead_code)]
mod wire;
libfuzzer_sys::fuzz_target!(|data: &[u8]| target::log(data));

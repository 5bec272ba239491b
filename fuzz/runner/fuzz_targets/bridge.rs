#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sessioncap_fuzz::bridge(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gateway_fuzz::session::run(input));

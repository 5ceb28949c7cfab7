//! See `portolan_tests::fuzz::api`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_tests::fuzz::api(data));

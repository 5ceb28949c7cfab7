//! See `portolan_tests::fuzz::lan`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_tests::fuzz::lan(data));

//! See `portolan_tests::fuzz::vnet`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_tests::fuzz::vnet(data));

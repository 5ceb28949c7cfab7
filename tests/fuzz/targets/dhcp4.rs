//! See `portolan_tests::fuzz::dhcp4`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_tests::fuzz::dhcp4(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| twill_fuzz::entry("bgp_config")(data));

//! See `corelog::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corelog::fuzzing::Target::Manifest.run(input));

//! What counts depend on besides our code. Where any of it differs, they cannot be compared.

use std::process::Command;

/// The features of the processor by which the checksum and the C library's copies choose their code. Under valgrind
/// that is the processor which it emulates, not the host's.
#[must_use]
pub fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
    ];
    #[cfg(target_arch = "aarch64")]
    let features = [
        ("crc", std::arch::is_aarch64_feature_detected!("crc")),
        ("aes", std::arch::is_aarch64_feature_detected!("aes")),
        ("sha3", std::arch::is_aarch64_feature_detected!("sha3")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features: [(&str, bool); 0] = [];
    let present = features.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name);
    present.collect::<Vec<_>>().join(" ")
}

/// Everything in one line: compiler, processor, C library and valgrind.
#[must_use]
pub fn machine(processor: &str, valgrind: &str) -> String {
    format!("{}; {processor}; {}; {valgrind}", env!("GUARD_COMPILER").trim(), c_library())
}

fn c_library() -> String {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok();
    let said = said.and_then(|output| String::from_utf8(output.stdout).ok());
    said.map_or_else(|| "another C library".to_owned(), |version| version.trim().to_owned())
}

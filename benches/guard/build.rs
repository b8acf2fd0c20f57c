//! Which compiler, and with which flags, the counts belong to.

use std::{env, process::Command};

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().replace('\u{1f}', " ");
    let target = env::var("TARGET").unwrap_or_default();
    let level = env::var("OPT_LEVEL").unwrap_or_default();
    // Cuts the code into other units.
    let incremental = env::var("CARGO_INCREMENTAL").is_ok_and(|asked| asked == "1");
    let flags = if incremental { format!("incremental {flags}") } else { flags };
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_INCREMENTAL");
    println!("cargo::rustc-env=GUARD_COMPILER={} for {target}, -O{level} {flags}", version.trim());
}

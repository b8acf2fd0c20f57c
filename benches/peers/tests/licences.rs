//! Every crate here has a licence of the project's list, or of the few more that peers bring along.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};
use std::{fs, path::Path, process::Command};

/// Licences beside those of the project, with the crates that have them. Nothing of them reaches the product.
const MORE: [(&str, &str); 2] = [("varint-rs", "0BSD"), ("xxhash-rust", "BSL-1.0")];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

fn allowed_by_project() -> Vec<Licensee> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deny.toml");
    let deny: Deny = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    deny.licenses.allow.iter().map(|licence| Licensee::parse(licence).unwrap()).collect()
}

fn is_allowed(package: &Package, allowed: &[Licensee]) -> bool {
    let more = MORE.iter().filter(|(name, _)| package.name == *name);
    let more: Vec<Licensee> = more.map(|(_, licence)| Licensee::parse(licence).unwrap()).collect();
    let Some(licence) = &package.license else { return false };
    // Older crates write a slash for "or".
    let Ok(expression) = Expression::parse_mode(licence, ParseMode::LAX) else { return false };
    expression.evaluate(|wanted| allowed.iter().chain(&more).any(|licence| licence.satisfies(wanted)))
}

#[test]
fn every_peer_and_all_below_it_have_an_allowed_licence() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let packages = serde_json::from_slice::<Metadata>(&output.stdout).unwrap().packages;
    for peer in ["raft-engine", "okaywal", "commitlog", "seglog", "fjall", "sled", "redb"] {
        assert!(packages.iter().any(|package| package.name == peer), "{peer} is not there");
    }
    let allowed = allowed_by_project();
    let refused = packages.iter().filter(|package| !is_allowed(package, &allowed));
    let refused: Vec<String> =
        refused.map(|package| format!("{}: {:?}", package.name, package.license)).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn a_gpl_is_refused_unless_there_is_a_choice() {
    let allowed = allowed_by_project();
    let package =
        |name: &str, licence: &str| Package { name: name.to_owned(), license: Some(licence.to_owned()) };
    assert!(is_allowed(&package("any", "GPL-2.0-only OR Apache-2.0"), &allowed));
    assert!(is_allowed(&package("xxhash-rust", "BSL-1.0"), &allowed));
    for (name, wrong) in [("any", "GPL-3.0-or-later"), ("any", "MIT AND LGPL-2.1-only"), ("any", "BSL-1.0")] {
        assert!(!is_allowed(&package(name, wrong), &allowed), "{wrong}");
    }
    assert!(!is_allowed(&Package { name: "any".to_owned(), license: None }, &allowed));
}

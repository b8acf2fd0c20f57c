//! Every crate that a build with all features can contain has a licence of the list in `deny.toml`.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};
use std::{path::Path, process::Command};

#[derive(Deserialize)]
struct DenyFile {
    licenses: Licences,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

impl Licences {
    fn of_project() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
        toml::from_str::<DenyFile>(&std::fs::read_to_string(path).unwrap()).unwrap().licenses
    }

    /// What is wrong with the package's licence, if anything is.
    fn objection(&self, package: &Package) -> Option<String> {
        let Some(license) = &package.license else { return Some("states no licence".to_owned()) };
        // Old crates write `MIT/Apache-2.0` for `MIT OR Apache-2.0`.
        let Ok(expression) = Expression::parse_mode(license, ParseMode::LAX) else {
            return Some(format!("has a licence that is not understood: {license}"));
        };
        let allowed = self.allowed_for(&package.name);
        if expression.evaluate(|wanted| satisfied(&allowed, wanted)) {
            return None;
        }
        Some(format!("is licensed {license}"))
    }

    fn allowed_for(&self, name: &str) -> Vec<Licensee> {
        let extra =
            self.exceptions.iter().filter(|exception| exception.name == name).flat_map(|it| &it.allow);
        self.allow.iter().chain(extra).map(|license| Licensee::parse(license).unwrap()).collect()
    }
}

fn satisfied(allowed: &[Licensee], wanted: &LicenseReq) -> bool {
    allowed.iter().any(|license| license.satisfies(wanted))
}

fn packages_of_project() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .args([
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
            "--filter-platform",
            "aarch64-unknown-linux-gnu",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Metadata>(&output.stdout).unwrap().packages
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let licences = Licences::of_project();
    let packages = packages_of_project();
    assert!(packages.len() > 10, "only {} packages were found", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter_map(|package| {
            Some(format!("{} {} {}", package.name, package.version, licences.objection(package)?))
        })
        .collect();
    assert!(refused.is_empty(), "not allowed by deny.toml:\n{}", refused.join("\n"));
}

#[test]
fn the_list_never_allows_a_gpl() {
    let licences = Licences::of_project();
    let exceptions = licences.exceptions.iter().flat_map(|exception| &exception.allow);
    for license in licences.allow.iter().chain(exceptions) {
        assert!(!license.contains("GPL"), "{license}");
    }
}

#[test]
fn expressions_are_evaluated_not_searched() {
    let exception = Exception { name: "excepted".to_owned(), allow: vec!["MPL-2.0".to_owned()] };
    let licences =
        Licences { allow: vec!["MIT".to_owned(), "Apache-2.0".to_owned()], exceptions: vec![exception] };
    let refused = |name: &str, license: Option<&str>| {
        let license = license.map(str::to_owned);
        licences.objection(&Package { name: name.to_owned(), version: "1.0.0".to_owned(), license }).is_some()
    };
    for fine in ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "(MIT OR Unlicense) AND Apache-2.0"] {
        assert!(!refused("any", Some(fine)), "{fine}");
    }
    for wrong in
        ["GPL-2.0-only", "MIT AND GPL-3.0-or-later", "MPL-2.0", "Apache-2.0 WITH LLVM-exception", "???"]
    {
        assert!(refused("any", Some(wrong)), "{wrong}");
    }
    assert!(refused("any", None));
    assert!(!refused("excepted", Some("MPL-2.0")));
}

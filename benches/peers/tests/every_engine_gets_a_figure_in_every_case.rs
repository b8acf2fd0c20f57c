//! The program as it is used, small: all engines, all workloads, and what it writes.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::{collections::BTreeMap, fs, process::Command};

/// Libraries of one writer, which independent callers cannot share.
const ONE_WRITER: [&str; 2] = ["commitlog", "seglog"];

fn engines() -> Vec<&'static str> {
    let mut all = vec!["corelog", "raft-engine", "okaywal", "commitlog", "seglog", "fjall", "sled", "redb"];
    if cfg!(feature = "rocksdb") {
        all.push("rocksdb");
    }
    all
}

#[test]
fn every_engine_gets_a_figure_in_every_case() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (stores, json, plots) =
        (folder.path().join("stores"), folder.path().join("report.json"), folder.path().join("plots"));
    let output = Command::new(env!("CARGO_BIN_EXE_corelog-peers"))
        .args(["--size", "2MiB", "--seconds", "0.05", "--repeats", "2", "--minutes", "1"])
        .args(["--folder".as_ref(), stores.as_os_str(), "--json".as_ref(), json.as_os_str()])
        .args(["--plots".as_ref(), plots.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let cases: BTreeMap<&str, &Value> = report["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| (case["name"].as_str().unwrap(), case))
        .collect();
    // 4 sizes by 2 thread counts, 3 counts of waiting by 2 kinds of callers, 3 depths, 1 reopen.
    assert_eq!(cases.len(), 8 + 6 + 3 + 1, "{:?}", cases.keys());
    for (name, case) in cases {
        let is_shared = name.contains("independent");
        for engine in engines() {
            let found = case["engines"].as_array().unwrap().iter().find(|cell| cell["engine"] == engine);
            if is_shared && ONE_WRITER.contains(&engine) {
                assert!(found.is_none(), "{name}: {engine}");
            } else {
                let median =
                    found.unwrap_or_else(|| panic!("{name}: no {engine}"))["median"].as_f64().unwrap();
                assert!(median > 0.0, "{name}: {engine}: {median}");
            }
        }
    }
    for plot in ["w1.svg", "w2.svg", "w3.svg", "w4.svg"] {
        assert!(fs::read_to_string(plots.join(plot)).unwrap().contains("raft-engine"), "{plot}");
    }
    assert_eq!(fs::read_dir(&stores).unwrap().count(), 0, "stores are left over");
}

//! `corelog bench` through the program, small: what it says adds up, and it leaves nothing behind that is not asked
//! for, however it ends.
#![expect(clippy::unwrap_used, reason = "tests")]

mod program;

use program::{FAILED, FULL, USAGE, folder, run, spawn};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    time::{Duration, Instant},
};

/// A bench of a second.
const SMALL: &str = "bench @ --size 64MiB --bytes 1MiB --seconds 0.3";

/// Names in the folder, sorted.
fn left(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

/// That the cores' figures add up to the total, and rates to what they are rates of. Gives the records.
fn adds_up(workload: &Value, record_bytes: f64) -> f64 {
    let rows = workload["rows"].as_array().unwrap();
    let total = &workload["total"];
    for what in ["records", "payload_bytes", "device_writes", "device_bytes", "syncs", "turns"] {
        let sum: f64 = rows.iter().map(|row| number(&row[what])).sum();
        assert!(is_near(sum, number(&total[what])), "{what}: {workload:#}");
    }
    for row in rows.iter().chain([total]) {
        let (records, seconds) = (number(&row["records"]), number(&row["seconds"]));
        assert!(records > 0.0 && seconds > 0.0, "{row:#}");
        assert!(is_near(number(&row["payload_bytes"]), records * record_bytes), "{row:#}");
        assert!(is_near(number(&row["records_per_s"]) * seconds, records), "{row:#}");
        assert!(is_near(number(&row["mb_per_s"]) * 1e6 * seconds, records * record_bytes), "{row:#}");
        let latency = &row["latency_us"];
        if !latency.is_null() {
            let quantiles = ["p50", "p99", "p999", "max"].map(|name| number(&latency[name]));
            assert!(quantiles.is_sorted() && quantiles[0] > 0.0, "{row:#}");
        }
    }
    number(&total["records"])
}

/// Of a run with all workloads and 1 MiB of 1 KiB records in each that appends.
fn report_adds_up(report: &Value) {
    let names: Vec<&str> =
        report["workloads"].as_array().unwrap().iter().map(|w| w["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["append", "durable", "read"]);
    let [append, durable, read] = [0, 1, 2].map(|index| adds_up(&report["workloads"][index], 1024.0));
    let cores = report["granted"].as_array().unwrap().len();
    assert!(cores > 0 && report["pinned"].as_array().unwrap().len() == cores);
    // Rounded down for each core.
    assert_eq!(append as usize, 1024 / cores * cores, "{report:#}");
    // It may be over by its time.
    assert!(durable <= append, "{durable} records of {append}: {report:#}");
    assert!(read > 0.0, "{report:#}");
    let written = number(&report["workloads"][0]["total"]["device_bytes"]);
    assert!(written >= append * 1024.0, "{written} bytes on the device");
    let reopen = &report["reopen"];
    assert!(is_near(number(&reopen["records"]), append + durable), "{report:#}");
    assert!(number(&reopen["verified"]) > 0.0 && !reopen["unclean_seconds"].as_array().unwrap().is_empty());
}

/// That each element ends, in order, and there is one root.
fn is_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut roots = 0;
    for part in svg.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("no end of <{part}"));
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        if tag.starts_with(['?', '!']) {
        } else if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else {
            roots += usize::from(open.is_empty());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty() && roots == 1, "{roots} roots, open: {open:?}");
}

#[test]
fn a_default_run_says_what_each_workload_did_and_leaves_nothing() {
    let folder = folder();
    let text = run(&folder.path().join("store"), SMALL).done();
    for word in ["append: ", "durable: ", "read: ", "reopen: ", "read back and compared", "p99.9"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert_eq!(left(folder.path()), [] as [&str; 0]);
}

#[test]
fn json_and_svg_are_well_formed_and_the_figures_add_up() {
    let folder = folder();
    let path = folder.path().join("store");
    report_adds_up(&run(&path, &format!("{SMALL} --json")).json());
    let more = format!("--json {0}/report.json --svg {0}/plot.svg", folder.path().display());
    let text = run(&path, &format!("{SMALL} --hosted --keep {more}")).done();
    assert!(text.contains("hosted"), "{text}");
    let report = serde_json::from_slice(&fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    report_adds_up(&report);
    let svg = fs::read_to_string(folder.path().join("plot.svg")).unwrap();
    is_well_formed(&svg);
    for caption in ["append: records a second", "durable: latency", "read: records a second", "core 0"] {
        assert!(svg.contains(caption), "no {caption:?}");
    }
    assert_eq!(left(folder.path()), ["plot.svg", "report.json", "store", "store.made-by-bench"]);
    // What was kept is an ordinary store, cleanly closed.
    run(&path, "verify @").done();
}

#[test]
fn reads_with_a_cache_say_how_many_were_hits() {
    let folder = folder();
    let path = folder.path().join("store");
    let line = format!("{SMALL} --workload append,read --json");
    let notes = |report: &Value| report["workloads"][1]["notes"].to_string();
    assert!(!notes(&run(&path, &line).json()).contains("cache"));
    let report = run(&path, &format!("{line} --cache 8MiB")).json();
    // Records of 1 MiB, read over and over.
    assert!(notes(&report).contains(" % of the reads found the record in a cache"), "{report:#}");
    assert_eq!(run(&path, &format!("{line} --cache 1KiB")).code, Some(USAGE));
}

#[test]
fn an_interrupted_run_leaves_what_the_next_one_replaces() {
    let folder = folder();
    let path = folder.path().join("store");
    // Large enough, and each append a trip of its own, that no disk fills its part of the store up before the signal.
    let child = spawn(&path, "bench @ --size 2GiB --seconds 60 --workload durable --in-flight 1");
    let start = Instant::now();
    // The store has its name once it is whole.
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "the store was not made");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    // Not the interrupt: it is ignored by what a shell without job control starts in the background.
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::TERM.as_raw()), "{output:?}");
    assert_eq!(left(folder.path()), ["store", "store.made-by-bench"]);
    // As after any kill: the store opens, and what was acknowledged is whole.
    run(&path, "verify @").done();
    run(&path, SMALL).done();
    assert_eq!(left(folder.path()), [] as [&str; 0]);
}

#[test]
fn one_cpu_is_one_core() {
    let folder = folder();
    let usable = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| usable.is_set(cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    // Of this test's thread, and so of what it starts.
    sched_setaffinity(None, &one).unwrap();
    let report = run(&folder.path().join("store"), &format!("{SMALL} --json")).json();
    sched_setaffinity(None, &usable).unwrap();
    report_adds_up(&report);
    assert_eq!(report["granted"].as_array().unwrap().len(), 1);
}

#[test]
fn a_store_that_is_too_small_or_not_the_bench_s_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    run(&path, "bench @ --size 1MiB").refused(USAGE, &["1048576"]);
    run(&path, "bench @ --size 64MiB --record 64MiB").refused(USAGE, &["does not fit"]);
    assert_eq!(left(folder.path()), [] as [&str; 0]);
    fs::write(&path, "letters").unwrap();
    run(&path, SMALL).refused(FAILED, &["was not made by `bench`", "name another path"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "letters");
    assert_eq!(left(folder.path()), ["store"]);
}

#[test]
fn a_store_that_fills_up_ends_a_workload_and_says_so() {
    let folder = folder();
    let path = folder.path().join("store");
    let line = "bench @ --size 34MiB --seconds 60 --workload append --json";
    let ran = run(&path, line);
    if ran.code == Some(FULL) {
        // Too little for this host's cores.
        return;
    }
    let report = ran.json();
    let notes = report["workloads"][0]["notes"].to_string();
    assert!(notes.contains("full") && notes.contains("--size"), "{report:#}");
    assert_eq!(left(folder.path()), [] as [&str; 0]);
}

#[cfg(feature = "yardsticks")]
mod yardsticks {
    use super::{FAILED, USAGE, Value, fs, left, number, run};
    use crate::program::folder;

    const SMALL: &str = "bench @ --yardsticks --size 64MiB --bytes 1MiB --seconds 0.1 --repeats 2";

    #[test]
    fn they_say_what_holds_and_leave_nothing() {
        let folder = folder();
        let path = folder.path().join("store");
        let report = run(&path, &format!("{SMALL} --json")).json();
        let verdicts = report["rows"].as_array().unwrap();
        for row in ["ring", "append", "durable", "random reads", "cached reads", "reopen"] {
            let is_there = |verdict: &Value| verdict["name"].as_str().unwrap().starts_with(row);
            assert!(verdicts.iter().any(is_there), "no {row:?} in {report:#}");
        }
        for verdict in verdicts {
            let (ours, bare) = (number(&verdict["ours"]), number(&verdict["bound"]));
            assert!((number(&verdict["ratio"]) - ours / bare).abs() < 1e-6, "{verdict:#}");
            assert!(verdict["holds"].is_boolean());
            assert_eq!(verdict["ours_all"].as_array().unwrap().len(), 2);
        }
        assert_eq!(left(folder.path()), [] as [&str; 0]);
    }

    #[test]
    fn growth_has_a_cost_for_every_point_of_every_curve() {
        let folder = folder();
        let path = folder.path().join("store");
        let svg = folder.path().join("growth.svg");
        let line = "bench @ --growth --size 64MiB --bytes 40MiB --seconds 0.02 --repeats 2";
        let report = run(&path, &format!("{line} --json --svg {}", svg.display())).json();
        let curves = report["curves"].as_array().unwrap();
        let points = |curve: &Value| curve["points"].as_array().unwrap().clone();
        let found: Vec<_> =
            curves.iter().map(|curve| (curve["name"].as_str().unwrap(), points(curve).len())).collect();
        // 1 to 32 MiB and the rest of 40; the largest record that a store of this size takes is below 16 MiB.
        assert_eq!(found, [("written", 7), ("sizes", 10), ("in-flight", 9), ("shards", 3)], "{report:#}");
        for point in curves.iter().flat_map(points) {
            assert!(number(&point["ns"]) > 0.0 && number(&point["records"]) > 0.0, "{point:#}");
        }
        assert!(fs::read_to_string(&svg).unwrap().contains("in-flight"));
        assert_eq!(left(folder.path()), ["growth.svg"]);
    }

    #[test]
    fn latency_under_load_is_of_both_at_every_load() {
        let folder = folder();
        let path = folder.path().join("store");
        let line = "bench @ --latency --loads 5,20 --size 256MiB --bytes 1MiB --seconds 0.1 --repeats 2";
        let report = run(&path, &format!("{line} --json")).json();
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 4, "{report:#}");
        for (row, (load, who)) in
            rows.iter().zip([5, 20].iter().flat_map(|it| [(it, "corelog"), (it, "bare loop")]))
        {
            assert_eq!((row["load_percent"].as_u64(), row["who"].as_str()), (Some(*load), Some(who)));
            let asked = number(&report["highest_per_s"]) * *load as f64 / 100.0;
            assert!((number(&row["asked_per_s"]) - asked).abs() < 1e-6, "{row:#}");
            let quantiles = ["us_p50", "us_p99", "us_p999", "us_worst"].map(|name| number(&row[name]));
            assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{row:#}");
            assert_eq!(row["us_p99_all"].as_array().unwrap().len(), 2);
        }
        assert_eq!(left(folder.path()), [] as [&str; 0]);
        for line in ["bench @ --loads 10", "bench @ --latency --yardsticks", "bench @ --latency --loads 0"] {
            assert_eq!(run(&path, line).code, Some(USAGE), "{line}");
        }
    }

    #[test]
    fn rows_that_were_not_asked_for_are_not_run() {
        let folder = folder();
        let path = folder.path().join("store");
        let report = run(&path, &format!("{SMALL} --rows read --json")).json();
        let names = report["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap());
        let words: Vec<&str> = names.map(|name| name.split(' ').next().unwrap()).collect();
        assert_eq!(words, ["random", "random", "random", "cached"]);
        for (line, named) in
            [("bench @ --rows read", "--yardsticks"), ("bench @ --yardsticks --rows all", "ingest")]
        {
            let ran = run(&path, line);
            assert_eq!(ran.code, Some(USAGE));
            assert!(ran.error.contains(named), "{}", ran.error);
        }
    }

    #[test]
    fn files_that_are_not_the_bench_s_are_left_alone() {
        let folder = folder();
        let path = folder.path().join("store");
        let other = folder.path().join("store.bare-0");
        fs::write(&other, "somebody's").unwrap();
        run(&path, SMALL).refused(FAILED, &["store.bare-0", "was not made by `bench`"]);
        assert_eq!(fs::read_to_string(&other).unwrap(), "somebody's");
        assert_eq!(left(folder.path()), ["store.bare-0"]);
        // What a killed bench left has its note.
        fs::write(folder.path().join("store.bare-0.made-by-bench"), "").unwrap();
        run(&path, SMALL).done();
        assert_eq!(left(folder.path()), [] as [&str; 0]);
    }
}

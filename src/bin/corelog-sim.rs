//! The simulator of corelog's tests: many short lives of stores over simulated devices, all from one seed.
//!
//! The last line says what was done; the exit code is 1 if an invariant was broken, with the call that replays it.
#![forbid(unsafe_code)]

use clap::Parser;
use corelog_shards::{
    mutant::Mutant,
    sim::{Faults, Outcome, Settings, Tally, run_case},
};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Lines of a trace that a violation prints.
const TRACE_LINES: usize = 60;

/// Simulates stores, and looks for broken promises.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many cases to run, each with the seed after the last one's.
    #[arg(long, default_value_t = 1000)]
    cases: u64,
    /// The seed of the first case; a fresh one if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Which kinds of fault there may be: all, none, or a list; each case draws a third of them.
    #[arg(long, default_value = "all")]
    faults: Faults,
    /// Plants a bug, and stops at the case that finds it; `all` does so with one after the other.
    #[arg(long)]
    mutant: Option<String>,
    /// Lists the bugs that can be planted.
    #[arg(long)]
    list_mutants: bool,
    /// Prints every step of every case.
    #[arg(long)]
    trace: bool,
    /// Stops after so many seconds, whatever is left of the cases.
    #[arg(long)]
    seconds: Option<u64>,
    /// Stops after so many crash points, whatever is left of the cases.
    #[arg(long)]
    crash_points: Option<u64>,
    /// Tries a crash at one of so many device steps.
    #[arg(long, default_value_t = Settings::default().probe_one_in)]
    probe_one_in: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list_mutants {
        list_mutants();
        return ExitCode::SUCCESS;
    }
    // A panic of the engine is a violation, told with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    match arguments.mutant.as_deref() {
        None => simulate(&arguments, seed),
        Some("all") => kill_all(&arguments, seed),
        Some(name) => match Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name) {
            Some(mutant) => hunt(&arguments, seed, *mutant),
            None => {
                eprintln!("there is no mutant `{name}`; --list-mutants names them");
                ExitCode::from(2)
            }
        },
    }
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_nanos() as u64 / 1000 % 1_000_000_000_000)
}

fn list_mutants() {
    for mutant in Mutant::ALL {
        match mutant.found_elsewhere() {
            None => println!("{mutant:?}"),
            Some(by) => println!("{mutant:?} (not by the simulator: {by})"),
        }
    }
}

fn settings(arguments: &Arguments, mutant: Option<Mutant>) -> Settings {
    Settings {
        faults: arguments.faults,
        mutant,
        trace: arguments.trace,
        probe_one_in: arguments.probe_one_in.max(1),
    }
}

fn simulate(arguments: &Arguments, seed: u64) -> ExitCode {
    println!("first seed {seed}");
    let settings = settings(arguments, None);
    let start = Instant::now();
    let limit = arguments.seconds.map(Duration::from_secs);
    let (mut total, mut cases, mut violations) = (Tally::default(), 0, 0);
    for seed in (seed..).take(usize::try_from(arguments.cases).unwrap_or(usize::MAX)) {
        let outcome = run_case(seed, &settings);
        total += outcome.tally;
        cases += 1;
        if arguments.trace {
            outcome.trace.iter().for_each(|line| println!("{line}"));
        }
        if let Some(violation) = &outcome.violation {
            violations += 1;
            report(arguments, seed, violation, &outcome);
            break;
        }
        let is_over = limit.is_some_and(|limit| start.elapsed() >= limit)
            || arguments.crash_points.is_some_and(|wanted| total.crash_points >= wanted);
        if is_over {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let Tally { crash_points, named, lives, steps, records } = total;
    println!(
        "lives={lives} device_steps={steps} records={records} named_damage={named} seconds={seconds:.1}"
    );
    let rate = crash_points as f64 / seconds;
    println!("cases={cases} crash_points={crash_points} violations={violations} rate={rate:.0}/s");
    ExitCode::from(u8::from(violations > 0))
}

/// Prints what happened, from a second run of the same case.
fn report(arguments: &Arguments, seed: u64, violation: &str, outcome: &Outcome) {
    if !arguments.trace {
        let again = run_case(seed, &Settings { trace: true, ..settings(arguments, None) });
        let from = again.trace.len().saturating_sub(TRACE_LINES);
        again.trace[from..].iter().for_each(|line| println!("{line}"));
        if again.violation.as_deref() != Some(violation) {
            println!("(the second run ended differently: {:?})", again.violation);
        }
    }
    println!("VIOLATION seed {seed}, step {}: {violation}", outcome.tally.steps);
    println!("replay: {}", replay(arguments, seed, None));
}

fn replay(arguments: &Arguments, seed: u64, mutant: Option<Mutant>) -> String {
    let faults = arguments.faults;
    let faults = if faults == Faults::ALL { "all".to_owned() } else { faults.to_string() };
    let mutant = mutant.map_or(String::new(), |mutant| format!(" --mutant {mutant:?}"));
    format!(
        "cargo run --release --features sim --bin corelog-sim -- --cases 1 --seed {seed} --faults {faults} --probe-one-in {}{mutant} --trace",
        arguments.probe_one_in
    )
}

fn hunt(arguments: &Arguments, seed: u64, mutant: Mutant) -> ExitCode {
    let settings = settings(arguments, Some(mutant));
    for (case, seed) in (1..=arguments.cases).zip(seed..) {
        let outcome = run_case(seed, &settings);
        if arguments.trace {
            outcome.trace.iter().for_each(|line| println!("{line}"));
        }
        if let Some(violation) = outcome.violation {
            println!("{mutant:?}: killed by case {case} (seed {seed}): {violation}");
            println!("replay: {}", replay(arguments, seed, Some(mutant)));
            return ExitCode::SUCCESS;
        }
    }
    println!("{mutant:?}: survived {} cases", arguments.cases);
    ExitCode::FAILURE
}

fn kill_all(arguments: &Arguments, seed: u64) -> ExitCode {
    println!("first seed {seed}");
    let (mut killed, mut survived) = (0, 0);
    for mutant in Mutant::ALL {
        if let Some(by) = mutant.found_elsewhere() {
            println!("{mutant:?}: not for the simulator: {by}");
            continue;
        }
        let settings = settings(arguments, Some(*mutant));
        let found = (1..=arguments.cases)
            .zip(seed..)
            .find_map(|(case, seed)| Some((case, run_case(seed, &settings).violation?)));
        match found {
            Some((case, violation)) => {
                killed += 1;
                println!("{mutant:?}: killed by case {case}: {violation}");
            }
            None => {
                survived += 1;
                println!("{mutant:?}: SURVIVED {} cases", arguments.cases);
            }
        }
    }
    println!("killed={killed} survived={survived}");
    ExitCode::from(u8::from(survived > 0))
}

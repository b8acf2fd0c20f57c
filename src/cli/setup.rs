//! From the command line to the engine's options: a profile first, and over it what the command line says.

use super::{
    args::{self, DeviceOptions, RunOptions},
    exit::Exit,
    failure::{Failure, say},
};
use corelog::{
    Backend, Durability, Inspection, Options, RecoveryReport, Store, SyncMethod, limits::CORES_MAX,
};
use corelog_shards::format::superblock::ShardState;
use corelog_tuning::topology::Topology;
use std::path::Path;

/// The options for a command that runs the store's cores. Their bounds are checked where the store is opened.
pub fn options(run: &RunOptions) -> Result<Options, Failure> {
    let mut options = match &run.profile {
        Some(path) => profile(path)?,
        None => Options::default(),
    };
    if let Some(cores) = run.cores {
        options.cores = Some(cores.get());
    }
    if let Some(sync) = run.sync {
        options.sync = sync.into();
    }
    apply(&mut options, &run.device);
    Ok(options)
}

/// Refuses cores that would each take a new shard and find no CPU of their own: the shards would stay when the mistake is
/// long forgotten. Cores that share the CPUs but have shards are slow at worst, as where a host has become smaller.
pub fn check_cores(paths: &[&Path], options: &Options) -> Result<(), Failure> {
    let cpus = cpus();
    let is_doubtful = |cores: &u32| *cores > cpus && *cores <= CORES_MAX;
    let Some(cores) = options.cores.filter(is_doubtful) else { return Ok(()) };
    let store = Inspection::open(paths, options)?;
    let shards = store.superblock().shards.iter().filter(|shard| shard.state == ShardState::Active).count();
    let most = cpus.max(u32::try_from(shards).unwrap_or(u32::MAX));
    if cores <= most {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!(
            "cores is {cores}, more than the CPUs that this process may run on ({cpus}) and than the shards of the store ({shards}); ask for {most} at most, or leave it out: each core beyond the shards would add one to the store for good"
        ),
    ))
}

/// CPUs that this process may run on.
pub fn cpus() -> u32 {
    let planned = Topology::read(Path::new("/sys")).map(|topology| topology.cpus().len());
    let planned = planned.or_else(|_| std::thread::available_parallelism().map(usize::from)).unwrap_or(1);
    u32::try_from(planned).unwrap_or(1)
}

/// The options for a command that only looks. A store whose file system buffers can be looked at, with a note.
pub fn inspection_options(device: &DeviceOptions) -> Options {
    let mut options = Options::default().allow_buffered(true);
    apply(&mut options, device);
    options
}

fn apply(options: &mut Options, device: &DeviceOptions) {
    if let Some(backend) = device.backend {
        options.backend = backend.into();
    }
    options.allow_buffered |= device.allow_buffered;
}

fn profile(path: &Path) -> Result<Options, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::Failed, format!("profile {}: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| {
        let place = error.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
        let line = place.map_or_else(String::new, |line| format!("line {line}: "));
        Failure::new(Exit::Usage, format!("profile {}: {line}{}", path.display(), error.message().trim()))
    })
}

/// Says on standard error what opening had to cut off, which shards it added, and what the devices say of themselves that
/// weakens the store's promises. Gives the latter, for a report.
pub fn announce(store: &Store) -> Vec<String> {
    notes(store.recovery()).iter().for_each(|note| say(note));
    let added = store.added_shards();
    if !added.is_nothing() {
        say(&format!("note: {added}"));
    }
    let warnings: Vec<String> = store.warnings().iter().map(ToString::to_string).collect();
    warnings.iter().for_each(|warning| say(&format!("note: {warning}")));
    warnings
}

/// Lines for standard error about what opening had to cut off.
fn notes(report: &RecoveryReport) -> Vec<String> {
    let cut = report.shards.iter().filter(|shard| shard.tail.cut_frames > 0);
    let mut notes: Vec<String> = cut
        .map(|shard| {
            format!(
                "note: shard {}: {} frames behind the end of its log were cut off; nobody was told that they were durable",
                shard.shard, shard.tail.cut_frames
            )
        })
        .collect();
    for shard in report.shards.iter().filter(|shard| !shard.losses.is_empty()) {
        let places: Vec<String> = shard.losses.iter().map(|loss| loss.place.to_string()).collect();
        notes.push(format!("note: salvage gave up {}", places.join(", ")));
    }
    notes
}

/// What the host did not grant, each line once.
pub fn not_granted(store: &Store) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for grants in store.grants() {
        for line in grants.device.missing.into_iter().chain(grants.missing) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

impl From<args::Backend> for Backend {
    fn from(backend: args::Backend) -> Self {
        match backend {
            args::Backend::Uring => Self::IoUring,
            args::Backend::Threads => Self::Threads,
        }
    }
}

impl From<args::SyncMethod> for SyncMethod {
    fn from(sync: args::SyncMethod) -> Self {
        match sync {
            args::SyncMethod::Auto => Self::Auto,
            args::SyncMethod::Fdatasync => Self::Fdatasync,
            args::SyncMethod::Dsync => Self::Dsync,
        }
    }
}

impl From<args::Durability> for Durability {
    fn from(durability: args::Durability) -> Self {
        match durability {
            args::Durability::Buffered => Self::Buffered,
            args::Durability::Written => Self::Written,
            args::Durability::Durable => Self::Durable,
        }
    }
}

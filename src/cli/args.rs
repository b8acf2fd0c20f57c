//! The command line: plain data, as parsed. Bounds of the engine's options are checked where the options are built,
//! so that a profile, the library and the program give the same answer.

use super::{exit, size::ByteSize};
use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use corelog_shards::{address::Address, ids::ShardId};
use std::{
    num::{NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
    time::Duration,
};

mod overwrite;
mod retire;
mod values;

pub use overwrite::{OverwriteOptions, Policy, Skew};
pub use retire::Retire;
pub use values::{Framing, JsonTarget, KeyPart, Seconds};
use values::{parse_key, parse_seconds, parse_shard};

/// Where `bench` puts its store when nothing is said.
pub const BENCH_STORE_DEFAULT: &str = "corelog-data/bench.corelog";

/// A log-structured store: one append stream per core, straight to the device.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "corelog", version, after_help = exit::HELP, propagate_version = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Makes a new store in a file or on a block device.
    Format(Format),
    /// Appends records from files or from standard input.
    Append(Append),
    /// Prints the records of a store, in the order in which each shard took them.
    Cat(Cat),
    /// Prints the records at the given addresses.
    Read(Read),
    /// Shows what a store is made of, and what opening it found.
    Info(Info),
    /// Reads and checks every frame and record; exit code 1 and the places if there is damage.
    Verify(Verify),
    /// Frees what lies wholly before a record, for good.
    Trim(Trim),
    /// Makes a store larger: one of its files or devices became larger or is made so, or a further one comes.
    Grow(Grow),
    /// Retires a shard for good, so that it takes no more appends, and moves what it holds to another one if asked to.
    Retire(Retire),
    /// Copies all records into a file, from which `restore` makes a store again. For a store that nobody has open.
    Backup(Backup),
    /// Makes a store from a backup, and checks that all of it is there.
    Restore(Restore),
    /// Copies what is intact out of a damaged store into a new one; exit code 1 and the places if something is lost.
    Salvage(Salvage),
    /// Measures appends, durable appends, random reads and reopening on every core, and checks what it reads.
    Bench(Bench),
}

/// `corelog format`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Format {
    /// File to make, or block device to use.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// Size of the store, such as 8GiB; a block device is used whole if this is left out.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<ByteSize>,
    /// Shards, which are append streams; default: one for each CPU that this process may use.
    #[arg(long, value_name = "N")]
    pub shards: Option<NonZeroU32>,
    /// Unit of device space, a power of two, no smaller than the device's block; default: 4KiB.
    #[arg(long, value_name = "SIZE")]
    pub slot: Option<ByteSize>,
    /// Run of slots that a shard takes at a time, a power of two; default: 64MiB, less for a small store.
    #[arg(long, value_name = "SIZE")]
    pub extent: Option<ByteSize>,
    /// Do not write zeros over the whole store first: quick to make, slower and less safe to append to.
    #[arg(long)]
    pub sparse: bool,
    /// Use the path although it holds something; what it holds is lost.
    #[arg(long)]
    pub force: bool,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corelog append`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Append {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// Files to append, one after the other; `-` or none: standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// What a record is: a line without its end, the whole of a file, or a length (32 bits, little endian) and as
    /// many bytes.
    #[arg(long, value_enum, default_value_t = Framing::Line)]
    pub split: Framing,
    /// Which shard takes a record.
    #[command(flatten)]
    pub route: RouteArgs,
    /// When a record counts as appended.
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,
    /// Print the address of each record once it counts as appended, in input order.
    #[arg(long)]
    pub addresses: bool,
    /// Write to this file, as it goes, how much of the input counts as appended: a line with records and bytes each
    /// time that it is more.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub acks: Option<PathBuf>,
    /// Records that may wait for their durability at the same time; default: 262144.
    #[arg(long, value_name = "N")]
    pub in_flight: Option<NonZeroU32>,
    /// How the store is run.
    #[command(flatten)]
    pub run: RunOptions,
    /// Print records, bytes and rate as JSON. With --addresses, one JSON string a line comes first.
    #[arg(long)]
    pub json: bool,
}

/// How `append` routes; nothing given: to the shards in turn, so that all of them share the work.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(multiple = false)]
pub struct RouteArgs {
    /// Records with the same key go to the same shard. The key is `record` (all of it), `prefix:N` (its first N
    /// bytes), `field:N` (its Nth word, counted from 1) or `text:T` (always T).
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub key: Option<KeyPart>,
    /// All records go to this shard.
    #[arg(long, value_name = "N", value_parser = parse_shard)]
    pub shard: Option<ShardId>,
}

/// `corelog cat`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Cat {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// Only this shard; default: all of them, merged.
    #[arg(long, value_name = "N", value_parser = parse_shard)]
    pub shard: Option<ShardId>,
    /// Begin with the record at this address (of the shard given with --shard).
    #[arg(long, value_name = "ADDRESS", requires = "shard")]
    pub from: Option<Address>,
    /// Do not end at the end: print what is appended from then on, too.
    #[arg(long)]
    pub follow: bool,
    /// End after this many records.
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroU64>,
    /// What is printed around a record; `append --split` with the same word takes it back.
    #[arg(long, value_enum, default_value_t = Framing::Line)]
    pub join: Framing,
    /// Print each record's address and a tab in front of it.
    #[arg(long, conflicts_with = "join")]
    pub addresses: bool,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
}

/// `corelog read`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Read {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// Addresses, as `append --addresses` prints them.
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<Address>,
    /// What is printed around a record.
    #[arg(long, value_enum, default_value_t = Framing::Line)]
    pub join: Framing,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
}

/// `corelog info`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Info {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// List each extent, not only how many there are.
    #[arg(long)]
    pub extents: bool,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corelog verify`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Verify {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// Only this shard; default: all.
    #[arg(long, value_name = "N", value_parser = parse_shard)]
    pub shard: Option<ShardId>,
    /// Open the store, and read it through its cores at a bounded rate, as a server that embeds it does.
    #[arg(long, conflicts_with = "shard")]
    pub scrub: bool,
    /// With --scrub: most bytes per second; default: 64MiB.
    #[arg(long, value_name = "SIZE", requires = "scrub")]
    pub rate: Option<ByteSize>,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corelog trim`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Trim {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// The shard.
    #[arg(long, value_name = "N", value_parser = parse_shard)]
    pub shard: ShardId,
    /// The first record that is still wanted, as `append --addresses` and `cat --addresses` print it.
    #[arg(long, value_name = "ADDRESS")]
    pub before: Address,
    /// Give the freed space back to the file system or the device.
    #[arg(long)]
    pub discard: bool,
    /// Also what a cursor of the shard has not passed yet.
    #[arg(long)]
    pub past_cursors: bool,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corelog grow`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Grow {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// A further file to make, or block device to use. Every command has to be given it from then on, as --device.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub add: Option<PathBuf>,
    /// Size that the file or device is to have; without it a device that was made larger before is used whole.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<ByteSize>,
    /// Which of the store's devices, as `info` numbers them; default: 0.
    #[arg(long, value_name = "N", conflicts_with = "add", value_parser = clap::value_parser!(u16).range(0..16))]
    pub index: Option<u16>,
    /// Do not write zeros over what comes first.
    #[arg(long)]
    pub sparse: bool,
    /// With --add: use the path although it holds something; what it holds is lost.
    #[arg(long, requires = "add")]
    pub force: bool,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corelog backup`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Backup {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// The file to make.
    #[arg(value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Use OUT although there is a file; what it holds is lost.
    #[arg(long)]
    pub force: bool,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corelog restore`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Restore {
    /// The backup.
    #[arg(value_hint = ValueHint::FilePath)]
    pub backup: PathBuf,
    /// File to make, or block device to use.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// Size of the store, such as 8GiB; a block device is used whole if this is left out.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<ByteSize>,
    /// Do not write zeros over the whole store first.
    #[arg(long)]
    pub sparse: bool,
    /// Use the path although it holds something; what it holds is lost.
    #[arg(long)]
    pub force: bool,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corelog salvage`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Salvage {
    /// The damaged store; nothing is written to it.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// The store to make, with the same slots, extents and shards.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub out: PathBuf,
    /// Size of the new store; default: that of the damaged one.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<ByteSize>,
    /// Write the old and the new address of each record, a pair a line, to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub map: Option<PathBuf>,
    /// Do not write zeros over the whole new store first.
    #[arg(long)]
    pub sparse: bool,
    /// Use OUT although it holds something; what it holds is lost.
    #[arg(long)]
    pub force: bool,
    /// How the devices are used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corelog bench`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Bench {
    /// The store to make for it; an older one of `bench` is replaced.
    #[arg(default_value = BENCH_STORE_DEFAULT, value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// What to measure, in this order; several with commas.
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    #[arg(default_values_t = [Workload::Append, Workload::Durable, Workload::Read, Workload::Reopen])]
    pub workload: Vec<Workload>,
    /// Size of each record.
    #[arg(long, value_name = "SIZE", default_value = "1KiB")]
    pub record: ByteSize,
    /// End each workload after this much payload, too.
    #[arg(long, value_name = "SIZE")]
    pub bytes: Option<ByteSize>,
    /// How long each workload runs.
    #[arg(long, value_name = "S", default_value = "3", value_parser = parse_seconds)]
    pub seconds: Seconds,
    /// Size of the store; default: 4GiB, or half of what the disk has left if that is less.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<ByteSize>,
    /// Operations that each core keeps waiting in the durable and read workloads.
    #[arg(long, value_name = "N", default_value = "32")]
    pub in_flight: NonZeroU32,
    /// Memory that each core keeps read records in; default: none.
    #[arg(long, value_name = "SIZE")]
    pub cache: Option<ByteSize>,
    /// What the overwrite workload does.
    #[command(flatten)]
    pub overwrite: OverwriteOptions,
    /// What the append workload waits for at its end; the durable workload waits for each record.
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,
    /// Let the store's own threads drive the cores, and append and read from client threads; by default the threads
    /// that append drive the cores.
    #[arg(long)]
    pub hosted: bool,
    /// Compare with bare loops that copy, checksum and write and do nothing else, in turns, instead of running the
    /// workloads.
    #[cfg(feature = "yardsticks")]
    #[arg(long, group = "comparison")]
    pub yardsticks: bool,
    /// Which comparisons; several with commas.
    #[cfg(feature = "yardsticks")]
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', requires = "yardsticks")]
    #[arg(default_values_t = YardstickRow::ALL)]
    pub rows: Vec<YardstickRow>,
    /// Latency under load: durable appends that are due at fixed times, at parts of the highest rate, and a bare loop that is
    /// asked the same, in turns, instead of running the workloads.
    #[cfg(feature = "yardsticks")]
    #[arg(long, group = "comparison")]
    pub latency: bool,
    /// What an append costs as more is written (up to --bytes, 4GiB unless said), as records get longer, as more wait to be
    /// durable, and as there are more shards, instead of running the workloads.
    #[cfg(feature = "yardsticks")]
    #[arg(long, group = "comparison")]
    pub growth: bool,
    /// Percents of the highest rate; several with commas.
    #[cfg(feature = "yardsticks")]
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', requires = "latency")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=200), default_values_t = [10, 50, 80])]
    pub loads: Vec<u32>,
    /// How often each comparison is made; the medians count.
    #[cfg(feature = "yardsticks")]
    #[arg(long, value_name = "N", default_value = "5", requires = "comparison")]
    pub repeats: NonZeroU32,
    /// How the store is run.
    #[command(flatten)]
    pub run: RunOptions,
    /// Print as JSON, to FILE if one is given.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<JsonTarget>,
    /// Draw the rate of each core and the latencies, or what grows, into this SVG file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// Keep the store; it is removed otherwise. What an interrupted run leaves is replaced by the next.
    #[arg(long)]
    pub keep: bool,
}

/// A kind of comparison with a bare loop.
#[cfg(feature = "yardsticks")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum YardstickRow {
    /// The ring on a device that stores nothing.
    Ring,
    /// Appends, durable at the end.
    Ingest,
    /// Appends that each wait until they are durable.
    Durable,
    /// Reads of random records, from the device and from the cache.
    Read,
    /// Opening as after a kill.
    Reopen,
}

#[cfg(feature = "yardsticks")]
impl YardstickRow {
    /// In the order of the table.
    pub const ALL: [Self; 5] = [Self::Ring, Self::Ingest, Self::Durable, Self::Read, Self::Reopen];
}

/// How a store is run, for the commands that run its cores.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RunOptions {
    /// Cores to run the shards on; default: one for each CPU that this process may use, and no more than shards. Each beyond
    /// the shards adds one to the store for good; that takes a CPU for each core.
    #[arg(long, value_name = "N")]
    pub cores: Option<NonZeroU32>,
    /// Options from a TOML profile; what the command line says comes before it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub profile: Option<PathBuf>,
    /// How writes are made durable; default: auto.
    #[arg(long, value_enum)]
    pub sync: Option<SyncMethod>,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
}

/// How a device is used, for every command.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub struct DeviceOptions {
    /// A further file or block device of the store, beside the one given as the store; once for each, in any order.
    #[arg(long = "device", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub further: Vec<PathBuf>,
    /// What does the I/O; default: io_uring.
    #[arg(long, value_enum)]
    pub backend: Option<Backend>,
    /// Go on where direct I/O is not to be had (tmpfs, btrfs): through the page cache.
    #[arg(long)]
    pub allow_buffered: bool,
}

impl DeviceOptions {
    /// All devices of the store.
    #[must_use]
    pub fn paths<'a>(&'a self, store: &'a Path) -> Vec<&'a Path> {
        std::iter::once(store).chain(self.further.iter().map(PathBuf::as_path)).collect()
    }
}

/// When a record counts as appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// It is in memory.
    Buffered,
    /// The device has it: it survives the end of this process.
    Written,
    /// The device has flushed it: it survives a power cut.
    Durable,
}

/// How writes are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncMethod {
    /// One durable write where that is all that its waiters lack, else one flush for all that wait.
    Auto,
    /// Writes, then one flush for all that wait.
    Fdatasync,
    /// Each write is durable when it completes.
    Dsync,
}

/// What does the I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// io_uring, or an error that says why not.
    Uring,
    /// A pool of threads; for hosts that forbid io_uring.
    Threads,
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Appends as fast as the ring takes them, durable at the end.
    Append,
    /// Appends that each wait until they are durable.
    Durable,
    /// Reads of random records.
    Read,
    /// Opening the store again, after it was left without a clean close.
    Reopen,
    /// Values that are written over again and again, while cleaning makes the room; in a store of its own, so it is named
    /// alone.
    Overwrite,
}

impl Bench {
    /// How long each workload runs.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        self.seconds.0
    }
}

#[cfg(test)]
mod tests;

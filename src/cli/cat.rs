//! `corelog cat`.

use super::{
    args::{Cat, Framing},
    exit::Exit,
    failure::Failure,
    log::{Log, LogError, Reading},
    read::{inspect, write_record},
    setup,
};
use corelog::{Address, Inspection, RecoveredShard, ShardId};
use corelog_shards::{
    extents::ExtentUse,
    scan::{OnDamage, Position, ScanRecord, Start, Wanted},
};
use std::{
    collections::BTreeMap,
    io::{self, BufWriter, StdoutLock, Write},
    time::{Duration, Instant},
};

/// How often a log is looked at for more, at most.
const FOLLOW_PAUSE_MIN: Duration = Duration::from_millis(100);
/// And so that looking takes no more than this part of the time.
const FOLLOW_SHARE: u32 = 10;

/// Runs the command: a shard's records in the order in which it took them; of several shards, the one whose next
/// record's frame was submitted first. The first damage ends it; what is in front of it is printed.
pub fn run(args: &Cat) -> Result<(), Failure> {
    let mut printer = Printer::new(args);
    let mut positions = BTreeMap::new();
    let began = Instant::now();
    let store = inspect(&args.store, args.device)?;
    let mut looked = began.elapsed();
    let mut is_wanted = print(&store, args, &mut positions, &mut printer)?;
    drop(store);
    while args.follow && is_wanted {
        std::thread::sleep(FOLLOW_PAUSE_MIN.max(looked * FOLLOW_SHARE));
        let began = Instant::now();
        let store = Inspection::open(&[&args.store], &setup::inspection_options(args.device))?;
        looked = began.elapsed();
        is_wanted = print(&store, args, &mut positions, &mut printer)?;
    }
    Ok(())
}

/// Prints what is new. False: as many records as were wanted are printed.
fn print(
    store: &Inspection,
    args: &Cat,
    positions: &mut BTreeMap<ShardId, Position>,
    printer: &mut Printer,
) -> Result<bool, Failure> {
    let mut heads = Vec::new();
    for shard in shards(store, args.shard)? {
        let start = match (positions.get(&shard.shard), args.from) {
            (Some(position), _) => Start::Position(*position),
            (None, Some(address)) => from_address(store, shard, address)?,
            (None, None) => Start::Oldest,
        };
        let reading = Reading { start, wanted: Wanted::Data, on_damage: OnDamage::Stop };
        let mut log = Log::new(store, shard, reading);
        let next = log.next();
        heads.push(Head { shard: shard.shard, log, next });
    }
    let printed = merge(&mut heads, printer);
    for head in &heads {
        // A shard without a frame has no place to go on from.
        if store.report().shards.get(usize::from(head.shard.0)).is_some_and(|shard| shard.frames > 0) {
            positions.insert(head.shard, head.log.position());
        }
    }
    let flushed = printer.out.flush().map_err(Failure::of_output);
    printed.and_then(|is_wanted| flushed.map(|()| is_wanted))
}

struct Head<'a> {
    shard: ShardId,
    log: Log<'a>,
    next: Option<Result<ScanRecord, LogError>>,
}

fn merge(heads: &mut [Head<'_>], printer: &mut Printer) -> Result<bool, Failure> {
    // Damage first: whoever stops at it stops at once.
    let key = |head: &Head<'_>| head.next.as_ref().map(|next| next.as_ref().map_or(0, |it| it.unix_ns));
    while printer.left > 0 {
        let keyed = heads.iter_mut().filter_map(|head| Some((key(head)?, head)));
        let Some((_, head)) = keyed.min_by_key(|(time, head)| (*time, head.shard)) else { return Ok(true) };
        // One frame at a time: its records have one time, and a shard's frames are in order.
        if let Some(next) = head.next.take() {
            printer.print(&next?).map_err(Failure::of_output)?;
            if printer.left > 0 {
                head.next = head.log.next();
            }
        }
    }
    Ok(false)
}

fn shards(store: &Inspection, wanted: Option<ShardId>) -> Result<Vec<&RecoveredShard>, Failure> {
    let all = &store.report().shards;
    let Some(wanted) = wanted else { return Ok(all.iter().collect()) };
    let found = all.iter().find(|shard| shard.shard == wanted);
    found.map(|shard| vec![shard]).ok_or_else(|| no_such_shard(wanted, all.len()))
}

/// A shard that the command line names and the store does not have.
pub fn no_such_shard(shard: ShardId, shards: usize) -> Failure {
    let last = shards.saturating_sub(1);
    Failure::new(Exit::Usage, format!("the store has no {shard:?}; its shards are 0 to {last}"))
}

fn from_address(store: &Inspection, shard: &RecoveredShard, address: Address) -> Result<Start, Failure> {
    let extent = address.extent(&store.superblock().geometry);
    let no_record = |why: String| Failure::new(Exit::NoRecord, format!("address {address} {why}"));
    match store.extent(extent) {
        Some((entry, Some(ordinal))) if entry.usage == ExtentUse::Claimed => {
            if entry.shard != shard.shard {
                return Err(no_record(format!("is one of {:?}, not of {:?}", entry.shard, shard.shard)));
            }
            if !address.is_of(entry.generation) {
                return Err(no_record("was reclaimed: its extent belongs to a later generation".to_owned()));
            }
            Ok(Start::Address { address, ordinal })
        }
        _ => Err(no_record("is not one of a record of this store".to_owned())),
    }
}

struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    join: Framing,
    addresses: bool,
    left: u64,
}

impl Printer {
    fn new(args: &Cat) -> Self {
        Self {
            out: BufWriter::with_capacity(256 << 10, io::stdout().lock()),
            join: args.join,
            addresses: args.addresses,
            left: args.limit.map_or(u64::MAX, std::num::NonZeroU64::get),
        }
    }

    fn print(&mut self, record: &ScanRecord) -> io::Result<()> {
        self.left -= 1;
        if self.addresses {
            write!(self.out, "{}\t", record.address)?;
        }
        write_record(&mut self.out, &record.payload, self.join)
    }
}

//! `corelog cat`.

use super::{
    args::{Cat, Framing},
    failure::Failure,
    read::{inspect, write_large, write_record},
    setup,
};
use corelog::{Inspection, InspectionScan, Record, ScanError, ScanFrom, ShardId};
use corelog_shards::scan::Position;
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
    let store = inspect(&args.store, &args.device)?;
    let mut looked = began.elapsed();
    let mut is_wanted = print(&store, args, &mut positions, &mut printer)?;
    drop(store);
    while args.follow && is_wanted {
        std::thread::sleep(FOLLOW_PAUSE_MIN.max(looked * FOLLOW_SHARE));
        let began = Instant::now();
        let store =
            Inspection::open(&args.device.paths(&args.store), &setup::inspection_options(&args.device))?;
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
    let all = store.report().shards.iter().map(|shard| shard.shard);
    let shards = args.shard.map_or_else(|| all.collect(), |shard| vec![shard]);
    let mut heads = Vec::with_capacity(shards.len());
    for shard in shards {
        let from = match (positions.get(&shard), args.from) {
            (Some(position), _) => ScanFrom::Position(*position),
            (None, Some(address)) => ScanFrom::Address(address),
            (None, None) => ScanFrom::Oldest,
        };
        let mut scan = store.scan_from(shard, from)?;
        let next = scan.next();
        heads.push(Head { shard, scan, next });
    }
    let printed = merge(store, &mut heads, printer);
    positions.extend(heads.iter().filter_map(|head| Some((head.shard, head.scan.resume_at()?))));
    let flushed = printer.out.flush().map_err(Failure::of_output);
    printed.and_then(|is_wanted| flushed.map(|()| is_wanted))
}

struct Head<'a> {
    shard: ShardId,
    scan: InspectionScan<'a>,
    next: Option<Result<Record, ScanError>>,
}

fn merge(store: &Inspection, heads: &mut [Head<'_>], printer: &mut Printer) -> Result<bool, Failure> {
    // Damage first: whoever stops at it stops at once.
    let key = |head: &Head<'_>| head.next.as_ref().map(|next| next.as_ref().map_or(0, |it| it.unix_ns));
    while printer.left > 0 {
        let keyed = heads.iter_mut().filter_map(|head| Some((key(head)?, head)));
        let Some((_, head)) = keyed.min_by_key(|(time, head)| (*time, head.shard)) else { return Ok(true) };
        // One frame at a time: its records have one time, and a shard's frames are in order.
        if let Some(next) = head.next.take() {
            printer.print(store, &next?)?;
            if printer.left > 0 {
                head.next = head.scan.next();
            }
        }
    }
    Ok(false)
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

    fn print(&mut self, store: &Inspection, record: &Record) -> Result<(), Failure> {
        let is_whole = || store.open_large(record.address).and_then(|large| large.is_whole());
        // It was released, and some of it is given up. Of one that is damaged what is in front of the damage is written.
        if record.large_bytes.is_some() && matches!(is_whole(), Ok(false)) {
            return Ok(());
        }
        self.left -= 1;
        if self.addresses {
            write!(self.out, "{}\t", record.address).map_err(Failure::of_output)?;
        }
        if record.large_bytes.is_some() {
            return write_large(&mut self.out, store, record.address, self.join);
        }
        write_record(&mut self.out, &record.payload, self.join).map_err(Failure::of_output)
    }
}

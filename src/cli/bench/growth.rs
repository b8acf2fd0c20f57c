//! Cost as work grows: what an append costs as more is written, as records get longer, as more wait to be durable, and as
//! there are more shards. Hosted cores and one client thread; wall time, and CPU time of the whole process.

mod client;
mod curve;
mod plot;

use super::{
    cores,
    error::BenchError,
    ground::Ground,
    payload::Payload,
    yardsticks::{Comparison, print},
};
use crate::cli::{args::Bench, failure::Failure, size::ByteSize};
use client::Client;
use corelog::{Options, Store};
use curve::{Curve, Growth};
use std::time::Duration;

/// Written in all in the first curve when nothing is said.
const WRITTEN_BYTES: u64 = 4 << 30;
/// Its first point, and what doubles from there.
const WRITTEN_BYTES_MIN: u64 = 1 << 20;
/// The store of all curves but the last, which is trimmed as it is filled.
const STORE_BYTES: u64 = 4 << 30;
const EXTENTS: u64 = 64;
/// Of the records in all curves but that of sizes.
const RECORD_BYTES: usize = 256;
const SIZES: [usize; 11] =
    [16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 255 << 10, 1 << 20, 4 << 20, 16 << 20];
const IN_FLIGHT: [usize; 9] = [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000];
const SHARDS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Cores of the last curve.
const CORES: u32 = 2;
/// The store of the last curve, and what each shard of it has at least.
const SHARDS_STORE_BYTES: u64 = 2 << 30;
const SHARE_BYTES_MIN: u64 = 16 << 20;
/// Extents of that store, whatever the number of shards, so that they are of one size.
const SHARDS_EXTENTS: u64 = 1024;
/// Longest that one point is measured; `--seconds` may ask for less.
const POINT_TIME_MAX: Duration = Duration::from_secs(1);

/// Runs the command.
pub fn run(args: &Bench, options: &Options) -> Result<(), Failure> {
    let how = Comparison::new(args, options);
    let found = measure(&how)?;
    if let Some(path) = &args.svg {
        plot::draw(path, &found)?;
    }
    print(args, &found, |found| found.to_string())
}

fn measure(how: &Comparison<'_>) -> Result<Growth, BenchError> {
    let mut curves = vec![written(how)?];
    let size = ByteSize(STORE_BYTES);
    in_store(how, size, 1, EXTENTS, 1, |store| {
        let mut client = Client::new(store, 1);
        curves.push(sizes(how, &mut client)?);
        curves.push(in_flight(how, &mut client)?);
        Ok(())
    })?;
    curves.push(shards(how)?);
    Ok(Growth { repeats: how.repeats, curves })
}

/// Opens a fresh store, and closes it after the work.
fn in_store<T>(
    how: &Comparison<'_>,
    size: ByteSize,
    shards: u32,
    extents: u64,
    cores: u32,
    work: impl FnOnce(&Store) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let args = Bench { size: Some(how.args.size.unwrap_or(size)), ..how.args.clone() };
    let ground = Ground::make(&args, shards, extents)?;
    let store = Store::open(&ground.path, &how.options.clone().cores(cores))?;
    let done = work(&store);
    store.close()?;
    done
}

fn point_time(how: &Comparison<'_>) -> Duration {
    how.args.duration().min(POINT_TIME_MAX)
}

/// One long run, looked at whenever twice as much was written. Only once: its length is what it is about.
fn written(how: &Comparison<'_>) -> Result<Curve, BenchError> {
    let total = how.bytes(WRITTEN_BYTES).max(WRITTEN_BYTES_MIN);
    let mut curve = Curve::new(
        "written",
        "bytes written in all",
        "256 B, buffered; a store that is trimmed as it is filled",
    );
    in_store(how, ByteSize(STORE_BYTES), 1, EXTENTS, 1, |store| {
        let mut client = Client::new(store, 1);
        let mut payload = Payload::new(RECORD_BYTES, 1);
        let (mut done, mut next) = (0, WRITTEN_BYTES_MIN);
        while done < total {
            let next_bytes = next.min(total);
            let records = (next_bytes - done).div_ceil(RECORD_BYTES as u64);
            let found = client.records(&mut payload, records)?;
            done += records * RECORD_BYTES as u64;
            curve.add(next_bytes as f64, found);
            next *= 2;
        }
        client.make_durable()
    })?;
    Ok(curve)
}

fn sizes(how: &Comparison<'_>, client: &mut Client<'_>) -> Result<Curve, BenchError> {
    let mut curve = Curve::new(
        "sizes",
        "bytes of a record",
        "buffered; longer than a flush buffer: a large record, in parts",
    );
    for _ in 0..how.repeats {
        for bytes in SIZES.into_iter().filter(|&bytes| bytes as u64 <= client.store.large_bytes_max()) {
            let found = client.for_a_time(&mut Payload::new(bytes, 1), point_time(how))?;
            curve.add(bytes as f64, found);
        }
    }
    Ok(curve)
}

fn in_flight(how: &Comparison<'_>, client: &mut Client<'_>) -> Result<Curve, BenchError> {
    let mut curve = Curve::new(
        "in-flight",
        "records waiting to be durable",
        "256 B, from the append to the ack, over all that wait",
    );
    for _ in 0..how.repeats {
        for waiting in IN_FLIGHT {
            let found = client.durable(&mut Payload::new(RECORD_BYTES, 1), waiting, point_time(how))?;
            curve.add(waiting as f64, found);
        }
    }
    Ok(curve)
}

/// A store for each number of shards.
fn shards(how: &Comparison<'_>) -> Result<Curve, BenchError> {
    let cores = cores(how.options).min(CORES);
    let size = how.args.size.unwrap_or(ByteSize(SHARDS_STORE_BYTES));
    let mut curve = Curve::new(
        "shards",
        "shards, appended to in turn",
        "256 B, buffered; two cores where there are as many shards",
    );
    for shards in SHARDS.into_iter().filter(|&shards| size.0 / u64::from(shards) >= SHARE_BYTES_MIN) {
        let extents = SHARDS_EXTENTS / u64::from(shards);
        in_store(how, size, shards, extents, cores.min(shards), |store| {
            let mut client = Client::new(store, shards);
            for _ in 0..how.repeats {
                let found = client.for_a_time(&mut Payload::new(RECORD_BYTES, 1), point_time(how))?;
                curve.add(f64::from(shards), found);
            }
            Ok(())
        })?;
    }
    Ok(curve)
}

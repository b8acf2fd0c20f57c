//! Reads of records that the cache holds, against a table of the same bytes that is one thread's alone, takes no lock and
//! never lets go of anything.

use super::{
    super::{
        error::BenchError,
        payload::{Payload, Sequence},
    },
    Comparison,
    verdict::{Pairs, Target, Verdicts},
};
use bytes::Bytes;
use corelog::{Address, Store};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    time::{Duration, Instant},
};

const RECORD_BYTES: usize = 1024;
/// Of what is read, when nothing is said; the processor's caches do not hold it.
const BYTES: u64 = 64 << 20;
/// What a hit does beside the table: find the core's cache, a lock and its end, a look at the extent, a count.
const RATIO_MIN: f64 = 0.5;
const READS_PER_LOOK: u64 = 256;

/// Mixes an address as a table of integers would.
#[derive(Default)]
struct OfAddress(u64);

impl Hasher for OfAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, bits: u64) {
        let product = u128::from(bits) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

pub(super) fn run(how: &Comparison<'_>, found: &mut Verdicts) -> Result<(), BenchError> {
    let bytes = how.bytes(BYTES).min(BYTES);
    let ground = how.ground(2 * bytes, 1)?;
    let options = how.options.clone().cores(1).cache_bytes(2 * BYTES);
    let store = Store::open(&ground.path, &options)?;
    let mut payload = Payload::new(RECORD_BYTES, how.lanes(&ground, RECORD_BYTES).seed);
    let addresses = (0..(bytes / RECORD_BYTES as u64).max(1))
        .map(|number| Ok(store.append(payload.of(number))?.address()))
        .collect::<Result<Vec<Address>, BenchError>>()?;
    store.sync()?;
    let mut table: HashMap<u64, Bytes, BuildHasherDefault<OfAddress>> = HashMap::default();
    for address in &addresses {
        // The first handle makes the bytes shared, as they are in the cache.
        let record = Bytes::copy_from_slice(&store.read(*address)?);
        table.insert(address.to_bits(), record.clone());
    }
    let mut rate = Pairs::default();
    for _ in 0..how.repeats {
        let ours = reads_per_s(how.time(), &addresses, |address| Ok(store.read(address)?))?;
        let of_table = |address: Address| Ok(table.get(&address.to_bits()).cloned().unwrap_or_default());
        rate.add(ours, reads_per_s(how.time(), &addresses, of_table)?);
    }
    found.add(
        "cached reads, 1 KiB, one thread".to_owned(),
        "reads/s",
        "table without a lock",
        rate,
        Target::AtLeast(RATIO_MIN),
    );
    Ok(store.close()?)
}

/// Random reads on this thread; of each the number in front is compared.
fn reads_per_s(
    time: Duration,
    addresses: &[Address],
    mut read: impl FnMut(Address) -> Result<Bytes, BenchError>,
) -> Result<f64, BenchError> {
    let mut random = Sequence::new(7);
    let (start, mut reads) = (Instant::now(), 0);
    while start.elapsed() < time {
        for _ in 0..READS_PER_LOOK {
            let number = random.below(addresses.len());
            let address = addresses[number];
            if !read(address)?.starts_with(&(number as u64).to_le_bytes()) {
                return Err(BenchError::Damage { address, lane: 0, number: number as u64 });
            }
        }
        reads += READS_PER_LOOK;
    }
    Ok(reads as f64 / start.elapsed().as_secs_f64())
}

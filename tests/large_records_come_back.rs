//! What large records had comes back once they are released: bigger than an extent and smaller, alone and between others,
//! in this open and after a kill. What is wanted in between stays, and its owner is told what it keeps.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, Random, payload};
use corelog::{
    Address, AppendError, Durability, FormatOptions, Inspection, LargeReadError, Options, ReadError,
    RecordOwner, Route, Salvage, ShardId, Store,
};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use std::{
    collections::{BTreeMap, HashSet},
    io::Read,
    sync::{Arc, Mutex},
};

const EXTENT: u64 = 256 << 10;
const EXTENTS: u64 = 64;
const HEAD: usize = 16;
/// Where the small records of these tests end.
const SMALL: usize = 1000;

#[derive(Default)]
struct State {
    /// Where the newest version of each key is, and how long.
    at: BTreeMap<u64, (Address, u64, usize)>,
    dead: HashSet<Address>,
    in_the_way: Vec<Address>,
}

/// Keys and their versions; what nobody has overwritten is wanted.
#[derive(Default)]
struct Blobs(Mutex<State>);

impl RecordOwner for Blobs {
    fn is_live(&self, address: Address, _payload: &[u8]) -> bool {
        !self.0.lock().unwrap().dead.contains(&address)
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        let mut state = self.0.lock().unwrap();
        let (key, version) = head(payload);
        let known = state.at.get(&key).copied();
        if known.is_some_and(|(at, newest, _)| newest > version || (newest == version && at != from)) {
            return false;
        }
        // It may be newer than what its writer has said so far.
        state.dead.extend(known.filter(|(_, older, _)| *older < version).map(|(at, ..)| at));
        state.at.insert(key, (to, version, payload.len()));
        true
    }

    fn is_large_live(&self, address: Address) -> bool {
        !self.0.lock().unwrap().dead.contains(&address)
    }

    fn keeps_extent(&self, address: Address) {
        self.0.lock().unwrap().in_the_way.push(address);
    }
}

fn head(payload: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

fn value(key: u64, version: u64, length: usize) -> Vec<u8> {
    let mut value = payload(key, version, length);
    value[..8].copy_from_slice(&key.to_le_bytes());
    value[8..HEAD].copy_from_slice(&version.to_le_bytes());
    value
}

impl Blobs {
    /// What a store holds; the newest version of each key counts.
    fn of(store: &Store) -> Self {
        let mut state = State::default();
        for shard in store.shards() {
            for record in store.scan(shard.id()).unwrap().map(Result::unwrap) {
                let mut start = [0; HEAD];
                let length = match record.large_bytes {
                    None => {
                        start.copy_from_slice(&record.payload[..HEAD]);
                        record.payload.len()
                    }
                    Some(bytes) => match store.open_large(record.address).unwrap().read_at(0, &mut start) {
                        Ok(_) => bytes as usize,
                        Err(error) => {
                            assert!(is_reclaimed(&error), "{error}");
                            continue;
                        }
                    },
                };
                let (key, version) = head(&start);
                let known = state.at.get(&key).copied();
                if known.is_some_and(|(_, newest, _)| newest > version) {
                    state.dead.insert(record.address);
                    continue;
                }
                state.dead.extend(known.map(|(at, ..)| at));
                state.at.insert(key, (record.address, version, length));
            }
        }
        Self(Mutex::new(state))
    }

    /// A new version of a key. Durable, so that what it takes the place of is not wanted, whatever comes.
    fn write(&self, store: &Store, key: u64, length: usize) -> Result<(), AppendError> {
        let version = self.0.lock().unwrap().at.get(&key).map_or(0, |(_, version, _)| version + 1);
        let value = value(key, version, length);
        let route = Route::Shard(ShardId((key % store.shards().len() as u64) as u16));
        let ticket = if length <= SMALL {
            store.append_to(route, &value)?
        } else {
            let mut writer = store.append_large(route)?;
            writer.append(&value)?;
            writer.finish()?
        };
        ticket.wait(Durability::Durable).unwrap();
        let old = {
            let mut state = self.0.lock().unwrap();
            let old = state.at.get(&key).copied();
            if old.is_some_and(|(_, newest, _)| newest == version) {
                // Cleaning has moved it already.
                return Ok(());
            }
            state.at.insert(key, (ticket.address(), version, length));
            state.dead.extend(old.map(|(at, ..)| at));
            old
        };
        match old {
            Some((address, _, length)) if length > SMALL => store.release_large(address).unwrap(),
            Some((address, _, length)) => store.release(address, length).unwrap(),
            None => {}
        }
        Ok(())
    }

    /// Writes what keeps extents anew.
    fn make_way(&self, store: &Store) -> Result<(), AppendError> {
        loop {
            let Some(address) = self.0.lock().unwrap().in_the_way.pop() else { return Ok(()) };
            let found = {
                let state = self.0.lock().unwrap();
                state
                    .at
                    .iter()
                    .find(|(_, (at, ..))| *at == address)
                    .map(|(key, (.., length))| (*key, *length))
            };
            if let Some((key, length)) = found
                && let Err(error) = self.write(store, key, length)
            {
                // It is told once.
                self.0.lock().unwrap().in_the_way.push(address);
                return Err(error);
            }
        }
    }

    fn check(&self, store: &Store) {
        let keys: Vec<u64> = self.0.lock().unwrap().at.keys().copied().collect();
        for key in keys {
            let (found, version) = loop {
                let (address, version, length) = self.0.lock().unwrap().at[&key];
                let mut found = Vec::new();
                if length > SMALL {
                    store.open_large(address).unwrap().read_to_end(&mut found).unwrap();
                    break (found, version);
                }
                match store.read(address) {
                    Ok(read) => break (read.to_vec(), version),
                    // It was moved.
                    Err(ReadError::Reclaimed { .. }) => {
                        assert_ne!(self.0.lock().unwrap().at[&key].0, address)
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            assert!(found == value(key, version, found.len()), "key {key}, version {version}");
        }
    }
}

fn is_reclaimed(error: &LargeReadError) -> bool {
    matches!(error, LargeReadError::Read(ReadError::Reclaimed { .. }))
}

fn place(shards: u32, extents: u64) -> Place {
    let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + extents * EXTENT);
    Place::with(&format.shards(shards).extent_bytes(EXTENT).sparse())
}

fn options(shards: u32) -> Options {
    common::options(shards).buffer_bytes(16 << 10).checkpoint_bytes(EXTENT)
}

#[test]
fn a_large_record_that_is_overwritten_needs_no_room_but_its_own() {
    let place = place(1, EXTENTS);
    for length in [7 * EXTENT as usize / 2, EXTENT as usize / 3] {
        let mut blobs = Arc::new(Blobs::default());
        for round in 0..3 {
            let store = Store::open(&place.path, &options(1)).unwrap();
            if round > 0 {
                blobs = Arc::new(Blobs::of(&store));
            }
            store.clean_with(Arc::clone(&blobs) as Arc<dyn RecordOwner>).unwrap();
            for _ in 0..7 * EXTENTS as usize * EXTENT as usize / length {
                blobs.write(&store, 0, length).unwrap();
            }
            blobs.check(&store);
            let cleaned = store.stats().total.cleaning.extents;
            assert!(cleaned > EXTENTS, "{cleaned} extents");
            if round == 1 {
                store.close().unwrap();
            }
        }
    }
}

#[test]
fn blobs_of_all_lengths_are_overwritten_at_random_with_small_records_between() {
    let place = place(2, EXTENTS);
    let mut random = Random(11);
    // Three tenths of the store.
    let lengths: Vec<usize> = [2 * EXTENT as usize, EXTENT as usize * 3 / 4, 40_000]
        .iter()
        .flat_map(|&length| std::iter::repeat_n(length, (EXTENTS * EXTENT) as usize / 10 / length))
        .chain(std::iter::repeat_n(SMALL, 100))
        .collect();
    let mut blobs = Arc::new(Blobs::default());
    let options = Options { clean_low_percent: 20, clean_high_percent: 30, ..options(2) };
    for round in 0..3 {
        let store = Store::open(&place.path, &options).unwrap();
        if round > 0 {
            blobs = Arc::new(Blobs::of(&store));
            blobs.check(&store);
        }
        store.clean_with(Arc::clone(&blobs) as Arc<dyn RecordOwner>).unwrap();
        let mut bytes = 0;
        while bytes < 4 * EXTENTS * EXTENT {
            let key = random.below(lengths.len() as u64);
            let length = lengths[key as usize];
            let mut tries = 0;
            while let Err(error) = blobs.make_way(&store).and_then(|()| blobs.write(&store, key, length)) {
                assert!(matches!(error, AppendError::StoreFull { .. }), "{error}");
                tries += 1;
                assert!(
                    tries < 1000,
                    "{error} in round {round}, after {bytes} bytes: {:?}",
                    store.stats().total
                );
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            bytes += length as u64;
        }
        blobs.check(&store);
        if round == 1 {
            store.close().unwrap();
        }
    }
    let report = Inspection::open(&[&place.path], &options).unwrap().verify(None, &mut |_, _| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn what_is_left_of_a_released_record_is_passed_by() {
    let place = place(1, 2 * EXTENTS);
    let store = Store::open(&place.path, &options(1)).unwrap();
    let blobs = Arc::new(Blobs::default());
    store.clean_with(Arc::clone(&blobs) as Arc<dyn RecordOwner>).unwrap();
    // The list of this one lies in an extent that small records share, so that it outlives its parts. Its last part but
    // one is of the second level: lists of 16 KiB have 500 entries.
    let long = value(1, 0, 20 * EXTENT as usize);
    let mut writer = store.append_large(Route::Shard(ShardId(0))).unwrap();
    writer.append(&long).unwrap();
    let ticket = writer.finish().unwrap();
    let address = ticket.address();
    for key in 100..140 {
        blobs.write(&store, key, SMALL).unwrap();
    }
    let mut reader = store.open_large(address).unwrap();
    assert!(reader.is_whole().unwrap());
    assert!(!reader.next_part().unwrap().unwrap().is_empty());
    blobs.0.lock().unwrap().dead.insert(address);
    store.release_large(address).unwrap();
    // Cleaning needs more than half of what the record had.
    for _ in 0..4 * EXTENTS {
        blobs.write(&store, 2, EXTENT as usize / 2).unwrap();
    }
    assert!(!reader.is_whole().unwrap());
    let error = loop {
        match reader.next_part() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it is whole"),
            Err(error) => break error,
        }
    };
    assert!(is_reclaimed(&error), "{error}");
    // Twice is too often, and does no harm here: what is left of it is counted again.
    assert!(store.release_large(address).err().as_ref().is_none_or(is_reclaimed));

    // A scan may give it, and everybody else passes it by.
    let hold = store.hold_cleaning();
    let (cut, mut stream) = (store.cut(), Vec::new());
    let wanted = blobs.0.lock().unwrap().at.len() as u64;
    assert!(store.backup(&cut, &mut stream).unwrap().records >= wanted);
    drop(hold);
    blobs.check(&store);
    store.close().unwrap();
    let inspection = Inspection::open(&[&place.path], &options(1)).unwrap();
    let report = inspection.verify(None, &mut |_, _| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
    drop(inspection);
    let salvage = Salvage::open(&[&place.path], &options(1)).unwrap();
    let report = salvage.run(&mut |_| Ok::<_, std::convert::Infallible>(())).unwrap();
    assert_eq!(report.losses, 0, "{report:?}");
}

#[test]
fn what_is_not_large_or_not_there_is_refused() {
    let place = place(1, EXTENTS);
    let store = Store::open(&place.path, &options(1)).unwrap();
    let small = store.append_to(Route::Shard(ShardId(0)), b"small").unwrap();
    let error = store.release_large(small.address()).unwrap_err();
    assert!(matches!(error, LargeReadError::NotLarge { .. }), "{error}");
    let nowhere = Address::from_bits(small.address().to_bits() + (40 << 10));
    let error = store.release_large(nowhere).unwrap_err();
    assert!(matches!(error, LargeReadError::Read(_) | LargeReadError::Damage { .. }), "{error}");
    let mut writer = store.append_large(Route::Shard(ShardId(0))).unwrap();
    writer.append(&[7; 50_000]).unwrap();
    let ticket = writer.finish().unwrap();
    // Before it is on the device, too.
    store.release_large(ticket.address()).unwrap();
    assert_eq!(store.open_large(ticket.address()).unwrap().len(), 50_000);
}

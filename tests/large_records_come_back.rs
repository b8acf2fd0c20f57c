//! What large records had comes back once they are released: bigger than an extent and smaller, alone and between others,
//! in this open and after a kill. What is wanted in between is moved, or stays, and its owner is told what it keeps.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Over, Place, Random, payload};
use corelog::{
    Address, AppendError, Durability, FormatOptions, Inspection, LargeReadError, Options, ReadError,
    RecordOwner, Route, Salvage, ShardId, Store,
};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
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
    /// How often one of them was told.
    told: usize,
    /// How often a large record was moved.
    moved: usize,
    /// Large records that were moved before their writer had noted where they are.
    early: HashMap<Address, Address>,
}

/// Keys and their versions; what nobody has overwritten is wanted.
#[derive(Default)]
struct Blobs {
    state: Mutex<State>,
    moves: bool,
}

impl RecordOwner for Blobs {
    fn is_live(&self, address: Address, _payload: &[u8]) -> bool {
        !self.state.lock().unwrap().dead.contains(&address)
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        let mut state = self.state.lock().unwrap();
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
        !self.state.lock().unwrap().dead.contains(&address)
    }

    fn moves_large(&self) -> bool {
        self.moves
    }

    fn relocated_large(&self, from: Address, to: Address) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.dead.contains(&from) {
            state.dead.insert(to);
            return false;
        }
        if let Some(known) = state.at.values_mut().find(|(at, ..)| *at == from) {
            known.0 = to;
        } else if !state.at.values().any(|(at, ..)| *at == to) {
            state.early.insert(from, to);
        }
        state.moved += 1;
        true
    }

    fn keeps_extent(&self, address: Address) {
        let mut state = self.state.lock().unwrap();
        state.told += 1;
        state.in_the_way.push(address);
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
    fn of(store: &Store, moves: bool) -> Self {
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
        Self { state: Mutex::new(state), moves }
    }

    /// A new version of a key. Durable, so that what it takes the place of is not wanted, whatever comes.
    fn write(&self, store: &Store, key: u64, length: usize) -> Result<(), AppendError> {
        let version = self.state.lock().unwrap().at.get(&key).map_or(0, |(_, version, _)| version + 1);
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
            let mut state = self.state.lock().unwrap();
            let old = state.at.get(&key).copied();
            if old.is_some_and(|(_, newest, _)| newest == version) {
                // Cleaning has moved it already.
                return Ok(());
            }
            let mut address = ticket.address();
            while let Some(to) = state.early.remove(&address) {
                address = to;
            }
            state.at.insert(key, (address, version, length));
            state.dead.extend(old.map(|(at, ..)| at));
            old
        };
        match old {
            // Cleaning may have asked of it already, and was told that nobody wants it.
            Some((address, _, length)) if length > SMALL => {
                let refused = store.release_large(address).err();
                assert!(refused.as_ref().is_none_or(is_reclaimed), "{refused:?}");
            }
            Some((address, _, length)) => store.release(address, length).unwrap(),
            None => {}
        }
        Ok(())
    }

    /// Writes what keeps extents anew.
    fn make_way(&self, store: &Store) -> Result<(), AppendError> {
        loop {
            let Some(address) = self.state.lock().unwrap().in_the_way.pop() else { return Ok(()) };
            let found = {
                let state = self.state.lock().unwrap();
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
                self.state.lock().unwrap().in_the_way.push(address);
                return Err(error);
            }
        }
    }

    /// Makes way and writes, again and again while the store is full.
    fn write_once_there_is_room(&self, store: &Store, key: u64, length: usize) {
        let mut tries = 0;
        while let Err(error) = self.make_way(store).and_then(|()| self.write(store, key, length)) {
            assert!(matches!(error, AppendError::StoreFull { .. }), "{error}");
            tries += 1;
            assert!(tries < 2000, "{error}: {:?}", store.stats().total);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn check(&self, store: &Store) {
        let keys: Vec<u64> = self.state.lock().unwrap().at.keys().copied().collect();
        for key in keys {
            let (found, version) = loop {
                let (address, version, length) = self.state.lock().unwrap().at[&key];
                let mut found = Vec::new();
                if length > SMALL {
                    match store.open_large(address).map(|mut reader| reader.read_to_end(&mut found)) {
                        Ok(Ok(_)) => break (found, version),
                        // It was moved.
                        error => assert_ne!(self.state.lock().unwrap().at[&key].0, address, "{error:?}"),
                    }
                    continue;
                }
                match store.read(address) {
                    Ok(read) => break (read.to_vec(), version),
                    // It was moved.
                    Err(ReadError::Reclaimed { .. }) => {
                        assert_ne!(self.state.lock().unwrap().at[&key].0, address)
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
                blobs = Arc::new(Blobs::of(&store, blobs.moves));
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
    let (told, moved) = overwrite_at_random(false);
    assert!(told > 0 && moved == 0, "{told} were told, {moved} moved");
}

/// Those of two extents have too much elsewhere, whichever extent they keep.
#[test]
fn blobs_that_are_too_long_to_be_moved_are_told_where_the_others_are_moved() {
    let (told, moved) = overwrite_at_random(true);
    assert!(told > 0 && moved > 0, "{told} were told, {moved} moved");
}

/// How many were told that they are in the way, and how many moved.
fn overwrite_at_random(moves: bool) -> (usize, usize) {
    let place = place(2, EXTENTS);
    let mut random = Random(11);
    // Three tenths of the store.
    let lengths: Vec<usize> = [2 * EXTENT as usize, EXTENT as usize * 3 / 4, 40_000]
        .iter()
        .flat_map(|&length| std::iter::repeat_n(length, (EXTENTS * EXTENT) as usize / 10 / length))
        .chain(std::iter::repeat_n(SMALL, 100))
        .collect();
    let mut blobs = Arc::new(Blobs { moves, ..Blobs::default() });
    let options = Options { clean_low_percent: 20, clean_high_percent: 30, ..options(2) };
    let (mut told, mut moved) = (0, 0);
    for round in 0..3 {
        let store = Store::open(&place.path, &options).unwrap();
        if round > 0 {
            blobs = Arc::new(Blobs::of(&store, blobs.moves));
            blobs.check(&store);
        }
        store.clean_with(Arc::clone(&blobs) as Arc<dyn RecordOwner>).unwrap();
        let mut bytes = 0;
        while bytes < 4 * EXTENTS * EXTENT {
            let key = random.below(lengths.len() as u64);
            let length = lengths[key as usize];
            blobs.write_once_there_is_room(&store, key, length);
            bytes += length as u64;
        }
        blobs.check(&store);
        let state = blobs.state.lock().unwrap();
        (told, moved) = (told + state.told, moved + state.moved);
        drop(state);
        if round == 1 {
            store.close().unwrap();
        }
    }
    let report = Inspection::open(&[&place.path], &options).unwrap().verify(None, &mut |_, _| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
    (told, moved)
}

/// What a scan gives: each version of a key once at the most, and all that were wanted before it and after it.
fn scan_once(store: &Store, blobs: &Blobs) -> bool {
    let newest = || -> BTreeMap<u64, u64> {
        blobs.state.lock().unwrap().at.iter().map(|(key, (_, version, _))| (*key, *version)).collect()
    };
    let before = newest();
    let (mut given, mut is_sure) = (HashSet::new(), true);
    for shard in store.shards() {
        for record in store.scan(shard.id()).unwrap() {
            let record = record.unwrap();
            let mut start = [0; HEAD];
            match record.large_bytes {
                None => start.copy_from_slice(&record.payload[..HEAD]),
                Some(_) => match store.open_large(record.address).map(|it| it.read_at(0, &mut start)) {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) | Err(error) => {
                        assert!(is_reclaimed(&error), "{error}");
                        is_sure = false;
                        continue;
                    }
                },
            }
            assert!(given.insert(head(&start)), "{:?} came twice", head(&start));
        }
    }
    let after = newest();
    let stayed = before.iter().filter(|(key, version)| after.get(key) == Some(version));
    let missing: Vec<_> = stayed.filter(|(key, version)| !given.contains(&(**key, **version))).collect();
    assert!(!is_sure || missing.is_empty(), "{missing:?} did not come");
    is_sure
}

#[test]
fn large_records_that_are_wanted_are_moved_and_scans_give_each_once() {
    let place = place(2, EXTENTS);
    let mut random = Random(23);
    // Half of the store, of records that are up to a quarter of an extent, and small ones between.
    let lengths: Vec<usize> = [EXTENT as usize / 4, 40_000, 20_000]
        .iter()
        .flat_map(|&length| std::iter::repeat_n(length, (EXTENTS * EXTENT) as usize * 16 / 100 / length))
        .chain(std::iter::repeat_n(SMALL, 200))
        .collect();
    let mut blobs = Arc::new(Blobs { moves: true, ..Blobs::default() });
    let options = Options { clean_low_percent: 20, clean_high_percent: 30, ..options(2) };
    for round in 0..3 {
        let store = Store::open(&place.path, &options).unwrap();
        if round > 0 {
            blobs = Arc::new(Blobs::of(&store, blobs.moves));
            blobs.check(&store);
        }
        store.clean_with(Arc::clone(&blobs) as Arc<dyn RecordOwner>).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ends = Over(&is_over);
            let scans = scope.spawn(|| {
                let mut sure = 0;
                while !is_over.load(Ordering::Acquire) {
                    sure += u32::from(scan_once(&store, &blobs));
                }
                sure
            });
            let mut bytes = 0;
            while bytes < 2 * EXTENTS * EXTENT {
                let key = random.below(lengths.len() as u64);
                let length = lengths[key as usize];
                blobs.write_once_there_is_room(&store, key, length);
                bytes += length as u64;
            }
            drop(ends);
            assert!(scans.join().unwrap() > 0, "no scan came to its end without a record that left");
        });
        assert!(store.stats().total.cleaning.bytes_copied > EXTENT, "{:?}", store.stats().total.cleaning);
        blobs.check(&store);
        if round == 1 {
            store.close().unwrap();
        }
    }
    let report = Inspection::open(&[&place.path], &options).unwrap().verify(None, &mut |_, _| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
    let salvage = Salvage::open(&[&place.path], &options).unwrap();
    let mut given = HashMap::new();
    let report = salvage
        .run(&mut |record| {
            if record.part.as_ref().is_none_or(|part| part.offset == 0) && record.payload.len() >= HEAD {
                *given.entry(head(&record.payload)).or_insert(0) += 1;
            }
            Ok::<_, std::convert::Infallible>(())
        })
        .unwrap();
    assert_eq!(report.losses, 0, "{report:?}");
    for (key, (_, version, _)) in &blobs.state.lock().unwrap().at {
        assert_eq!(given.get(&(*key, *version)), Some(&1), "key {key}, version {version}");
    }
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
    blobs.state.lock().unwrap().dead.insert(address);
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
    let wanted = blobs.state.lock().unwrap().at.len() as u64;
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

//! A store that every kind of append filled, all at once: what was accepted is there, before and after it is opened again;
//! it is opened for writing although a shard has no room; and trimming, growing, and releasing with cleaning give it room
//! again.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{Place, block_on, payload};
use corelog::{
    Address, AppendError, DeviceIndex, Fill, FormatOptions, GrowBy, Options, ReadError, RecordOwner, Route,
    ShardId, SpaceError, SpaceRefusal, Store,
};
use corelog_shards::limits::{
    BUFFER_BYTES_MIN, CHECKPOINT_BYTES_MIN, EXTENT_BYTES_MIN, SUPERBLOCK_AREA_BYTES,
};
use std::{
    collections::{HashMap, HashSet},
    io::{IoSlice, Read},
    sync::{Arc, Mutex},
};

const SHARDS: u16 = 2;
const KINDS: u64 = 8;
/// A batch over all shards.
const OVER: u64 = 7;

const ALL: [u64; KINDS as usize] = [0, 1, 2, 3, 4, 5, 6, OVER];
/// Those whose records can be moved one by one.
const SINGLE: [u64; 5] = [0, 1, 2, 5, 6];

/// A record that was accepted, and what it is a record of.
struct Accepted {
    writer: u64,
    index: u64,
    length: usize,
    address: Address,
    is_large: bool,
}

fn place(extents: u64, shards: u32) -> Place {
    let bytes = SUPERBLOCK_AREA_BYTES + extents * EXTENT_BYTES_MIN;
    Place::with(&FormatOptions::sized(bytes).shards(shards).extent_bytes(EXTENT_BYTES_MIN).sparse())
}

fn options(buffer_bytes: u64) -> Options {
    common::options(2).buffer_bytes(buffer_bytes).checkpoint_bytes(CHECKPOINT_BYTES_MIN)
}

fn open(place: &Place, buffer_bytes: u64) -> Store {
    Store::open(&place.path, &options(buffer_bytes)).unwrap()
}

/// One append of a kind; an error leaves nothing of it in the log.
fn append(store: &Store, kind: u64, index: u64) -> Result<Vec<Accepted>, AppendError> {
    let route = Route::Shard(ShardId((index % u64::from(SHARDS)) as u16));
    let length = 8 + (index * 2311 % 12_000) as usize;
    let bytes = payload(kind, index, length);
    let accepted =
        |index, length, address| Accepted { writer: kind, index, length, address, is_large: false };
    let one = |address| Ok(vec![accepted(index, length, address)]);
    match kind {
        0 => one(store.append_to(route, &bytes)?.address()),
        1 => {
            let (front, back) = bytes.split_at(length / 3);
            one(store.append_vectored(route, &[IoSlice::new(front), IoSlice::new(back)])?.address())
        }
        2 => {
            let mut reservation = store.reserve(route, length)?;
            reservation.payload_mut().copy_from_slice(&bytes);
            one(reservation.commit().address())
        }
        3 => {
            let mut batch = store.batch(route)?;
            let records: Vec<(u64, usize)> = (0..20).map(|it| (index * 20 + it, length / 4)).collect();
            for (index, length) in &records {
                batch.append(&payload(kind, *index, *length))?;
            }
            let ticket = batch.commit()?;
            let addresses = ticket.addresses().unwrap().iter();
            let placed = records.iter().zip(addresses);
            Ok(placed.map(|((index, length), address)| accepted(*index, *length, *address)).collect())
        }
        4 => {
            let bytes = payload(kind, index, length * 6);
            let mut large = store.append_large(route)?;
            large.append(&bytes)?;
            let address = large.finish()?.address();
            Ok(vec![Accepted { is_large: true, ..accepted(index, bytes.len(), address) }])
        }
        5 => {
            let sent = store.send(route, bytes.into()).map_err(|refused| refused.error)?;
            one(block_on(sent).map_err(|refused| refused.error)?.address())
        }
        6 => one(block_on(store.append_async(route, &bytes))?.address()),
        _ => append_over(store, index, length / 4),
    }
}

/// Some records in each shard.
fn append_over(store: &Store, index: u64, length: usize) -> Result<Vec<Accepted>, AppendError> {
    let mut batch = store.batch_over()?;
    let name = |shard: u16, part: u64| (index * 4 + part) * u64::from(SHARDS) + u64::from(shard);
    for (shard, part) in (0..SHARDS).flat_map(|shard| (0..4).map(move |part| (shard, part))) {
        batch.append_to(Route::Shard(ShardId(shard)), &payload(OVER, name(shard, part), length))?;
    }
    let ticket = batch.commit()?;
    let of_shard = |shard: u16| {
        let addresses = ticket.addresses(ShardId(shard)).unwrap();
        let accepted = |(part, address): (u64, &Address)| Accepted {
            writer: OVER,
            index: name(shard, part),
            length,
            address: *address,
            is_large: false,
        };
        (0..).zip(addresses).map(accepted).collect::<Vec<_>>()
    };
    Ok((0..SHARDS).flat_map(of_shard).collect())
}

/// A thread for each kind, until it hears that the store is full.
fn fill(store: &Store, kinds: &[u64], first: u64) -> Vec<Accepted> {
    // A batch over shards waits for the device, and meanwhile the others may have filled the store.
    let over = kinds.contains(&OVER).then(|| append(store, OVER, first).unwrap());
    let accepted = std::thread::scope(|scope| {
        let threads: Vec<_> = kinds
            .iter()
            .map(|kind| {
                let kind = *kind;
                scope.spawn(move || {
                    let mut accepted = Vec::new();
                    // One shard may be full before the other.
                    let mut refused = 0;
                    for index in first + 1.. {
                        match append(store, kind, index) {
                            Ok(more) => accepted.extend(more),
                            // The next open gives what was decided to the shard that had no room for it.
                            Err(AppendError::StoreFull { .. } | AppendError::Unresolved { .. })
                                if refused < 8 =>
                            {
                                refused += 1;
                            }
                            Err(AppendError::StoreFull { .. } | AppendError::Unresolved { .. }) => {
                                return accepted;
                            }
                            Err(error) => panic!("kind {kind}: {error}"),
                        }
                    }
                    accepted
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    over.into_iter().flatten().chain(accepted).collect()
}

fn check(store: &Store, accepted: &[Accepted]) {
    for Accepted { writer, index, length, address, is_large } in accepted {
        let mut found = Vec::new();
        if *is_large {
            store.open_large(*address).unwrap().read_to_end(&mut found).unwrap();
        } else {
            found.extend_from_slice(&store.read(*address).unwrap());
        }
        assert!(found == payload(*writer, *index, *length), "record {index} of kind {writer}");
    }
}

/// Trims each shard before the newest record of its log that was accepted as one.
fn trim(store: &Store, accepted: &[Accepted]) -> u64 {
    let mut freed = 0;
    for shard in (0..SHARDS).map(ShardId) {
        let place = |address: Address| {
            let geometry = store.directory().layout.geometry();
            (store.directory().extents.ordinal(address.extent(geometry)), address.byte())
        };
        let own = accepted.iter().map(|it| it.address);
        let own = own.filter(|address| store.directory().owner_of(*address) == Ok(shard));
        let newest = own.max_by_key(|address| place(*address)).unwrap();
        freed += store.trim(shard, newest).unwrap().wait().unwrap().freed;
    }
    freed
}

#[test]
fn what_every_kind_of_append_filled_stays_readable_and_can_be_trimmed() {
    let place = place(40, SHARDS.into());
    let mut first = 0;
    for buffer_bytes in [32 << 10, 128 << 10, 32 << 10] {
        let store = open(&place, buffer_bytes);
        let accepted = fill(&store, &ALL, first);
        for kind in 0..KINDS {
            assert!(accepted.iter().any(|it| it.writer == kind), "none of kind {kind}");
        }
        first += 100_000;
        store.sync().unwrap();
        check(&store, &accepted);
        store.close().unwrap();
        // Buffers that hardly any shard has room for.
        let store = open(&place, 128 << 10);
        check(&store, &accepted);
        assert!(trim(&store, &accepted) > 10);
        for kind in 0..KINDS {
            let more = append(&store, kind, first).unwrap();
            store.sync().unwrap();
            check(&store, &more);
        }
        first += 1;
        store.close().unwrap();
    }
}

#[test]
fn what_every_kind_of_append_filled_can_be_grown() {
    let place = place(40, SHARDS.into());
    let store = open(&place, 32 << 10);
    let accepted = fill(&store, &ALL, 0);
    let bytes = SUPERBLOCK_AREA_BYTES + 60 * EXTENT_BYTES_MIN;
    let by = GrowBy::Device { device: DeviceIndex(0), bytes: Some(bytes) };
    assert_eq!(store.grow(&by, Fill::Sparse, &mut |_, _| {}).unwrap().extents, 20);
    let more = fill(&store, &ALL, 100_000);
    for kind in ALL {
        assert!(more.iter().any(|it| it.writer == kind), "none of kind {kind}");
    }
    store.sync().unwrap();
    check(&store, &accepted);
    check(&store, &more);
    store.close().unwrap();
}

/// Wants what nobody has released.
struct Released(HashSet<Address>, Mutex<HashMap<Address, Address>>);

impl RecordOwner for Released {
    fn is_live(&self, address: Address, _payload: &[u8]) -> bool {
        !self.0.contains(&address)
    }

    fn relocated(&self, from: Address, to: Address, _payload: &[u8]) -> bool {
        self.1.lock().unwrap().insert(from, to);
        true
    }
}

impl Released {
    /// The record that was appended at an address, wherever it is by now.
    fn read(&self, store: &Store, mut address: Address) -> Bytes {
        loop {
            match store.read(address) {
                Ok(found) => return found,
                Err(ReadError::Reclaimed { .. }) => address = self.1.lock().unwrap()[&address],
                Err(error) => panic!("{address}: {error}"),
            }
        }
    }
}

#[test]
fn what_single_appends_of_every_kind_filled_can_be_released_and_cleaned() {
    let place = place(40, SHARDS.into());
    let store = open(&place, 32 << 10);
    let mut accepted = fill(&store, &SINGLE, 0);
    store.sync().unwrap();
    // Two of three, all over the store.
    let is_kept = |it: &Accepted| it.index.is_multiple_of(3);
    let released: HashSet<Address> = accepted.iter().filter(|it| !is_kept(it)).map(|it| it.address).collect();
    for it in accepted.iter().filter(|it| !is_kept(it)) {
        store.release(it.address, it.length).unwrap();
    }
    let owner = Arc::new(Released(released, Mutex::default()));
    store.clean_with(Arc::clone(&owner) as Arc<dyn RecordOwner>).unwrap();
    let mut more = Vec::new();
    for index in 0..40 {
        for kind in SINGLE {
            more.extend(append(&store, kind, 100_000 + index).unwrap());
        }
    }
    store.sync().unwrap();
    accepted.retain(is_kept);
    accepted.extend(more);
    assert!(!owner.1.lock().unwrap().is_empty(), "nothing was cleaned");
    for Accepted { writer, index, length, address, .. } in accepted {
        assert!(
            owner.read(&store, address) == payload(writer, index, length),
            "record {index} of kind {writer}"
        );
    }
    store.close().unwrap();
}

/// Three shards on seven extents: the reserve is one extent, and the shards that find it taken are opened without room.
#[test]
fn a_shard_without_any_room_is_opened_and_goes_on_once_another_was_trimmed() {
    let place = place(7, 3);
    let store = open(&place, BUFFER_BYTES_MIN);
    let mut addresses: Vec<Vec<Address>> = vec![Vec::new(); 3];
    let mut is_full = [false; 3];
    for index in (0..3).cycle() {
        match store.append_to(Route::Shard(ShardId(index as u16)), &payload(index as u64, 0, 9000)) {
            Ok(ticket) => addresses[index].push(ticket.address()),
            Err(AppendError::StoreFull { .. }) => is_full[index] = true,
            Err(error) => panic!("{error}"),
        }
        if is_full == [true; 3] {
            break;
        }
    }
    store.close().unwrap();
    // Larger buffers, for which no shard has room: each needs an extent, and there is one.
    let store = open(&place, 64 << 10);
    assert_eq!(store.directory().extents.free_count(), 0);
    for (shard, own) in (0_u16..).zip(&addresses) {
        for address in own {
            assert_eq!(store.read(*address).unwrap(), payload(u64::from(shard), 0, 9000));
        }
        let refused = store.append_to(Route::Shard(ShardId(shard)), b"no room").unwrap_err();
        assert!(matches!(refused, AppendError::StoreFull { .. }), "{refused}");
    }
    let outcomes: Vec<_> = (0..3_u16)
        .map(|shard| {
            let newest = *addresses[usize::from(shard)].last().unwrap();
            store.trim(ShardId(shard), newest).unwrap().wait().map(|done| done.freed)
        })
        .collect();
    let is_parked = |outcome: &Result<u64, SpaceError>| {
        matches!(outcome, Err(SpaceError::Refused { refusal: SpaceRefusal::StoreFull, .. }))
    };
    assert!(outcomes.iter().any(|it| matches!(it, Ok(freed) if *freed > 0)), "{outcomes:?}");
    assert!(outcomes.iter().all(|it| it.is_ok() || is_parked(it)), "{outcomes:?}");
    for shard in 0..3_u16 {
        let newest = *addresses[usize::from(shard)].last().unwrap();
        let _done = store.trim(ShardId(shard), newest).unwrap().wait().unwrap();
        let ticket = store.append_to(Route::Shard(ShardId(shard)), b"room again").unwrap();
        ticket.wait(corelog::Durability::Durable).unwrap();
        assert_eq!(store.read(ticket.address()).unwrap(), "room again");
    }
    store.close().unwrap();
    let store = open(&place, BUFFER_BYTES_MIN);
    assert_eq!(store.scan(ShardId(2)).unwrap().last().unwrap().unwrap().payload, "room again");
    store.close().unwrap();
}

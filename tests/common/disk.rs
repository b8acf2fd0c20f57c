//! A disk that does what it is told to: media, a volatile cache in front of it, faults, and a power switch.
//!
//! It is a model and does no I/O; `fuse.rs` mounts it. A write goes to the cache and is read back from there; a sync
//! moves the cache to the media, unless it is told to fail or to lie. [`Disk::cut_power`] keeps, drops or tears each
//! write that is still in the cache.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Condvar, Mutex, MutexGuard},
    time::Duration,
};

pub const BLOCK: u64 = 4096;
const SECTOR: usize = 512;

/// SplitMix64: a seed gives the whole run again.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Read,
    Write,
    Sync,
}

/// What a fault does to the call that it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this errno. A failed sync empties the cache: what was in it never reaches the media.
    Errno(i32),
    /// It moves this many bytes only.
    Short(usize),
    /// It takes this long.
    Slow(Duration),
    /// It takes until [`Disk::release`].
    Hold,
    /// A sync that says it is done and does nothing.
    Lie,
}

/// A fault: which calls it hits, how often, and what it does.
#[derive(Clone, Debug)]
pub struct Fault {
    pub verb: Verb,
    /// Calls that touch one of these bytes; of no meaning for a sync.
    pub bytes: Range<u64>,
    /// Calls that it hits before it is over.
    pub times: u64,
    pub effect: Effect,
}

impl Fault {
    pub fn once(verb: Verb, effect: Effect) -> Self {
        Self { verb, bytes: 0..u64::MAX, times: 1, effect }
    }

    pub fn always(verb: Verb, effect: Effect) -> Self {
        Self { times: u64::MAX, ..Self::once(verb, effect) }
    }

    pub fn within(self, bytes: Range<u64>) -> Self {
        Self { bytes, ..self }
    }
}

/// What the disk was asked to do so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    /// Writes that passed by the cache.
    pub writes_through: u64,
    /// Syncs that did what they say.
    pub syncs: u64,
    pub faults: u64,
}

type Blocks = BTreeMap<u64, Box<[u8; BLOCK as usize]>>;

struct Cached {
    offset: u64,
    bytes: Vec<u8>,
}

struct State {
    bytes: u64,
    /// What a read sees.
    seen: Blocks,
    /// What survives a power cut.
    media: Blocks,
    cache: Vec<Cached>,
    faults: Vec<Fault>,
    counts: Counts,
    has_power: bool,
    /// How often held calls were let go.
    releases: u64,
}

pub struct Disk {
    state: Mutex<State>,
    released: Condvar,
}

/// The outcome of a call: bytes moved, or an errno.
pub type Outcome<T> = Result<T, i32>;

impl Disk {
    pub fn new(bytes: u64) -> Self {
        let state = State {
            bytes,
            seen: Blocks::new(),
            media: Blocks::new(),
            cache: Vec::new(),
            faults: Vec::new(),
            counts: Counts::default(),
            has_power: true,
            releases: 0,
        };
        Self { state: Mutex::new(state), released: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    // ---- switches -----------------------------------------------------------------------------------------------

    pub fn add(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Ends all faults and lets go what is held.
    pub fn mend(&self) {
        self.state().faults.clear();
        self.release();
    }

    pub fn release(&self) {
        self.state().releases += 1;
        self.released.notify_all();
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Writes that no sync has covered.
    pub fn cached(&self) -> usize {
        self.state().cache.len()
    }

    /// From now on everything fails, and each write in the cache was kept, dropped or torn.
    pub fn cut_power(&self, random: &mut Random) {
        let state = &mut *self.state();
        state.has_power = false;
        for cached in std::mem::take(&mut state.cache) {
            match random.below(4) {
                0 => {}
                1 => put(&mut state.media, cached.offset, &cached.bytes),
                2 => {
                    let sectors = random.below((cached.bytes.len() / SECTOR) as u64 + 1) as usize;
                    put(&mut state.media, cached.offset, &cached.bytes[..sectors * SECTOR]);
                }
                _ => {
                    for (index, sector) in cached.bytes.chunks(SECTOR).enumerate() {
                        if random.below(2) == 0 {
                            put(&mut state.media, cached.offset + (index * SECTOR) as u64, sector);
                        }
                    }
                }
            }
        }
        state.faults.clear();
        state.releases += 1;
        self.released.notify_all();
    }

    /// As [`Disk::cut_power`], but of the cache only those writes reach the media that `keeps` says so of, by their
    /// number in the cache and their place.
    pub fn cut_power_keeping(&self, keeps: impl Fn(usize, u64) -> bool) {
        let state = &mut *self.state();
        state.has_power = false;
        for (index, cached) in std::mem::take(&mut state.cache).into_iter().enumerate() {
            if keeps(index, cached.offset) {
                put(&mut state.media, cached.offset, &cached.bytes);
            }
        }
        state.faults.clear();
        state.releases += 1;
        self.released.notify_all();
    }

    pub fn cut_power_and_lose_the_cache(&self) {
        self.cut_power_keeping(|_, _| false);
    }

    pub fn restore_power(&self) {
        let state = &mut *self.state();
        state.seen = state.media.clone();
        state.has_power = true;
    }

    /// Damages a byte, in the cache and on the media.
    pub fn flip(&self, offset: u64, mask: u8) {
        let state = &mut *self.state();
        for blocks in [&mut state.seen, &mut state.media] {
            let block = blocks.entry(offset / BLOCK).or_insert_with(|| Box::new([0; BLOCK as usize]));
            block[(offset % BLOCK) as usize] ^= mask;
        }
    }

    /// All bytes that a read would see between two places.
    pub fn peek(&self, bytes: Range<u64>) -> Vec<u8> {
        get(&self.state().seen, bytes.start, (bytes.end - bytes.start) as usize)
    }

    // ---- calls ----------------------------------------------------------------------------------------------------

    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    pub fn resize(&self, bytes: u64) {
        let state = &mut *self.state();
        state.bytes = bytes;
        if bytes == 0 {
            state.seen.clear();
            state.media.clear();
            state.cache.clear();
        }
    }

    pub fn read(&self, offset: u64, length: usize) -> Outcome<Vec<u8>> {
        let effect = self.begin(Verb::Read, offset..offset + length as u64)?;
        let state = &mut *self.state();
        state.counts.reads += 1;
        let there = state.bytes.saturating_sub(offset).min(length as u64) as usize;
        let length = match effect {
            Some(Effect::Short(most)) => there.min(most),
            _ => there,
        };
        Ok(get(&state.seen, offset, length))
    }

    /// `through`: the caller asked that the bytes pass by the cache (`O_DSYNC`).
    pub fn write(&self, offset: u64, bytes: &[u8], through: bool) -> Outcome<usize> {
        let effect = self.begin(Verb::Write, offset..offset + bytes.len() as u64)?;
        let state = &mut *self.state();
        if !state.has_power {
            return Err(libc::EIO);
        }
        let bytes = match effect {
            Some(Effect::Short(most)) => &bytes[..most.min(bytes.len())],
            _ => bytes,
        };
        state.counts.writes += 1;
        put(&mut state.seen, offset, bytes);
        if through {
            state.counts.writes_through += 1;
            put(&mut state.media, offset, bytes);
        } else {
            state.cache.push(Cached { offset, bytes: bytes.to_vec() });
        }
        Ok(bytes.len())
    }

    pub fn sync(&self) -> Outcome<()> {
        let effect = match self.begin(Verb::Sync, 0..u64::MAX) {
            Ok(effect) => effect,
            Err(errno) => {
                self.state().cache.clear();
                return Err(errno);
            }
        };
        let state = &mut *self.state();
        if !state.has_power {
            return Err(libc::EIO);
        }
        if effect == Some(Effect::Lie) {
            return Ok(());
        }
        state.counts.syncs += 1;
        for cached in std::mem::take(&mut state.cache) {
            put(&mut state.media, cached.offset, &cached.bytes);
        }
        Ok(())
    }

    /// The fault that hits a call, after the time that it takes.
    fn begin(&self, verb: Verb, bytes: Range<u64>) -> Outcome<Option<Effect>> {
        let mut state = self.state();
        if !state.has_power {
            return Err(libc::EIO);
        }
        let hits = |fault: &Fault| {
            fault.verb == verb
                && fault.times > 0
                && fault.bytes.start < bytes.end
                && bytes.start < fault.bytes.end
        };
        let Some(index) = state.faults.iter().position(hits) else { return Ok(None) };
        state.faults[index].times -= 1;
        state.counts.faults += 1;
        let effect = state.faults[index].effect;
        match effect {
            Effect::Errno(errno) => return Err(errno),
            Effect::Slow(time) => {
                drop(state);
                std::thread::sleep(time);
            }
            Effect::Hold => {
                let before = state.releases;
                drop(self.released.wait_while(state, |state| state.releases == before).unwrap());
            }
            Effect::Short(_) | Effect::Lie => {}
        }
        Ok(Some(effect))
    }
}

fn put(blocks: &mut Blocks, offset: u64, bytes: &[u8]) {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let start = (at % BLOCK) as usize;
        let length = (BLOCK as usize - start).min(bytes.len() - done);
        let block = blocks.entry(at / BLOCK).or_insert_with(|| Box::new([0; BLOCK as usize]));
        block[start..start + length].copy_from_slice(&bytes[done..done + length]);
        done += length;
    }
}

fn get(blocks: &Blocks, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let start = (at % BLOCK) as usize;
        let count = (BLOCK as usize - start).min(length - done);
        if let Some(block) = blocks.get(&(at / BLOCK)) {
            bytes[done..done + count].copy_from_slice(&block[start..start + count]);
        }
        done += count;
    }
    bytes
}

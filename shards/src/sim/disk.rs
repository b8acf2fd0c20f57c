//! One simulated device: stable media, a volatile cache in front of it, and what a crash leaves of both.

use super::{
    image::{Image, PAGE_BYTES, SECTOR_BYTES, Taint},
    random::Random,
};
use std::sync::Arc;

/// A write that has not reached the media.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Counts completed writes; a sync covers those up to its submission.
    pub sequence: u64,
    pub offset: u64,
    pub bytes: Arc<[u8]>,
    /// A sync said that it is on the media.
    pub is_lied_about: bool,
}

/// What goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The machine: the cache is lost, as far as it had not been written back.
    Power,
    /// The process: what the device took stays.
    Kill,
}

/// How a crash treats what was on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    KeepAll,
    DropAll,
    /// Each write by itself.
    Mixed {
        tears: bool,
    },
}

impl Mood {
    pub(super) fn draw(random: &mut Random, tears: bool) -> Self {
        match random.below(5) {
            0 => Self::KeepAll,
            1 => Self::DropAll,
            _ => Self::Mixed { tears },
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    media: Image,
    /// What a read gives: the media with the cache over it. Its taints are the disk's.
    pub visible: Image,
    pub cache: Vec<Pending>,
    /// For each page, the life that last wrote it honestly.
    lives: Vec<u32>,
}

impl Disk {
    pub(super) fn new(bytes: u64) -> Self {
        let image = Image::new(bytes);
        let lives = vec![0; bytes as usize / PAGE_BYTES];
        Self { media: image.clone(), visible: image, cache: Vec::new(), lives }
    }

    /// A write arrives. `is_stable`: it does not come to rest in the cache.
    pub(super) fn land(&mut self, write: Pending, is_stable: bool) {
        self.visible.write(write.offset, &write.bytes);
        if !is_stable {
            self.cache.push(write);
            return;
        }
        let end = write.offset + write.bytes.len() as u64;
        let (media, cache) = (&mut self.media, &mut self.cache);
        cache.retain(|old| {
            let overlaps = old.offset < end && write.offset < old.offset + old.bytes.len() as u64;
            if overlaps {
                media.write(old.offset, &old.bytes);
            }
            !overlaps
        });
        media.write(write.offset, &write.bytes);
    }

    /// The bytes were written as they should be, by this life.
    pub(super) fn absolve(&mut self, offset: u64, length: u64, life: u32) {
        self.visible.absolve(offset, length);
        for page in offset as usize / PAGE_BYTES..(offset + length).div_ceil(PAGE_BYTES as u64) as usize {
            self.lives[page] = life;
        }
    }

    /// True if a life after `life` wrote any of the bytes.
    pub(super) fn is_younger(&self, offset: u64, length: u64, life: u32) -> bool {
        let pages = offset as usize / PAGE_BYTES..(offset + length).div_ceil(PAGE_BYTES as u64) as usize;
        self.lives[pages].iter().any(|written| *written > life)
    }

    /// An honest sync of what completed up to `sequence`.
    pub(super) fn sync(&mut self, sequence: u64) {
        let media = &mut self.media;
        self.cache.retain(|write| {
            if write.sequence <= sequence {
                media.write(write.offset, &write.bytes);
            }
            write.sequence > sequence
        });
    }

    /// A sync that fails: some of the cache was written back, the rest is gone for ever.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        for write in std::mem::take(&mut self.cache) {
            if random.one_in(3) {
                self.media.write(write.offset, &write.bytes);
            } else {
                let taint = if write.is_lied_about { Taint::LIE } else { Taint::DROPPED };
                self.visible.taint(write.offset, write.bytes.len() as u64, taint);
            }
        }
        let mut visible = self.media.clone();
        visible.take_taints(&self.visible);
        self.visible = visible;
    }

    pub(super) fn flip(&mut self, page: usize, bit: usize) {
        self.visible.flip(page, bit);
        self.media.flip(page, bit);
        self.visible.taint((page * PAGE_BYTES) as u64, 1, Taint::LIE);
    }

    /// What is left after a crash, with `flying` writes under way.
    pub(super) fn crash<'a>(
        &self,
        kind: Crash,
        mood: Mood,
        flying: impl Iterator<Item = (u64, &'a [u8])>,
        random: &mut Random,
    ) -> Self {
        match kind {
            Crash::Kill => self.after_kill(flying, random),
            Crash::Power => {
                let image = self.after_power_loss(mood, flying, random);
                let lives = self.lives.clone();
                Self { media: image.clone(), visible: image, cache: Vec::new(), lives }
            }
        }
    }

    /// What a process reads that starts after such a crash.
    pub(super) fn seen_after<'a>(
        &self,
        kind: Crash,
        mood: Mood,
        flying: impl Iterator<Item = (u64, &'a [u8])>,
        random: &mut Random,
    ) -> Image {
        if kind == Crash::Power {
            return self.after_power_loss(mood, flying, random);
        }
        let mut image = self.visible.clone();
        for (offset, bytes) in flying {
            if !random.one_in(3) {
                image.write(offset, bytes);
            }
        }
        image
    }

    fn after_kill<'a>(&self, flying: impl Iterator<Item = (u64, &'a [u8])>, random: &mut Random) -> Self {
        let mut disk = self.clone();
        for (offset, bytes) in flying {
            if !random.one_in(3) {
                let write =
                    Pending { sequence: u64::MAX - 1, offset, bytes: bytes.into(), is_lied_about: false };
                disk.land(write, false);
            }
        }
        // All of it completed long before any sync of the next life.
        disk.cache.iter_mut().for_each(|write| write.sequence = write.sequence.min(self.last_sequence()));
        disk
    }

    fn last_sequence(&self) -> u64 {
        self.cache.iter().map(|write| write.sequence).max().unwrap_or(0)
    }

    fn after_power_loss<'a>(
        &self,
        mood: Mood,
        flying: impl Iterator<Item = (u64, &'a [u8])>,
        random: &mut Random,
    ) -> Image {
        let mut image = self.media.clone();
        image.take_taints(&self.visible);
        for write in &self.cache {
            let is_whole = keep(&mut image, write.offset, &write.bytes, mood, random);
            if write.is_lied_about && !is_whole {
                image.taint(write.offset, write.bytes.len() as u64, Taint::LIE);
            }
        }
        for (offset, bytes) in flying {
            keep(&mut image, offset, bytes, mood, random);
        }
        image
    }
}

/// Brings a write, a part of it, or nothing to the media. True: all of it.
fn keep(image: &mut Image, offset: u64, bytes: &[u8], mood: Mood, random: &mut Random) -> bool {
    let fate = match mood {
        Mood::KeepAll => 0,
        Mood::DropAll => 1,
        Mood::Mixed { tears } => random.below(2 + 2 * u64::from(tears)),
    };
    match fate {
        0 => image.write(offset, bytes),
        1 => {}
        torn => tear(image, offset, bytes, torn == 2, random),
    }
    fate == 0
}

fn tear(image: &mut Image, offset: u64, bytes: &[u8], is_prefix: bool, random: &mut Random) {
    let unit = random.pick(&[SECTOR_BYTES, PAGE_BYTES]);
    let pieces = bytes.len().div_ceil(unit);
    let whole = random.index(pieces + 1);
    for (index, piece) in bytes.chunks(unit).enumerate() {
        if if is_prefix { index < whole } else { random.one_in(2) } {
            image.write(offset + (index * unit) as u64, piece);
        }
    }
}

//! A list as it grows: at most one unfinished node of each level is in memory.

use crate::{
    format::{
        manifest::{MANIFEST_ENTRY_BYTES, MANIFEST_HEADER_BYTES, Manifest, ManifestEntry},
        record::{RecordFlags, RecordKind},
    },
    ids::{ExtentOrdinal, FrameNumber},
    limits::{MANIFEST_LEVELS_MAX, MANIFEST_NODE_BYTES_MAX},
    mutant::{self, Mutant},
    ring::reservation::Placed,
    shard::{Shard, ShardRefusal},
    writers::WriterPin,
};

/// Room for a control record beside the root of a list, headers included.
const NOTE_BYTES: usize = 64;

/// The unfinished nodes, from the lowest level up.
#[derive(Debug)]
pub(super) struct Levels {
    kind: RecordKind,
    nodes: Vec<Vec<ManifestEntry>>,
    bytes: u64,
    /// Keeps what is written from being trimmed before the root says that it is needed.
    pin: Option<WriterPin>,
    /// The extent of the first group or part.
    from: Option<ExtentOrdinal>,
}

impl Levels {
    pub(super) const fn new(kind: RecordKind) -> Self {
        Self { kind, nodes: Vec::new(), bytes: 0, pin: None, from: None }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries of a node; what a buffer holds, up to the limit.
    fn capacity(shard: &Shard) -> usize {
        let payload = shard.ring().payload_bytes_max().min(MANIFEST_NODE_BYTES_MAX) as usize;
        // A root may have to share a frame with a note.
        (payload - NOTE_BYTES - MANIFEST_HEADER_BYTES) / MANIFEST_ENTRY_BYTES
    }

    /// Makes room for one more entry of the lowest level, to be called before what it stands for is written. May be
    /// called again after a refusal: each step is whole.
    pub(super) fn make_room(&mut self, shard: &Shard) -> Result<(), ShardRefusal> {
        self.pin.get_or_insert_with(|| shard.pin_writer());
        self.make_room_at(0, shard)
    }

    fn make_room_at(&mut self, level: usize, shard: &Shard) -> Result<(), ShardRefusal> {
        let capacity = Self::capacity(shard);
        let is_full = |node: &Vec<ManifestEntry>| node.len() >= capacity;
        let full = self.nodes.iter().skip(level).take_while(|node| is_full(node)).count();
        // From the top, so that each finds room above it.
        for index in (level..level + full).rev() {
            self.write_into_parent(index, shard)?;
        }
        Ok(())
    }

    fn write_into_parent(&mut self, index: usize, shard: &Shard) -> Result<(), ShardRefusal> {
        let entry = self.write(index, RecordFlags::LIST_PART, shard)?.0;
        self.nodes[index].clear();
        if self.nodes.len() == index + 1 {
            self.nodes.push(Vec::new());
        }
        self.nodes[index + 1].push(entry);
        Ok(())
    }

    /// Adds an entry; there is room for it.
    pub(super) fn push(&mut self, shard: &Shard, entry: ManifestEntry) {
        self.bytes += entry.bytes;
        self.from = self.from.or_else(|| shard.ring().ordinal_of(entry.address));
        if self.nodes.is_empty() {
            self.nodes.push(Vec::new());
        }
        if mutant::is_active(Mutant::ManifestSkipsPart) && self.nodes[0].len() == 1 {
            return;
        }
        self.nodes[0].push(entry);
    }

    /// Writes what is left, the root last. May be called again after a refusal, and not after it is done.
    pub(super) fn finish(&mut self, shard: &Shard) -> Result<Placed, ShardRefusal> {
        let placed = self.finish_as(shard, RecordFlags::NONE)?;
        self.end_pin(placed.frame);
        Ok(placed)
    }

    /// From here on the owner knows what the list needs.
    pub(super) fn end_pin(&self, frame: FrameNumber) {
        if let Some(pin) = &self.pin {
            pin.end(frame);
        }
    }

    /// The payload of the root, once it was written.
    pub(super) fn root(&self) -> Vec<u8> {
        let (level, entries) = (self.nodes.len().saturating_sub(1), self.nodes.last());
        let entries = entries.map(Vec::as_slice).unwrap_or_default();
        let mut payload = vec![0; Manifest::payload_bytes(entries.len())];
        Manifest::encode(level as u8, self.from, entries, &mut payload);
        payload
    }

    /// As [`Levels::finish`], with a root of these flags, and what is pinned stays so.
    pub(super) fn finish_as(&mut self, shard: &Shard, flags: RecordFlags) -> Result<Placed, ShardRefusal> {
        if self.nodes.is_empty() {
            self.nodes.push(Vec::new());
        }
        let root = self.nodes.len() - 1;
        for index in 0..root {
            // Done by an earlier try, or never begun.
            if self.nodes[index].is_empty() {
                continue;
            }
            self.make_room_at(index + 1, shard)?;
            self.write_into_parent(index, shard)?;
        }
        if self.nodes.len() - 1 > root {
            // The top was full, and has got a level above it.
            return self.finish_as(shard, flags);
        }
        Ok(self.write(root, flags, shard)?.1)
    }

    fn write(
        &self,
        index: usize,
        flags: RecordFlags,
        shard: &Shard,
    ) -> Result<(ManifestEntry, Placed), ShardRefusal> {
        let entries = &self.nodes[index];
        // The smallest node has hundreds of entries, so that no store is large enough for so many levels.
        debug_assert!(index < usize::from(MANIFEST_LEVELS_MAX));
        let length = Manifest::payload_bytes(entries.len());
        let mut reservation = shard.try_reserve(length)?;
        Manifest::encode(index as u8, self.from, entries, reservation.payload_mut());
        let placed = reservation.commit(self.kind, flags);
        let entry = ManifestEntry {
            address: placed.address,
            length: length as u32,
            bytes: entries.iter().map(|entry| entry.bytes).sum(),
            records: entries.iter().map(|entry| entry.records).sum(),
        };
        Ok((entry, placed))
    }
}

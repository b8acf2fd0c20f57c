//! Waiting for pieces of the input, and saying that they are safe.

use crate::cli::{exit::Exit, failure::Failure, progress::Progress};
use corelog::{Address, Durability, FrameNumber, ShardId, Store, Ticket, TicketId};
use crossbeam_channel::{Receiver, Sender};
use std::{
    fs::File,
    io::{self, Write},
};

/// What one shard has of a piece, or of everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part {
    /// Records.
    pub records: u64,
    /// Their payload.
    pub bytes: u64,
    /// The last record: its shard's frames up to this one have to arrive.
    last: Option<(FrameNumber, Address)>,
}

/// Records that follow each other in the input.
#[derive(Debug)]
pub struct Piece {
    shards: Vec<Part>,
    records: u64,
    bytes: u64,
    /// In the order of the input; empty if nobody wants them.
    addresses: Vec<Address>,
}

impl Piece {
    /// Without a record.
    pub fn new(shards: usize) -> Self {
        Self { shards: vec![Part::default(); shards], records: 0, bytes: 0, addresses: Vec::new() }
    }

    /// Records.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Their payload.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the record that the ticket is for.
    pub fn add(&mut self, ticket: Ticket<'_>, bytes: u64, keep_address: bool) {
        // The store gives tickets of its own shards only.
        let Some(part) = self.shards.get_mut(usize::from(ticket.shard().0)) else { return };
        part.records += 1;
        part.bytes += bytes;
        part.last = Some((ticket.frame(), ticket.address()));
        self.records += 1;
        self.bytes += bytes;
        if keep_address {
            self.addresses.push(ticket.address());
        }
    }

    /// Sets the shards to work on what the piece will be waited for.
    pub fn ask(&self, store: &Store, durability: Durability) {
        for id in self.last_records() {
            if let Some(shard) = store.shard(id.shard) {
                shard.request(id.frame, durability);
            }
        }
    }

    fn last_records(&self) -> impl Iterator<Item = TicketId> + '_ {
        let shards = (0..).map(ShardId).zip(&self.shards);
        shards
            .filter_map(|(shard, part)| part.last.map(|(frame, address)| TicketId { address, shard, frame }))
    }

    fn clear(&mut self) {
        self.shards.fill(Part::default());
        self.addresses.clear();
        (self.records, self.bytes) = (0, 0);
    }
}

/// What is as safe as it was to be: the first records of the input.
#[derive(Debug)]
pub struct Acknowledged {
    /// Records.
    pub records: u64,
    /// Their payload.
    pub bytes: u64,
    /// What of it each shard has.
    pub shards: Vec<Part>,
}

/// Where acknowledgements are told.
#[derive(Debug)]
pub struct Output {
    addresses: bool,
    json: bool,
    counts: Option<File>,
    progress: Progress,
    line: Vec<u8>,
}

impl Output {
    /// Addresses on standard output, as JSON strings or plain; counts in a file.
    pub const fn new(addresses: bool, json: bool, counts: Option<File>, progress: Progress) -> Self {
        Self { addresses, json, counts, progress, line: Vec::new() }
    }

    fn tell(&mut self, piece: &Piece, so_far: &Acknowledged) -> Result<(), Failure> {
        self.progress.advance(piece.bytes + piece.records);
        if let Some(counts) = &mut self.counts {
            writeln!(counts, "{} {}", so_far.records, so_far.bytes).map_err(|error| {
                Failure::new(Exit::Failed, format!("writing the file of acknowledgements failed: {error}"))
            })?;
        }
        if self.addresses {
            self.line.clear();
            for address in &piece.addresses {
                // A vector takes everything.
                let _written = match self.json {
                    true => writeln!(self.line, "\"{address}\""),
                    false => writeln!(self.line, "{address}"),
                };
            }
            let mut out = io::stdout().lock();
            out.write_all(&self.line).and_then(|()| out.flush()).map_err(|error| {
                let text = format!("writing addresses to standard output failed: {error}");
                Failure::new(Exit::Failed, text)
            })?;
        }
        Ok(())
    }
}

/// Takes pieces in the order of the input.
#[derive(Debug)]
pub struct Acker<'a> {
    store: &'a Store,
    durability: Durability,
    output: Output,
    acknowledged: Acknowledged,
}

impl<'a> Acker<'a> {
    /// Nothing is acknowledged yet.
    pub fn new(store: &'a Store, durability: Durability, output: Output) -> Self {
        let shards = vec![Part::default(); store.shards().len()];
        Self { store, durability, output, acknowledged: Acknowledged { records: 0, bytes: 0, shards } }
    }

    /// Works until no more pieces come, or until one cannot be acknowledged: then none behind it is.
    pub fn run(
        mut self,
        pieces: &Receiver<Piece>,
        returned: &Sender<Piece>,
    ) -> (Acknowledged, Option<Failure>) {
        for mut piece in pieces {
            if let Err(failure) = self.acknowledge(&piece) {
                return (self.acknowledged, Some(failure));
            }
            piece.clear();
            // Whoever appends may be done already.
            let _returned = returned.send(piece);
        }
        (self.acknowledged, None)
    }

    fn acknowledge(&mut self, piece: &Piece) -> Result<(), Failure> {
        for id in piece.last_records() {
            if let Some(ticket) = self.store.ticket(id) {
                ticket.wait(self.durability)?;
            }
        }
        for (sum, part) in self.acknowledged.shards.iter_mut().zip(&piece.shards) {
            sum.records += part.records;
            sum.bytes += part.bytes;
        }
        self.acknowledged.records += piece.records;
        self.acknowledged.bytes += piece.bytes;
        self.output.tell(piece, &self.acknowledged)
    }
}

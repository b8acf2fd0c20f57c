//! All shards of a store in one scan.

use super::{Record, Scan, ScanError};
use crate::store::{Store, block::Sleeper};
use corelog_shards::{
    ids::ShardId,
    limits::{SCAN_ALL_READS, SCAN_READ_AHEAD},
    scan::Position,
};
use std::{
    future::poll_fn,
    task::{Context, Poll},
};

impl Store {
    /// Reads all records of all shards.
    ///
    /// Order: the records of one shard come in the order in which the shard accepted them. Between shards there is no
    /// order to keep; they are merged by the time at which their frames were submitted, and then by shard, so that two
    /// scans of a store that nobody appends to give the same sequence.
    pub fn scan_all(&self) -> Result<ScanAll, ScanError> {
        let shards = self.shards().len().max(1);
        let read_ahead = (SCAN_ALL_READS / shards).clamp(1, SCAN_READ_AHEAD);
        let heads = (0..self.shards().len() as u16)
            .map(|shard| {
                Ok(Head { scan: self.scan(ShardId(shard))?.read_ahead(read_ahead), next: Next::Unknown })
            })
            .collect::<Result<_, ScanError>>()?;
        Ok(ScanAll { store: self.clone(), heads })
    }
}

#[derive(Debug)]
struct Head {
    scan: Scan,
    next: Next,
}

#[derive(Debug)]
enum Next {
    Unknown,
    Known(Result<Record, ScanError>),
    End,
}

/// A scan of a whole store; see [`Store::scan_all`].
#[derive(Debug)]
pub struct ScanAll {
    store: Store,
    heads: Vec<Head>,
}

impl ScanAll {
    /// Reports damage and goes on behind it. A shard that cannot go on ends; the others do not.
    #[must_use]
    pub fn skip_damage(mut self) -> Self {
        let skipping = |head: Head| Head { scan: head.scan.skip_damage(), ..head };
        self.heads = self.heads.into_iter().map(skipping).collect();
        self
    }

    /// Bounds the scan of each shard.
    pub(crate) fn bounded(mut self, bound: impl Fn(Scan) -> Scan) -> Self {
        let bounded = |head: Head| Head { scan: bound(head.scan), ..head };
        self.heads = self.heads.into_iter().map(bounded).collect();
        self
    }

    /// Where the scan of a shard stands, behind the last of its records that was yielded. `None`: nothing of it was
    /// read yet, or its next record was read and not yielded.
    #[must_use]
    pub fn resume_at(&self, shard: ShardId) -> Option<Position> {
        let head = self.heads.get(usize::from(shard.0))?;
        if matches!(head.next, Next::Known(_)) { None } else { head.scan.resume_at() }
    }

    /// The next record, as a future for any executor.
    pub async fn next_async(&mut self) -> Option<Result<Record, ScanError>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next record, or `None` behind the last one.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Record, ScanError>>> {
        let mut is_waiting = false;
        for head in self.heads.iter_mut().filter(|head| matches!(head.next, Next::Unknown)) {
            match head.scan.poll_next(context) {
                Poll::Pending => is_waiting = true,
                Poll::Ready(Some(next)) => head.next = Next::Known(next),
                Poll::Ready(None) => head.next = Next::End,
            }
        }
        if is_waiting {
            return Poll::Pending;
        }
        // Errors first: whoever stops at them stops at once.
        let key = |head: &Head| match &head.next {
            Next::Known(Err(_)) => Some(0),
            Next::Known(Ok(record)) => Some(record.unix_ns),
            Next::Unknown | Next::End => None,
        };
        let keyed = self.heads.iter_mut().filter_map(|head| Some((key(head)?, head)));
        let first = keyed.min_by_key(|(key, head)| (*key, head.scan.shard()));
        let Some((_, head)) = first else { return Poll::Ready(None) };
        match std::mem::replace(&mut head.next, Next::Unknown) {
            Next::Known(next) => Poll::Ready(Some(next)),
            Next::Unknown | Next::End => Poll::Ready(None),
        }
    }
}

impl Iterator for ScanAll {
    type Item = Result<Record, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(Err(error)) = self.heads.first().map(|head| head.scan.check_thread()) {
            self.heads.clear();
            return Some(Err(error));
        }
        let limit = self.store.stall();
        match Sleeper::wait(&mut poll_fn(|context| self.poll_next(context)), limit) {
            Some(next) => next,
            None => {
                let waiting = self.heads.iter().find(|head| matches!(head.next, Next::Unknown));
                let shard = waiting.map_or(ShardId(0), |head| head.scan.shard());
                self.heads.clear();
                Some(Err(ScanError::Stalled { shard, waited: limit.unwrap_or_default() }))
            }
        }
    }
}

//! Regions that the kernel has pinned for this ring, so that an operation on them need not.
//!
//! This file holds unsafe code.

use crate::{
    device::{Errno, Grants},
    limits::{IO_REGIONS_MAX, IO_REGISTER_BYTES_MAX},
    memory::Region,
};
use io_uring::IoUring;
use std::sync::Arc;

const FEATURE: &str = "registered buffers";

/// Where a region is in the kernel's table; a large one takes several places.
struct Place {
    region: Arc<Region>,
    first: u16,
}

/// The table. It holds each region until the ring is closed.
pub(super) struct Registered {
    places: Vec<Place>,
    used: u16,
    /// Why there is no table, or no room left in it.
    table: bool,
}

impl Registered {
    /// Makes the empty table.
    pub(super) fn new(ring: &IoUring, wanted: bool, grants: &mut Grants) -> Self {
        let table = wanted
            && match ring.submitter().register_buffers_sparse(IO_REGIONS_MAX) {
                Ok(()) => true,
                Err(error) => {
                    missing(grants, Errno::from(error), 0);
                    false
                }
            };
        Self { places: Vec::new(), used: 0, table }
    }

    /// Registers a region; what does not work shows in `grants`.
    pub(super) fn add(&mut self, ring: &IoUring, region: &Arc<Region>, grants: &mut Grants) {
        let known = self.places.iter().any(|place| Arc::ptr_eq(&place.region, region));
        if !self.table || known {
            return;
        }
        let count = region.len().div_ceil(IO_REGISTER_BYTES_MAX);
        if usize::from(self.used) + count > IO_REGIONS_MAX as usize {
            grants
                .missing
                .push(format!("{FEATURE}: more than {IO_REGIONS_MAX} regions; use fewer or larger ones"));
            return;
        }
        let entries: Vec<libc::iovec> = (0..region.len())
            .step_by(IO_REGISTER_BYTES_MAX)
            .map(|offset| libc::iovec {
                iov_base: region.as_ptr().wrapping_add(offset).cast(),
                iov_len: IO_REGISTER_BYTES_MAX.min(region.len() - offset),
            })
            .collect();
        // SAFETY: the entries lie in the region, which `places` keeps mapped until the ring is closed; if the call
        // fails the kernel keeps none of it.
        let result =
            unsafe { ring.submitter().register_buffers_update(u32::from(self.used), &entries, None) };
        match result {
            Ok(()) => {
                if !grants.features.contains(&FEATURE) {
                    grants.features.push(FEATURE);
                }
                self.places.push(Place { region: Arc::clone(region), first: self.used });
                self.used += count as u16;
            }
            Err(error) => missing(grants, Errno::from(error), region.len()),
        }
    }

    /// The table entry that covers a range of a region, if one does.
    #[inline]
    pub(super) fn index_of(&self, region: &Arc<Region>, offset: usize, length: usize) -> Option<u16> {
        // There are a handful: the ring's buffers and the pools.
        let place = self.places.iter().find(|place| Arc::ptr_eq(&place.region, region))?;
        let chunk = offset / IO_REGISTER_BYTES_MAX;
        let ends_in = offset.saturating_add(length).saturating_sub(1) / IO_REGISTER_BYTES_MAX;
        (chunk == ends_in).then_some(place.first + chunk as u16)
    }
}

fn missing(grants: &mut Grants, errno: Errno, bytes: usize) {
    let remedy = match errno.0 {
        libc::ENOMEM | libc::EPERM => {
            "raise the memlock limit (`ulimit -l`, `LimitMEMLOCK=`), or grant CAP_IPC_LOCK; plain I/O is used"
        }
        _ => "plain I/O is used",
    };
    grants.missing.push(format!("{FEATURE} ({bytes} bytes): {errno}: {remedy}"));
}

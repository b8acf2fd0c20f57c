//! The bytes of a device, page by page, cheap to copy: a crash is tried at many moments, each on a copy of its own.

use std::sync::Arc;

/// Bytes of a page: the smallest slot, so that a slot is a run of whole pages.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes that a crash keeps or loses together, at the least.
pub(super) const SECTOR_BYTES: usize = 512;

pub(super) type Page = [u8; PAGE_BYTES];

/// What is known of a page's honesty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Taint(u8);

impl Taint {
    /// The device lied about the page: what it holds may be anything, and nobody was told.
    pub(super) const LIE: Self = Self(1);
    /// The device lost what was written to the page, and said so by failing a sync.
    pub(super) const DROPPED: Self = Self(2);
    /// A dead process's write landed on the page, perhaps after a recovery had looked that an open then built upon.
    pub(super) const LATE: Self = Self(4);

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The bytes of one device; pages that were never written are zero.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pages: Vec<Option<Arc<Page>>>,
    taints: Vec<Taint>,
}

static ZEROS: Page = [0; PAGE_BYTES];

impl Image {
    pub(super) fn new(bytes: u64) -> Self {
        let pages = bytes as usize / PAGE_BYTES;
        Self { pages: vec![None; pages], taints: vec![Taint::default(); pages] }
    }

    pub(super) const fn bytes(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64
    }

    pub(super) fn page(&self, page: usize) -> &Page {
        self.pages.get(page).and_then(Option::as_deref).unwrap_or(&ZEROS)
    }

    /// Fills `bytes` from `offset`; false if the device ends before.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        if offset + bytes.len() as u64 > self.bytes() {
            return false;
        }
        let (mut at, mut rest) = (offset as usize, bytes);
        while !rest.is_empty() {
            let (page, start) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let length = rest.len().min(PAGE_BYTES - start);
            let (head, tail) = rest.split_at_mut(length);
            head.copy_from_slice(&self.page(page)[start..start + length]);
            (at, rest) = (at + length, tail);
        }
        true
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset as usize, bytes);
        while !rest.is_empty() {
            let (page, start) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let length = rest.len().min(PAGE_BYTES - start);
            let (head, tail) = rest.split_at(length);
            self.page_mut(page)[start..start + length].copy_from_slice(head);
            (at, rest) = (at + length, tail);
        }
    }

    fn page_mut(&mut self, page: usize) -> &mut Page {
        Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new(ZEROS)))
    }

    pub(super) fn flip(&mut self, page: usize, bit: usize) {
        self.page_mut(page)[bit / 8] ^= 1 << (bit % 8);
    }

    /// Pages that were ever written.
    pub(super) fn written_pages(&self) -> Vec<usize> {
        (0..self.pages.len()).filter(|page| self.pages[*page].is_some()).collect()
    }

    pub(super) fn taint(&mut self, offset: u64, length: u64, taint: Taint) {
        for page in pages_of(offset, length) {
            if let Some(known) = self.taints.get_mut(page) {
                known.0 |= taint.0;
            }
        }
    }

    /// An honest write covers the bytes.
    pub(super) fn absolve(&mut self, offset: u64, length: u64) {
        for page in pages_of(offset, length) {
            self.taints[page] = Taint::default();
        }
    }

    pub(super) fn is_tainted(&self, offset: u64, length: u64, taint: Taint) -> bool {
        pages_of(offset, length).any(|page| self.taints.get(page).is_some_and(|known| known.has(taint)))
    }

    pub(super) fn take_taints(&mut self, other: &Self) {
        self.taints.clone_from(&other.taints);
    }
}

fn pages_of(offset: u64, length: u64) -> std::ops::Range<usize> {
    offset as usize / PAGE_BYTES..(offset + length.max(1)).div_ceil(PAGE_BYTES as u64) as usize
}

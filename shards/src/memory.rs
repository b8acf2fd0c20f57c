//! Memory that devices read and write: page-aligned regions, slices of them under I/O, and pools of read buffers.
//!
//! A [`Region`] is shared by everyone who holds an `Arc` of it and is unmapped only when the last one is gone; an
//! operation under I/O holds one, so its memory cannot be freed under it. *Who may touch which bytes* is decided
//! by the ring's state words (see `ring::state`) or by owning a [`PooledBuffer`].
//!
//! This file holds unsafe code.

use crate::limits::SLOT_BYTES_MIN;
use crossbeam_queue::ArrayQueue;
use rustix::io::Errno;
use std::{fmt, ptr::NonNull, sync::Arc};

/// Bytes of the pages that `HUGETLB` and transparent huge pages use here.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Of the processors that lines are fetched ahead on.
#[cfg(all(target_arch = "x86_64", not(loom)))]
const CACHE_LINE_BYTES: usize = 64;

/// What loom sees as one place. The models reserve multiples of this, so that neighbours are not taken for a race.
#[cfg(loom)]
pub(crate) const TRACKED_BYTES: usize = 128;

/// Memory that the host did not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The size is zero or not a multiple of the alignment.
    #[error("a region of {bytes} bytes is not a positive multiple of {alignment} bytes")]
    Size {
        /// Asked for.
        bytes: usize,
        /// Needed.
        alignment: usize,
    },
    /// The kernel refused the mapping.
    #[error(
        "mapping {bytes} bytes failed: {errno}; lower the buffer count or size, or raise the memory limit"
    )]
    Map {
        /// Asked for.
        bytes: usize,
        /// Why.
        errno: Errno,
    },
}

/// Which pages back a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Pages {
    /// Reserved huge pages.
    Huge,
    /// Ordinary pages that the kernel was asked to merge into huge ones.
    Transparent,
    /// Ordinary pages.
    Normal,
}

/// Where a region's pages should come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placement {
    /// Ask for huge pages.
    pub huge: bool,
    /// Ask for pages of this NUMA node.
    pub node: Option<u32>,
}

/// Zeroed, page-aligned memory.
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
    pages: Pages,
    node_refused: Option<Errno>,
    #[cfg(loom)]
    tracked: Vec<loom::cell::UnsafeCell<()>>,
}

/// Asks for the first line of `bytes`, which are about to be read, without waiting for it.
#[inline]
pub(crate) fn prefetch_to_read(bytes: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch changes no memory and faults nowhere.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(bytes.as_ptr().cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _others_wait_for_it = bytes;
}

// SAFETY: the region is only memory; the types above it decide which thread touches which bytes.
unsafe impl Send for Region {}
// SAFETY: as for `Send`: a shared `Region` gives out bytes only through unsafe methods with a contract per range.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `bytes` of zeroed memory and touches every page, so that the pages come from the calling thread's node
    /// (or the one asked for) and no append ever faults. Huge pages and the node are wishes: see
    /// [`Region::pages`] and [`Region::node_refused`].
    pub fn new(bytes: usize, placement: Placement) -> Result<Arc<Self>, MemoryError> {
        let alignment = SLOT_BYTES_MIN as usize;
        if bytes == 0 || !bytes.is_multiple_of(alignment) {
            return Err(MemoryError::Size { bytes, alignment });
        }
        let (base, pages) = map(bytes, placement.huge).map_err(|errno| MemoryError::Map { bytes, errno })?;
        let node_refused = placement.node.and_then(|node| bind_to_node(base, bytes, node).err());
        let region = Self {
            base,
            bytes,
            pages,
            node_refused,
            #[cfg(loom)]
            tracked: (0..bytes / TRACKED_BYTES).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        };
        region.touch();
        Ok(Arc::new(region))
    }

    /// Bytes of the region.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Never: a region has at least one page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Which pages back it.
    #[must_use]
    pub const fn pages(&self) -> Pages {
        self.pages
    }

    /// Its first byte, for registering it with a ring.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Why the kernel did not take the wish for a NUMA node, if it did not.
    #[must_use]
    pub const fn node_refused(&self) -> Option<Errno> {
        self.node_refused
    }

    fn touch(&self) {
        for offset in (0..self.bytes).step_by(SLOT_BYTES_MIN as usize) {
            // SAFETY: `offset` is inside the mapping.
            let byte = unsafe { self.base.as_ptr().add(offset) };
            // SAFETY: inside the mapping, and nobody else has the region yet; volatile so that it is not optimised
            // away.
            unsafe { byte.write_volatile(0) };
        }
    }

    /// The bytes `offset..offset + length`.
    ///
    /// # Safety
    /// Until the borrow ends nobody writes these bytes.
    #[inline]
    pub(crate) unsafe fn slice(&self, offset: usize, length: usize) -> &[u8] {
        self.check(offset, length);
        self.track(offset, length, false);
        // SAFETY: inside the mapping, by the check.
        let first = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: the caller excludes writers for the length of the borrow.
        unsafe { std::slice::from_raw_parts(first, length) }
    }

    /// The bytes `offset..offset + length`, to be written.
    ///
    /// # Safety
    /// Until the borrow ends nobody else reads or writes these bytes.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "ranges are handed out by the ring's state words, one owner each"
    )]
    pub(crate) unsafe fn slice_mut(&self, offset: usize, length: usize) -> &mut [u8] {
        self.check(offset, length);
        self.track(offset, length, true);
        // SAFETY: inside the mapping, by the check.
        let first = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: the caller owns the range for the length of the borrow.
        unsafe { std::slice::from_raw_parts_mut(first, length) }
    }

    /// Asks the processor for the line of `offset` and the next, to be written soon; for nothing outside the region.
    #[inline]
    pub(crate) fn prefetch_to_write(&self, offset: usize) {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        if offset < self.bytes.saturating_sub(CACHE_LINE_BYTES) {
            // SAFETY: the line and the next are inside the mapping.
            let byte = unsafe { self.base.as_ptr().add(offset) };
            // SAFETY: a prefetch changes no memory and no register; processors without it take it for nothing.
            unsafe {
                std::arch::asm!(
                    "prefetchw [{0}]",
                    "prefetchw [{0} + 64]",
                    in(reg) byte,
                    options(nostack, preserves_flags, readonly)
                );
            }
        }
        #[cfg(any(not(target_arch = "x86_64"), loom))]
        let _nothing_to_ask = offset;
    }

    #[inline]
    fn check(&self, offset: usize, length: usize) {
        assert!(
            offset <= self.bytes && length <= self.bytes - offset,
            "{offset}+{length} is outside a region of {} bytes",
            self.bytes
        );
    }

    #[cfg(not(loom))]
    #[inline(always)]
    fn track(&self, _offset: usize, _length: usize, _write: bool) {}

    /// Tells loom of the access, so that a race on ring bytes fails the model.
    #[cfg(loom)]
    fn track(&self, offset: usize, length: usize, write: bool) {
        for cell in &self.tracked[offset / TRACKED_BYTES..(offset + length).div_ceil(TRACKED_BYTES)] {
            if write {
                cell.with_mut(|_| ());
            } else {
                cell.with(|_| ());
            }
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and with the last `Arc` gone neither a thread nor the kernel uses it.
        let _unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("bytes", &self.bytes)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

fn map(bytes: usize, huge: bool) -> Result<(NonNull<u8>, Pages), Errno> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let anonymous = |flags: MapFlags| {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | flags,
            )
        }
        .and_then(|base| NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM))
    };
    if huge
        && bytes.is_multiple_of(HUGE_PAGE_BYTES)
        && let Ok(base) = anonymous(MapFlags::HUGETLB)
    {
        return Ok((base, Pages::Huge));
    }
    let base = anonymous(MapFlags::empty())?;
    if huge && bytes >= HUGE_PAGE_BYTES {
        // SAFETY: advice on our own mapping; it changes paging, not bytes.
        let advised =
            unsafe { rustix::mm::madvise(base.as_ptr().cast(), bytes, rustix::mm::Advice::LinuxHugepage) };
        if advised.is_ok() {
            return Ok((base, Pages::Transparent));
        }
    }
    Ok((base, Pages::Normal))
}

fn bind_to_node(base: NonNull<u8>, bytes: usize, node: u32) -> Result<(), Errno> {
    const MPOL_PREFERRED: libc::c_long = 1;
    let mut mask = [0_u64; 16];
    let word = mask.get_mut(node as usize / 64).ok_or(Errno::INVAL)?;
    *word |= 1 << (node % 64);
    let mask_bits = (mask.len() * 64) as libc::c_ulong + 1;
    // SAFETY: the range is our own mapping, and the mask outlives the call; mbind changes placement, not bytes.
    let result = unsafe {
        libc::syscall(libc::SYS_mbind, base.as_ptr(), bytes, MPOL_PREFERRED, mask.as_ptr(), mask_bits, 0_u32)
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// A range of a region that nobody writes while this lives: what a write operation carries.
pub struct RegionSlice {
    region: Arc<Region>,
    offset: usize,
    length: usize,
    /// Keeps a pool from lending the range again; `None` for the buffers of a ring, whose state word does that.
    _owner: Option<PooledBuffer>,
}

impl RegionSlice {
    /// Freezes a range.
    ///
    /// # Safety
    /// Nobody writes the range until the value is gone.
    pub(crate) unsafe fn new(region: Arc<Region>, offset: usize, length: usize) -> Self {
        region.check(offset, length);
        Self { region, offset, length, _owner: None }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: nobody writes the range while `self` lives, by the contract of `new`.
        unsafe { self.region.slice(self.offset, self.length) }
    }

    /// Bytes in the range.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// True if there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The region that it is a part of.
    #[must_use]
    pub const fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Where in the region it begins, in bytes.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }
}

impl From<PooledBuffer> for RegionSlice {
    /// Freezes a pooled buffer for a write operation; its pool has it back when the slice is gone.
    fn from(buffer: PooledBuffer) -> Self {
        let (region, offset, length) = (Arc::clone(&buffer.region), buffer.offset, buffer.length);
        Self { region, offset, length, _owner: Some(buffer) }
    }
}

impl fmt::Debug for RegionSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionSlice({}+{})", self.offset, self.length)
    }
}

/// Equal, aligned buffers for device reads (and for the few writes that are not frames). Any thread may take one
/// and give it back.
pub struct BufferPool {
    region: Arc<Region>,
    buffer_bytes: usize,
    free: ArrayQueue<u32>,
}

impl BufferPool {
    /// `count` buffers of `buffer_bytes` each (a multiple of the smallest slot).
    pub fn new(buffer_bytes: usize, count: usize) -> Result<Arc<Self>, MemoryError> {
        let alignment = SLOT_BYTES_MIN as usize;
        let bytes = buffer_bytes
            .checked_mul(count)
            .filter(|_| buffer_bytes.is_multiple_of(alignment) && u32::try_from(count).is_ok())
            .ok_or(MemoryError::Size { bytes: buffer_bytes, alignment })?;
        let region = Region::new(bytes, Placement::default())?;
        let free = ArrayQueue::new(count);
        for index in 0..count as u32 {
            let _capacity_is_count = free.push(index);
        }
        Ok(Arc::new(Self { region, buffer_bytes, free }))
    }

    /// A buffer of `length` bytes, or `None` when all are in use or none is as large.
    pub fn take(self: &Arc<Self>, length: usize) -> Option<PooledBuffer> {
        if length > self.buffer_bytes {
            return None;
        }
        let index = self.free.pop()?;
        Some(PooledBuffer {
            offset: index as usize * self.buffer_bytes,
            length,
            region: Arc::clone(&self.region),
            home: Some((Arc::clone(self), index)),
        })
    }

    /// Bytes of each buffer.
    #[must_use]
    pub const fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// The memory of all buffers, for registering it.
    #[must_use]
    pub const fn region(&self) -> &Arc<Region> {
        &self.region
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("buffer_bytes", &self.buffer_bytes)
            .field("free", &self.free.len())
            .finish()
    }
}

/// An aligned buffer with one owner. It returns to its pool when dropped.
pub struct PooledBuffer {
    region: Arc<Region>,
    offset: usize,
    length: usize,
    home: Option<(Arc<BufferPool>, u32)>,
}

impl PooledBuffer {
    /// A buffer outside any pool, for what a pool cannot give. `length` is rounded up to whole pages.
    pub fn alone(length: usize) -> Result<Self, MemoryError> {
        let bytes = length.next_multiple_of(SLOT_BYTES_MIN as usize);
        Ok(Self { region: Region::new(bytes, Placement::default())?, offset: 0, length, home: None })
    }

    /// Bytes in use.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// True if there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the range belongs to this value alone, and it is borrowed.
        unsafe { self.region.slice(self.offset, self.length) }
    }

    /// The bytes, to be written.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the range belongs to this value alone, and it is borrowed mutably.
        unsafe { self.region.slice_mut(self.offset, self.length) }
    }

    /// The region that it is a part of.
    #[must_use]
    pub const fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Where in the region it begins, in bytes.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some((pool, index)) = self.home.take() {
            let _capacity_is_count = pool.free.push(index);
        }
    }
}

impl fmt::Debug for PooledBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledBuffer({}+{})", self.offset, self.length)
    }
}

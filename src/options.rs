//! Options: how a store is made and how it is opened. Each is checked here, and nowhere else, against
//! [`corelog_shards::limits`].

use corelog_shards::{
    cleaning::CleaningOptions,
    geometry::{Geometry, GeometryError},
    limits::{
        BUFFER_BYTES_DEFAULT, BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, CACHE_BYTES_MAX, CACHE_BYTES_MIN,
        CHECKPOINT_BYTES_DEFAULT, CHECKPOINT_BYTES_MAX, CHECKPOINT_BYTES_MIN, CLEAN_HIGH_PERCENT_DEFAULT,
        CLEAN_LOW_PERCENT_DEFAULT, CLEAN_PERCENT_MAX, CORES_MAX, DEVICES_MAX, EXTENT_BYTES_DEFAULT,
        EXTENTS_MAX, EXTENTS_PER_SHARD_MIN, IO_DEPTH_DEFAULT, IO_DEPTH_MAX, IO_DEPTH_MIN,
        MAILBOX_MESSAGES_DEFAULT, MAILBOX_MESSAGES_MAX, QUIET_MS_DEFAULT, QUIET_MS_MAX, QUIET_MS_MIN,
        READ_SPIN_US_DEFAULT, RING_BUFFERS_DEFAULT, RING_BUFFERS_MAX, RING_BUFFERS_MIN, SHARDS_MAX,
        SLOT_BYTES_DEFAULT, SLOT_BYTES_MAX, STORE_BYTES_MAX, SUPERBLOCK_AREA_BYTES, SYNC_SPIN_US_DEFAULT,
    },
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub use corelog_shards::{
    cleaning::CleaningPolicy,
    shard_owner::{FrameOrder, SyncMethod},
};

/// An option that cannot be. Nothing was opened or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// A number outside its bounds.
    #[error("{name} is {value}; it goes from {min} to {max}")]
    Range {
        /// The option.
        name: &'static str,
        /// What was given.
        value: u64,
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
    /// A number that has to be a power of two.
    #[error("{name} is {value}; it has to be a power of two")]
    PowerOfTwo {
        /// The option.
        name: &'static str,
        /// What was given.
        value: u64,
    },
    /// A number that has to be a multiple of another.
    #[error("{name} is {value}; it has to be a multiple of {of}")]
    Multiple {
        /// The option.
        name: &'static str,
        /// What was given.
        value: u64,
        /// Of what.
        of: u64,
    },
    /// Slot or extent size.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The buffer is larger than what an extent leaves for frames.
    #[error(
        "buffer-bytes is {buffer_bytes}; an extent of {extent_bytes} bytes has room for a frame of {room}"
    )]
    BufferBeyondExtent {
        /// The buffer.
        buffer_bytes: u64,
        /// The extent.
        extent_bytes: u64,
        /// What is left beside the extent's header.
        room: u64,
    },
    /// The store is too small for its shards.
    #[error(
        "a store of {extents} extents is too small for {shards} shards: each needs {EXTENTS_PER_SHARD_MIN}; make it larger, or its extents smaller"
    )]
    TooFewExtents {
        /// Extents that fit.
        extents: u64,
        /// Shards asked for.
        shards: u32,
    },
    /// No device, or too many.
    #[error("{found} devices were given; a store has 1 to {DEVICES_MAX}")]
    Devices {
        /// How many.
        found: usize,
    },
}

fn in_range(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), OptionError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(OptionError::Range { name, value, min, max }) }
}

fn power_of_two(name: &'static str, value: u64) -> Result<(), OptionError> {
    if value.is_power_of_two() { Ok(()) } else { Err(OptionError::PowerOfTwo { name, value }) }
}

/// Which way device I/O takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// io_uring; an error where the host forbids it.
    #[default]
    IoUring,
    /// A pool of threads.
    Threads,
    /// io_uring, and the pool of threads, with a note in the core's grants, where the host forbids it.
    Auto,
}

/// How an append reaches a shard that another core runs, or from a thread that runs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppendPath {
    /// The caller copies straight into the shard's ring.
    #[default]
    Direct,
    /// The payload goes to the shard's core by mail.
    Routed,
}

/// What filling a new store's devices means.
pub use corelog_shards::device::file::Fill;

/// How a store is made. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FormatOptions {
    /// Size of each device's file; `None`: all of a block device.
    pub size_bytes: Option<u64>,
    /// Shards; `None`: one per CPU that this process may use.
    pub shards: Option<u32>,
    /// Slot size: the unit of device space and the smallest write.
    pub slot_bytes: u64,
    /// Extent size: what shards claim and cleaning frees.
    pub extent_bytes: u64,
    /// Written zeros, or sparse.
    pub fill: Fill,
    /// Take the place of what is there.
    pub replace: bool,
    /// Accept a file system that puts the page cache in between.
    pub allow_buffered: bool,
    /// Mark the store as one that a backup is being restored to: it opens with [`Options::restoring`] only, until
    /// [`crate::Backup::restore`] has brought it to its end.
    #[serde(skip)]
    pub restoring: bool,
}

impl Default for FormatOptions {
    fn default() -> Self {
        Self {
            size_bytes: None,
            shards: None,
            slot_bytes: SLOT_BYTES_DEFAULT,
            extent_bytes: EXTENT_BYTES_DEFAULT,
            fill: Fill::default(),
            replace: false,
            allow_buffered: false,
            restoring: false,
        }
    }
}

impl FormatOptions {
    /// A store of `size_bytes` with the defaults for the rest.
    #[must_use]
    pub fn sized(size_bytes: u64) -> Self {
        Self { size_bytes: Some(size_bytes), ..Self::default() }
    }

    /// Sets the number of shards.
    #[must_use]
    pub const fn shards(mut self, shards: u32) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Sets the extent size in bytes.
    #[must_use]
    pub const fn extent_bytes(mut self, bytes: u64) -> Self {
        self.extent_bytes = bytes;
        self
    }

    /// Sets the slot size in bytes.
    #[must_use]
    pub const fn slot_bytes(mut self, bytes: u64) -> Self {
        self.slot_bytes = bytes;
        self
    }

    /// Leaves the file sparse instead of writing zeros.
    #[must_use]
    pub const fn sparse(mut self) -> Self {
        self.fill = Fill::Sparse;
        self
    }

    /// Takes the place of what is there.
    #[must_use]
    pub const fn replace(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Checks everything that can be known before the devices are.
    pub fn check(&self, devices: usize) -> Result<Geometry, OptionError> {
        if devices == 0 || devices > DEVICES_MAX as usize {
            return Err(OptionError::Devices { found: devices });
        }
        let geometry = Geometry::new(self.slot_bytes, self.extent_bytes)?;
        if let Some(shards) = self.shards {
            in_range("shards", u64::from(shards), 1, u64::from(SHARDS_MAX))?;
        }
        if let Some(size) = self.size_bytes {
            let extents = STORE_BYTES_MAX.min(u64::from(EXTENTS_MAX) * self.extent_bytes);
            in_range("size", size, SUPERBLOCK_AREA_BYTES + self.extent_bytes, extents)?;
        }
        Ok(geometry)
    }

    /// Checks the store's extents against its shards, once the devices are known.
    pub fn check_extents(extents: u64, shards: u32) -> Result<(), OptionError> {
        if extents < EXTENTS_PER_SHARD_MIN * u64::from(shards) {
            return Err(OptionError::TooFewExtents { extents, shards });
        }
        Ok(())
    }
}

/// How a store is opened. A TOML profile is the same thing, with the same names.
///
/// ```
/// let options: corelog::Options = toml::from_str("buffers = 16\nsync = \"dsync\"")?;
/// assert_eq!(options, corelog::Options::default().buffers(16).sync(corelog::SyncMethod::Dsync));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Cores to run; more than there are CPUs share them, and each beyond the shards that take appends gets a new one as long
    /// as there is room, which stays ([`crate::Store::added_shards`]). `None`: one per CPU that this process may use, but
    /// not more than the store has shards.
    pub cores: Option<u32>,
    /// Pin each core's thread to its CPU (hosted cores only).
    pub pin: bool,
    /// Bytes of a flush buffer; a multiple of the slot. It bounds the record. `None`: 256 KiB, or what fits into an
    /// extent of the store if that is less.
    pub buffer_bytes: Option<u64>,
    /// Flush buffers of a shard; a power of two.
    pub buffers: u32,
    /// Ask for huge pages for the flush buffers.
    pub huge_pages: bool,
    /// How durability is reached.
    pub sync: SyncMethod,
    /// In which order frames are written.
    pub order: FrameOrder,
    /// A part-filled buffer goes to the device this long after it was first seen. `None`: when somebody waits for it,
    /// when it is full, or when the store is closed.
    #[serde(with = "microseconds")]
    pub linger: Option<Duration>,
    /// Bytes of a shard's log between two checkpoints: a reopen reads the headers of what came since the last, and of
    /// one extent.
    pub checkpoint_bytes: u64,
    /// A shard that has written, and to which nobody appends for so long, writes a checkpoint, and then nothing. `None`:
    /// only by the bytes of its log.
    #[serde(with = "microseconds")]
    pub quiet: Option<Duration>,
    /// Discard freed extents on their devices (hole punch, block discard) before they are used again.
    pub discard: bool,
    /// Which extent is cleaned first, once cleaning is on ([`crate::Store::clean_with`]).
    pub clean_policy: CleaningPolicy,
    /// Cleaning begins when fewer extents are free for appends, in percent of the store.
    pub clean_low_percent: u32,
    /// Cleaning ends when so many are, in percent of the store.
    pub clean_high_percent: u32,
    /// Memory that each core may keep records in that were read, so that reading them again asks neither the device nor
    /// another thread; in bytes, everything counted. 0: none.
    pub cache_bytes: u64,
    /// What cleaning copies goes to cold shards, apart from what is appended: each shard gets one at the open, if the store
    /// has [`corelog_shards::limits::COLD_EXTENTS_MIN`] extents for each. A cold shard costs the memory of a ring and takes
    /// no appends; once made it stays. Where some records are written over far more often than others, cleaning copies
    /// much less; [`crate::Store::cold_shard_of`] says what it means for who scans single shards.
    pub cold_shards: bool,
    /// Messages that a core's mailbox holds.
    pub mailbox: u32,
    /// Device operations that a core keeps in flight.
    pub io_depth: u32,
    /// io_uring or threads.
    pub backend: Backend,
    /// Direct or routed appends.
    pub append: AppendPath,
    /// How long a hosted core spins for work before it sleeps.
    #[serde(with = "microseconds")]
    pub spin: Option<Duration>,
    /// How long a core that the caller drives watches for the end of a read before it sleeps, where the device is that
    /// fast. It costs the thread's CPU while reads are under way, and nothing else. `None`: it sleeps at once.
    #[serde(with = "microseconds")]
    pub read_spin: Option<Duration>,
    /// How long a core watches for the end of a write that somebody waits for to be durable before it sleeps, where the device is that
    /// fast; and half of the time that a thread that blocks on a ticket of a hosted store watches before it does. Other threads that want the CPU
    /// get it. It costs the CPUs of both while somebody waits, and nothing else. Where tasks wait, or threads that sleep, a hosted core watches
    /// for [several](corelog_shards::limits::SYNC_SPIN_CALLERS_MIN) of them, if the store has fewer cores than the host has CPUs. `None`: all
    /// sleep at once.
    #[serde(with = "microseconds")]
    pub sync_spin: Option<Duration>,
    /// How long a waiting call waits without progress before it reports that the shard is stalled.
    #[serde(with = "microseconds")]
    pub stall: Option<Duration>,
    /// How long closing waits for the cores: for what they still write, and for reservations that are held. `None`: as
    /// long as it takes.
    #[serde(with = "microseconds")]
    pub close_wait: Option<Duration>,
    /// Accept a file system that puts the page cache in between.
    pub allow_buffered: bool,
    /// Check the checksums of all records at open, not only of those that nothing proves durable.
    pub verify_on_open: bool,
    /// Open a damaged store: cut off, and list, what opening would fail for.
    pub salvage: bool,
    /// Open a store that a backup is being restored to, or was when that ended early ([`FormatOptions::restoring`]).
    #[serde(skip)]
    pub restoring: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cores: None,
            pin: true,
            buffer_bytes: None,
            buffers: RING_BUFFERS_DEFAULT,
            huge_pages: true,
            sync: SyncMethod::default(),
            order: FrameOrder::default(),
            linger: None,
            checkpoint_bytes: CHECKPOINT_BYTES_DEFAULT,
            quiet: Some(Duration::from_millis(QUIET_MS_DEFAULT)),
            discard: false,
            clean_policy: CleaningPolicy::default(),
            clean_low_percent: CLEAN_LOW_PERCENT_DEFAULT,
            clean_high_percent: CLEAN_HIGH_PERCENT_DEFAULT,
            cache_bytes: 0,
            cold_shards: false,
            mailbox: MAILBOX_MESSAGES_DEFAULT,
            io_depth: IO_DEPTH_DEFAULT,
            backend: Backend::default(),
            append: AppendPath::default(),
            spin: None,
            read_spin: Some(Duration::from_micros(READ_SPIN_US_DEFAULT)),
            sync_spin: Some(Duration::from_micros(SYNC_SPIN_US_DEFAULT)),
            stall: Some(Duration::from_secs(30)),
            close_wait: Some(Duration::from_secs(60)),
            allow_buffered: false,
            verify_on_open: false,
            salvage: false,
            restoring: false,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty => $value:expr;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub const fn $name(mut self, $name: $kind) -> Self {
                self.$name = $value;
                self
            }
        )*
    };
}

impl Options {
    setters! {
        /// Sets the number of cores.
        cores: u32 => Some(cores);
        /// Pins hosted cores, or not.
        pin: bool => pin;
        /// Sets the bytes of a flush buffer.
        buffer_bytes: u64 => Some(buffer_bytes);
        /// Sets the flush buffers of a shard.
        buffers: u32 => buffers;
        /// Asks for huge pages, or not.
        huge_pages: bool => huge_pages;
        /// Sets the way to durability.
        sync: SyncMethod => sync;
        /// Sets the order of frames.
        order: FrameOrder => order;
        /// Sets the linger.
        linger: Duration => Some(linger);
        /// Sets the bytes of a shard's log between two checkpoints.
        checkpoint_bytes: u64 => checkpoint_bytes;
        /// Sets the time after which a quiet shard writes a checkpoint.
        quiet: Duration => Some(quiet);
        /// Discards freed extents, or not.
        discard: bool => discard;
        /// Sets which extent is cleaned first.
        clean_policy: CleaningPolicy => clean_policy;
        /// Sets the share of free extents, in percent, below which cleaning begins.
        clean_low_percent: u32 => clean_low_percent;
        /// Sets the share of free extents, in percent, at which cleaning ends.
        clean_high_percent: u32 => clean_high_percent;
        /// Sets the memory of each core's cache of records, in bytes; 0 is none.
        cache_bytes: u64 => cache_bytes;
        /// Copies what is cleaned to cold shards, or not.
        cold_shards: bool => cold_shards;
        /// Sets the mailbox size, in messages.
        mailbox: u32 => mailbox;
        /// Sets the device operations in flight of a core.
        io_depth: u32 => io_depth;
        /// Sets the backend.
        backend: Backend => backend;
        /// Sets the way of appends.
        append: AppendPath => append;
        /// Sets the spin time.
        spin: Duration => Some(spin);
        /// Sets the time that a core of the caller's watches for the end of a read; zero is none.
        read_spin: Duration => Some(read_spin);
        /// Sets the time that a core watches for the end of a write that somebody waits for; zero is none.
        sync_spin: Duration => Some(sync_spin);
        /// Sets the time after which a waiter reports a stall.
        stall: Duration => Some(stall);
        /// Sets the time that closing waits for the cores.
        close_wait: Duration => Some(close_wait);
        /// Accepts buffered file systems, or not.
        allow_buffered: bool => allow_buffered;
        /// Checks all records at open, or not.
        verify_on_open: bool => verify_on_open;
        /// Opens a damaged store, or not.
        salvage: bool => salvage;
        /// Opens a store that a backup is being restored to, or not.
        restoring: bool => restoring;
    }

    /// Checks the options against a store's geometry.
    pub fn check(&self, geometry: &Geometry) -> Result<(), OptionError> {
        if let Some(cores) = self.cores {
            in_range("cores", u64::from(cores), 1, u64::from(CORES_MAX))?;
        }
        if let Some(buffer_bytes) = self.buffer_bytes {
            check_buffer(buffer_bytes, geometry)?;
        }
        in_range(
            "buffers",
            u64::from(self.buffers),
            u64::from(RING_BUFFERS_MIN),
            u64::from(RING_BUFFERS_MAX),
        )?;
        power_of_two("buffers", u64::from(self.buffers))?;
        in_range("checkpoint-bytes", self.checkpoint_bytes, CHECKPOINT_BYTES_MIN, CHECKPOINT_BYTES_MAX)?;
        if let Some(quiet) = self.quiet {
            let quiet = u64::try_from(quiet.as_micros()).unwrap_or(u64::MAX);
            in_range("quiet", quiet, 1000 * QUIET_MS_MIN, 1000 * QUIET_MS_MAX)?;
        }
        let percent = |name, percent: u32, min| {
            in_range(name, u64::from(percent), u64::from(min), u64::from(CLEAN_PERCENT_MAX))
        };
        percent("clean-low-percent", self.clean_low_percent, 0)?;
        percent("clean-high-percent", self.clean_high_percent, self.clean_low_percent)?;
        let cache_bytes_min = if self.cache_bytes == 0 { 0 } else { CACHE_BYTES_MIN };
        in_range("cache-bytes", self.cache_bytes, cache_bytes_min, CACHE_BYTES_MAX)?;
        in_range("mailbox", u64::from(self.mailbox), 1, u64::from(MAILBOX_MESSAGES_MAX))?;
        in_range("io-depth", u64::from(self.io_depth), u64::from(IO_DEPTH_MIN), u64::from(IO_DEPTH_MAX))
    }

    /// Bytes of a flush buffer in a store of this geometry: what was asked for, or the largest that fits into its extents
    /// and is no larger than the default.
    #[must_use]
    pub fn buffer_bytes_in(&self, geometry: &Geometry) -> u64 {
        self.buffer_bytes.unwrap_or_else(|| {
            let fits = BUFFER_BYTES_DEFAULT.min(buffer_room(geometry));
            fits - fits % geometry.slot_bytes()
        })
    }

    pub(crate) const fn cleaning(&self) -> CleaningOptions {
        CleaningOptions {
            policy: self.clean_policy,
            low_percent: self.clean_low_percent,
            high_percent: self.clean_high_percent,
        }
    }

    /// Longest payload of one record in a store of this geometry, in bytes.
    #[must_use]
    pub fn record_bytes_max(&self, geometry: &Geometry) -> u64 {
        corelog_shards::limits::record_bytes_max(self.buffer_bytes_in(geometry))
    }
}

/// What an extent has beside its header.
const fn buffer_room(geometry: &Geometry) -> u64 {
    geometry.extent_bytes() - geometry.slot_bytes()
}

fn check_buffer(buffer_bytes: u64, geometry: &Geometry) -> Result<(), OptionError> {
    in_range("buffer-bytes", buffer_bytes, BUFFER_BYTES_MIN, BUFFER_BYTES_MAX)?;
    let slot_bytes = geometry.slot_bytes();
    if !buffer_bytes.is_multiple_of(slot_bytes) {
        return Err(OptionError::Multiple { name: "buffer-bytes", value: buffer_bytes, of: slot_bytes });
    }
    let room = buffer_room(geometry);
    if buffer_bytes > room {
        let extent_bytes = geometry.extent_bytes();
        return Err(OptionError::BufferBeyondExtent { buffer_bytes, extent_bytes, room });
    }
    Ok(())
}

const _: () = assert!(BUFFER_BYTES_DEFAULT.is_multiple_of(SLOT_BYTES_MAX));

/// Durations as whole microseconds, so that a profile says `linger = 500`.
mod microseconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_micros))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_option_out_of_bounds_is_named_with_its_bounds() {
        let geometry = Geometry::new(4096, 64 << 20).unwrap();
        let message = |options: Options| options.check(&geometry).unwrap_err().to_string();
        assert_eq!(message(Options::default().cores(0)), "cores is 0; it goes from 1 to 1024");
        assert_eq!(message(Options::default().buffers(2)), "buffers is 2; it goes from 4 to 64");
        assert_eq!(message(Options::default().buffers(6)), "buffers is 6; it has to be a power of two");
        assert_eq!(
            message(Options::default().buffer_bytes(16 << 20)),
            "buffer-bytes is 16777216; it goes from 16384 to 8388608"
        );
        assert_eq!(
            message(Options::default().buffer_bytes(20_000)),
            "buffer-bytes is 20000; it has to be a multiple of 4096"
        );
        assert_eq!(message(Options::default().io_depth(1)), "io-depth is 1; it goes from 8 to 4096");
        assert_eq!(
            message(Options::default().cache_bytes(1)),
            "cache-bytes is 1; it goes from 65536 to 1099511627776"
        );
        let small = Geometry::new(4096, 1 << 20).unwrap();
        let error = Options::default().buffer_bytes(1 << 20).check(&small).unwrap_err();
        assert!(matches!(error, OptionError::BufferBeyondExtent { .. }), "{error}");
        assert_eq!(Options::default().check(&geometry), Ok(()));
    }

    /// The default of 256 KiB was refused by stores whose extents have 256 KiB, header included.
    #[test]
    fn a_buffer_that_nobody_asked_for_fits_every_store() {
        for slot_bytes in [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10] {
            for extent_bytes in [256 << 10, 512 << 10, 1 << 20, 64 << 20] {
                let geometry = Geometry::new(slot_bytes, extent_bytes).unwrap();
                let derived = Options::default().buffer_bytes_in(&geometry);
                let expected =
                    if extent_bytes == 256 << 10 { (256 << 10) - slot_bytes } else { BUFFER_BYTES_DEFAULT };
                assert_eq!(derived, expected, "slots of {slot_bytes}, extents of {extent_bytes}");
                assert_eq!(Options::default().check(&geometry), Ok(()));
                assert_eq!(Options::default().buffer_bytes(derived).check(&geometry), Ok(()));
            }
        }
    }

    #[test]
    fn a_profile_and_the_builder_say_the_same() {
        let options = Options::default().cores(2).linger(Duration::from_millis(1)).backend(Backend::Auto);
        let text = toml::to_string(&options).unwrap();
        assert!(text.contains("linger = 1000"), "{text}");
        assert_eq!(toml::from_str::<Options>(&text).unwrap(), options);
        assert!(toml::from_str::<Options>("bufers = 3").is_err(), "a misspelt option is an error");
    }
}

//! Planted bugs, for the tests that must see them fail.
//!
//! Each mutant is one wrong line in the shipped code behind [`is_active`], which is the constant `false` in the
//! product. A test plants one for its own thread (models and simulations run on one thread).

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A planted bug. The variant's text says what goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Mutant {
            $($(#[$doc])* $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

mutants! {
    /// The record that crosses the end of a buffer is acknowledged and stored nowhere.
    CrossingForgotten,
    /// A sealed buffer is submitted although writers are still copying into it.
    FlushIgnoresWriters,
    /// A buffer is recycled without a new tag, so that a late reserver of the last turn gets in.
    RecycleKeepsTag,
    /// Reserve does not compare the tag of the buffer with the frame it wants.
    ReserveIgnoresTag,
    /// A dropped reservation leaves the writer count raised.
    DropKeepsWriter,
    /// Only the thread that sealed may rotate.
    OnlySealerRotates,
    /// The flush is taken by whoever sealed, also when writers are left, and again by the last writer out.
    HandOverTwice,
    /// The buffer after a sealed one starts where the last started: part-filled frames are overwritten.
    RotateReusesBase,
    /// Commit publishes with a relaxed subtract.
    CommitRelaxed,
    /// The core goes to sleep without a second look.
    SleepWithoutSecondLook,
    /// Everyone who sees a sleeper wakes it.
    WakePerRing,
    /// An extent that is given back is touched once more.
    FreeBeforeDone,
    /// The lock of a part of the cache is given back with a relaxed store.
    BriefLockRelaxed,
    /// `ring` looks at the sleeper's flag without a fence before.
    RingWithoutFence,
    /// A waiter registers without looking at the watermark again.
    WaiterWithoutSecondLook,
    /// Who moves a watermark looks for threads that sleep before it counts the change.
    SleepersCountedEarly,
    /// A frame is left open for those who were told last until they come back.
    GatheringWithoutEnd,
    /// Claiming an extent reads and then writes instead of one atomic step.
    ClaimNotAtomic,
    /// A frame is acknowledged as written when it was submitted.
    WrittenAtSubmit,
    /// A frame is acknowledged as durable when it is written.
    DurableAtWrite,
    /// A frame is written through alone although the header of its extent is not durable.
    DsyncOverUnsynced,
    /// A sync is believed to cover frames that were written while it ran.
    SyncCoversLater,
    /// A failed sync is tried again and its success believed.
    SyncRetried,
    /// A short write counts as success.
    ShortWriteTrusted,
    /// The watermark jumps to any completed frame.
    WatermarkSkipsHoles,
    /// The watermark starts one behind the first frame.
    WatermarkStartsOff,
    /// A failed write is tried again without bound.
    RetryForever,
    /// A submission that the queue refused is forgotten.
    RejectedForgotten,
    /// In serialised mode the next write does not wait.
    SerialisedOverlaps,
    /// Reopening starts at the first slot again.
    ReopenAtStart,
    /// Padding behind the records is left as it was.
    PaddingNotCleared,
    /// Closing does not wait for what was accepted.
    CloseForgetsAccepted,
    /// A linger timer seals a buffer although a write is in flight.
    LingerWhileBusy,
    /// A buffer's capacity is the default and not the option.
    CapacityFromConstant,
    /// The extent is used before its header was written.
    ExtentBeforeHeader,
    /// A completion is matched by order, not by token.
    CompletionByOrder,
    /// Opening does not sync what recovery read before it builds on it.
    OpenWithoutSync,
    /// Opening does not raise the term.
    TermNotRaised,
    /// A failed sync concerns the shards that it covers, and nobody else whose writes were in the device's cache.
    SyncFailureForgotten,
    /// A failed write-through concerns nobody but its shard, though its flush may be what failed.
    ThroughFailureForgotten,
    /// The owner's run goes on although somebody reserved behind it, or sealed its buffer.
    RunIgnoresOthers,
    /// What is left of the owner's run is left as it was.
    RunNotPadded,
    /// The owner's run is not ended before a turn.
    RunLeftOpen,
    /// A reservation lends more bytes than it claimed.
    GuardTooLong,
    /// A completion moves the watermark by one frame at most.
    WatermarkOneStep,
    /// Nobody moves the ring on once no buffer was free at the moment of rotation.
    RotationForgotten,
    /// A core that waits for its device takes turn after turn.
    SpinWhileBusy,
    /// A spare extent that the ring is in already is taken for a fresh one.
    SpareUsedAgain,
    /// Closing seals the frame before it closes the position, so that a rotation may leave an empty frame behind.
    CloseSealsFirst,
    /// A flush looks for the current frame twice, and takes the second answer for the first.
    FlushLooksTwice,
    /// Closing leaves those who wait for room asleep.
    CloseWakesNobody,
    /// Closing forbids appends without sealing the frame that is being filled.
    CloseWithoutSeal,
    /// A read from memory does not mind writers.
    CopyIgnoresWriters,
    /// What frame numbers are relative to is read without order.
    OldestRelaxed,
    /// Mail that comes as its core ends stays in the box for ever.
    MailLeftByTheDead,
    /// A change of room is counted before those who wait for it are taken, so that one who has seen it is taken too, and
    /// sleeps on without a waker.
    RoomCountedEarly,
    /// The commit of a batch is written before its last records are.
    HalfBatch,
    /// The list of a batch or of a large record leaves one entry out.
    ManifestSkipsPart,
    /// An extent is given back before the record of its freeing is durable.
    FreedBeforeDurable,
    /// A checkpoint leaves out an extent that holds records.
    CheckpointForgetsExtent,
    /// An extent that is claimed again keeps its generation.
    ResurrectedExtent,
    /// A checkpoint leaves out the cursors.
    CursorLost,
    /// A trim is reported as done before its record is durable.
    TrimNotDurable,
    /// A quiet shard takes its own checkpoint for something new.
    QuietWritesAgain,
    /// Trimming frees extents that a batch or large record behind the mark has parts in.
    TrimIgnoresLists,
    /// A batch over several shards is resolved before the decision is durable.
    DecisionNotDurable,
    /// A checkpoint leaves out which batches over several shards this one has resolved.
    ResolvedForgotten,
    /// An open leaves to nobody what shards lack of batches that were decided.
    ShareForgotten,
    /// A cut between two shards' resolving of a batch leaves out what the later one has of it.
    CutSplitsBatches,
    /// Trimming frees extents that an open batch or large record has parts in.
    TrimIgnoresWriters,
    /// The extents of a store that grows can be claimed before a superblock names them.
    GrowBeforeSync,
    /// Who appends while a cut is made leaves all rings to the one who makes it.
    CutWithoutHelp,
    /// An extent that was cleaned is freed before the copies are durable.
    FreedBeforeCopiesDurable,
    /// A scan gives copies of records that still lie where they were.
    CopyCountsEarly,
    /// Cleaning leaves a record behind that is wanted.
    LiveRecordSkipped,
    /// A group of copies is written a second time.
    RelocatedTwice,
    /// What is in the cache is given without a look at its extent.
    CachedPastReuse,
    /// What is moved out of a retired shard is given up before the copies are durable.
    DrainedBeforeDurable,
    /// After a crash, the cleaning of an extent begins again instead of being gone on with.
    CleaningBeginsAgain,
    /// An extent is freed once its own shard is durable, though its copies are in a cold shard that is not.
    ColdNotDurable,
    /// An extent whose copying was begun is copied anew: nobody looks into the cold shard.
    ColdShardForgotten,
    /// The checkpoint of a cold shard leaves out how far the copying of another shard's extent has come.
    CrossingUnsaid,
    /// Cleaning copies batch data that no list makes count, so that the copy does.
    UncountedCopied,
    /// An extent with the list of a batch is freed before what the list leads to.
    ListFreedFirst,
    /// Cleaning frees an extent with parts of a large record that is wanted.
    LargeTakenForDead,
    /// The list of a large record that was moved leads to where its parts were.
    LargeListNotRenewed,
}

impl Mutant {
    /// What finds those that the simulator cannot. `None`: the simulator finds it.
    #[must_use]
    pub const fn found_elsewhere(self) -> Option<&'static str> {
        match self {
            Self::CommitRelaxed
            | Self::BriefLockRelaxed
            | Self::SleepersCountedEarly
            | Self::RingWithoutFence
            | Self::ClaimNotAtomic
            | Self::FreeBeforeDone
            | Self::OldestRelaxed => Some("it needs two threads at once: a loom model finds it"),
            Self::ReserveIgnoresTag
            | Self::HandOverTwice
            | Self::CloseSealsFirst
            | Self::FlushLooksTwice
            | Self::CloseWakesNobody
            | Self::CloseWithoutSeal
            | Self::CopyIgnoresWriters
            | Self::MailLeftByTheDead
            | Self::RoomCountedEarly => {
                Some("it needs a thread that sleeps within a step: a test of `ways` or a loom model finds it")
            }
            Self::GatheringWithoutEnd
            | Self::WakePerRing
            | Self::LingerWhileBusy
            | Self::SpinWhileBusy
            | Self::QuietWritesAgain => {
                Some("it costs time and breaks no promise: a test of `ways` or a loom model finds it")
            }
            _ => None,
        }
    }
}

#[cfg(any(test, feature = "mutants"))]
mod planted {
    use super::Mutant;
    use std::cell::Cell;

    std::thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// True if this thread planted the mutant.
    #[inline]
    pub fn is_active(mutant: Mutant) -> bool {
        PLANTED.with(|planted| planted.get() == Some(mutant))
    }

    /// Takes the mutant out again when dropped.
    #[derive(Debug)]
    pub struct Planted(());

    impl Mutant {
        /// Plants the bug for this thread.
        #[must_use]
        pub fn plant(self) -> Planted {
            PLANTED.with(|planted| planted.set(Some(self)));
            Planted(())
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.with(|planted| planted.set(None));
        }
    }
}

#[cfg(any(test, feature = "mutants"))]
pub use planted::{Planted, is_active};

/// Never, in the product.
#[cfg(not(any(test, feature = "mutants")))]
#[inline(always)]
#[must_use]
pub const fn is_active(_mutant: Mutant) -> bool {
    false
}

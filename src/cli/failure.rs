//! Why a command did not do everything: one line for a person, and the exit code for a script.

use super::exit::Exit;
use corelog::{
    AppendError, CloseError, FormatError, GrowError, LargeReadError, OpenError, ReadError, RecoveryError,
    ScanError, ShardFailure, SpaceError, SpaceRefusal, WaitError,
};
use corelog_shards::{
    device::file::{CreateError, FileError, OpenError as DeviceOpenError},
    format::superblock::SuperblockChoiceError,
    scan::Fault,
};
use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

/// A command that ended early, or found what it was to find out.
#[derive(Debug)]
pub struct Failure {
    /// What the program exits with.
    pub exit: Exit,
    /// The line for standard error; `None`: nobody is there to read, or everything was said.
    pub message: Option<String>,
}

impl Failure {
    /// With a message, which says what to do unless it is plain.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: Some(message.to_string()) }
    }

    /// An exit code that needs no words, because the output has them.
    pub const fn quiet(exit: Exit) -> Self {
        Self { exit, message: None }
    }

    /// Writing to standard output failed. A reader that has gone (as `head` goes) has seen what it wanted.
    pub fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::quiet(Exit::Done),
            io::ErrorKind::StorageFull => {
                Self::new(Exit::Full, format!("writing to standard output failed: {error}; free space there"))
            }
            _ => Self::new(Exit::Failed, format!("writing to standard output failed: {error}")),
        }
    }

    /// The same end, with more to say about it.
    #[must_use]
    pub fn and(mut self, more: impl Display) -> Self {
        if let Some(message) = &mut self.message {
            message.push_str(&format!("; {more}"));
        }
        self
    }

    /// Says it on standard error, in one line, and gives the exit code.
    pub fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            say(&message);
        }
        self.exit.into()
    }
}

/// Prints a line on standard error, under the program's name. Nobody may be there to read it.
pub fn say(message: &str) {
    let line = format!("corelog: {}\n", message.replace('\n', " "));
    let _nobody_reads = io::stderr().write_all(line.as_bytes());
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        let exit = match &error {
            FormatError::Option(_) => Exit::Usage,
            FormatError::Device(CreateError::SizeMissing { .. } | CreateError::Size { .. }) => Exit::Usage,
            FormatError::Device(CreateError::Full { .. }) => Exit::Full,
            FormatError::Device(CreateError::Open(error)) => exit_of_device(error),
            FormatError::Device(CreateError::File(error)) | FormatError::File(error) => exit_of_file(error),
            _ => Exit::Failed,
        };
        let failure = Self::new(exit, &error);
        match error {
            FormatError::Device(CreateError::Exists { .. } | CreateError::Occupied { .. }) => {
                failure.and("--force does that")
            }
            FormatError::Device(CreateError::SizeMissing { .. }) => failure.and("say it with --size"),
            FormatError::Device(CreateError::Open(DeviceOpenError::NotDirect { .. })) => {
                failure.and("--allow-buffered does that")
            }
            _ => failure,
        }
    }
}

impl From<GrowError> for Failure {
    fn from(error: GrowError) -> Self {
        let exit = match &error {
            GrowError::Refused(_)
            | GrowError::Device(CreateError::SizeMissing { .. } | CreateError::Size { .. }) => Exit::Usage,
            GrowError::Device(CreateError::Full { .. }) => Exit::Full,
            GrowError::Device(CreateError::Open(error)) => exit_of_device(error),
            GrowError::Device(CreateError::File(error)) | GrowError::File(error) => exit_of_file(error),
            _ => Exit::Failed,
        };
        let failure = Self::new(exit, &error);
        match error {
            GrowError::Device(CreateError::Exists { .. } | CreateError::Occupied { .. }) => {
                failure.and("--force does that")
            }
            GrowError::Device(CreateError::SizeMissing { .. }) => failure.and("say it with --size"),
            _ => failure,
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let exit = match &error {
            OpenError::Option(_) => Exit::Usage,
            OpenError::Device(error) => exit_of_device(error),
            OpenError::File(error) => exit_of_file(error),
            OpenError::Superblock { error, .. } => exit_of_superblock(error),
            OpenError::Recovery(error) => exit_of_recovery(error),
            _ => Exit::Failed,
        };
        let failure = Self::new(exit, &error);
        match error {
            OpenError::Device(DeviceOpenError::NotDirect { .. }) => failure.and("--allow-buffered does that"),
            OpenError::RingUnavailable { .. } => failure.and("--backend threads does that"),
            OpenError::Superblock { error: SuperblockChoiceError::NewerVersion { .. }, .. } => {
                failure.and("use a later version of the program")
            }
            OpenError::HalfRestored { .. } => failure.and("corelog restore --force does that"),
            _ => failure,
        }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let exit = match &error {
            AppendError::StoreFull { .. } => Exit::Full,
            AppendError::NoSuchShard { .. }
            | AppendError::TooLarge { .. }
            | AppendError::LargeTooLong { .. } => Exit::Usage,
            AppendError::Failed(failure) => exit_of_shard(failure),
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        let exit = match &error {
            WaitError::Failed(failure) => exit_of_shard(failure),
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<SpaceError> for Failure {
    fn from(error: SpaceError) -> Self {
        let exit = match &error {
            SpaceError::NoSuchShard { .. } => Exit::Usage,
            SpaceError::OtherShard { .. } => Exit::NoRecord,
            SpaceError::Place(error) => return error.clone().into(),
            SpaceError::Refused { refusal: SpaceRefusal::StoreFull, .. } => Exit::Full,
            SpaceError::Refused { refusal: SpaceRefusal::Failed(failure), .. } => exit_of_shard(failure),
            SpaceError::Refused { refusal: SpaceRefusal::Ahead, .. } => Exit::NoRecord,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<CloseError> for Failure {
    fn from(error: CloseError) -> Self {
        let exit = match &error {
            CloseError::Failed(failure) => exit_of_shard(failure),
            CloseError::File(error) => exit_of_file(error),
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let exit = match &error {
            ReadError::NoSuchAddress { .. } | ReadError::Reclaimed { .. } | ReadError::NotData { .. } => {
                Exit::NoRecord
            }
            ReadError::Corrupt { .. } | ReadError::Truncated { .. } => Exit::Damage,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<LargeReadError> for Failure {
    fn from(error: LargeReadError) -> Self {
        match error {
            LargeReadError::Read(error) => error.into(),
            LargeReadError::Flush(error) => error.into(),
            LargeReadError::NotLarge { .. } => Self::new(Exit::NoRecord, error),
            LargeReadError::Damage { .. } => Self::new(Exit::Damage, error),
            _ => Self::new(Exit::Failed, error),
        }
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        let exit = match &error {
            ScanError::NoSuchShard { .. } => Exit::Usage,
            ScanError::OtherShard { .. }
            | ScanError::Reclaimed { .. }
            | ScanError::NotInLog { .. }
            | ScanError::NotACut { .. } => Exit::NoRecord,
            ScanError::Begin(error) | ScanError::Read(error) => return error.clone().into(),
            ScanError::Damage(damage) if !matches!(damage.fault, Fault::Unreadable(_)) => Exit::Damage,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

const fn exit_of_device(error: &DeviceOpenError) -> Exit {
    match error {
        DeviceOpenError::Locked { .. } => Exit::Locked,
        DeviceOpenError::Full { .. } => Exit::Full,
        _ => Exit::Failed,
    }
}

const fn exit_of_file(error: &FileError) -> Exit {
    match error {
        FileError::Full { .. } => Exit::Full,
        FileError::Truncated { .. } | FileError::Failed { .. } => Exit::Failed,
    }
}

const fn exit_of_superblock(error: &SuperblockChoiceError) -> Exit {
    match error {
        SuperblockChoiceError::NoValidCopy { .. }
        | SuperblockChoiceError::TwoStores { .. }
        | SuperblockChoiceError::Contradiction { .. } => Exit::Damage,
        _ => Exit::Failed,
    }
}

const fn exit_of_recovery(error: &RecoveryError) -> Exit {
    match error {
        RecoveryError::Unreadable { .. } | RecoveryError::NewerVersion { .. } | RecoveryError::Memory(_) => {
            Exit::Failed
        }
        _ => Exit::Damage,
    }
}

const fn exit_of_shard(failure: &ShardFailure) -> Exit {
    match failure {
        ShardFailure::DeviceFull { .. } => Exit::Full,
        // A disk that is nearly full takes the first part of each write, and never says why it takes no more.
        ShardFailure::ShortWrite { .. } => Exit::Full,
        _ => Exit::Failed,
    }
}

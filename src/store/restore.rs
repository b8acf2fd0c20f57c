//! The end of a restore: what was made to be restored to becomes a store as any other.

use super::{Store, grow::Devices, superblocks::unix_ns};
use crate::backup::RestoreError;
use corelog_shards::{
    device::file::FileError,
    opening::{WriteSuperblockError, restored_superblock, write_superblock},
};
use std::sync::PoisonError;

impl Store {
    /// Says durably that all of a backup is in the store, if it was made to be restored to.
    pub(crate) fn end_restore(&self) -> Result<(), RestoreError> {
        let assembly = &self.inner.assembly;
        let _one_at_a_time = assembly.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let files = assembly.devices();
        let mut current = assembly.current();
        if !current.superblock.is_restoring() {
            return Ok(());
        }
        if current.is_closed || files.is_empty() {
            return Err(RestoreError::Closed);
        }
        let superblock = restored_superblock(&current.superblock, unix_ns());
        let devices = Devices { files: &files, failures: &assembly.opened.sync_failures };
        write_superblock(&superblock, &devices).inspect_err(|_| {
            current.superblock.sequence = superblock.sequence + 1;
        })?;
        current.superblock = superblock;
        Ok(())
    }
}

impl From<WriteSuperblockError<FileError>> for RestoreError {
    fn from(error: WriteSuperblockError<FileError>) -> Self {
        match error {
            WriteSuperblockError::Device(error) => Self::Superblock(error),
            WriteSuperblockError::Memory(error) => Self::Memory(error),
        }
    }
}

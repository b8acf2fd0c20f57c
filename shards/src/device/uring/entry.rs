//! Operations as the kernel reads them. Building one touches no memory; handing it to the kernel does.

use super::registered::Registered;
use crate::{device::WriteSync, ids::DeviceIndex, limits::IO_TRANSFER_BYTES_MAX, memory::Region};
use io_uring::{
    opcode, squeue,
    types::{Fd, Fixed, FsyncFlags},
};
use std::{os::fd::RawFd, sync::Arc};

/// Memory of an operation, as the kernel wants it.
pub(super) struct Place {
    first: *mut u8,
    length: u32,
    registered: Option<u16>,
}

impl Place {
    pub(super) fn new(region: &Arc<Region>, offset: usize, length: usize, registered: &Registered) -> Self {
        Self {
            first: region.as_ptr().wrapping_add(offset),
            // What is longer is transferred short, as the kernel would do.
            length: u32::try_from(length).unwrap_or(u32::MAX).min(IO_TRANSFER_BYTES_MAX),
            registered: registered.index_of(region, offset, length),
        }
    }
}

/// The file that an operation goes to.
pub(super) struct Target {
    pub(super) fixed: bool,
    pub(super) index: DeviceIndex,
    pub(super) fd: RawFd,
}

/// Builds an operation on a fixed file or on a plain one; the builders take different types.
macro_rules! on_target {
    ($target:expr, |$file:ident| $build:expr) => {
        if $target.fixed {
            let $file = Fixed(u32::from($target.index.0));
            $build
        } else {
            let $file = Fd($target.fd);
            $build
        }
    };
}

impl Target {
    pub(super) fn read(&self, place: Place, offset: u64) -> squeue::Entry {
        on_target!(self, |file| match place.registered {
            Some(index) =>
                opcode::ReadFixed::new(file, place.first, place.length, index).offset(offset).build(),
            None => opcode::Read::new(file, place.first, place.length).offset(offset).build(),
        })
    }

    pub(super) fn write(&self, place: Place, offset: u64, sync: WriteSync) -> squeue::Entry {
        let flags = match sync {
            WriteSync::None => 0,
            WriteSync::Data => libc::RWF_DSYNC,
        };
        on_target!(self, |file| match place.registered {
            Some(index) => opcode::WriteFixed::new(file, place.first, place.length, index)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            None =>
                opcode::Write::new(file, place.first, place.length).offset(offset).rw_flags(flags).build(),
        })
    }

    pub(super) fn sync(&self) -> squeue::Entry {
        on_target!(self, |file| opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build())
    }

    pub(super) fn discard(&self, offset: u64, length: u64) -> squeue::Entry {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        on_target!(self, |file| opcode::Fallocate::new(file, length).offset(offset).mode(mode).build())
    }
}

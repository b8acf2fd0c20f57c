//! What the user of a store should hear about it: what its devices say of themselves, and what an open added to it.

use corelog_shards::{device::file::DeviceFile, opening::AddedShards};
use corelog_tuning::probe::{DeviceProbe, Warning};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Something about a device that weakens what the store can promise on it, or how fast it can be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceWarning {
    /// From the attributes of the device's queue, or from the kind of file system.
    #[error("{}: {warning}", path.display())]
    Device {
        /// The device of the store.
        path: PathBuf,
        /// What it is.
        warning: Warning,
    },
    /// From how the host opened it: buffered, or not known to be direct.
    #[error("{text}")]
    Opened {
        /// What it is, with the path and the remedy.
        text: String,
    },
}

impl DeviceWarning {
    /// True if an acknowledged record may be lost although every write and sync succeeded.
    #[must_use]
    pub const fn breaks_durability(&self) -> bool {
        match self {
            Self::Device { warning, .. } => warning.breaks_durability(),
            Self::Opened { .. } => false,
        }
    }
}

/// One look at each device. A device that cannot be looked at is no reason to refuse it: the store has it open.
pub(super) fn of(devices: &[Arc<DeviceFile>]) -> Vec<DeviceWarning> {
    let mut warnings = Vec::new();
    for device in devices {
        let path = device.path();
        warnings.extend(device.warnings().iter().map(|text| DeviceWarning::Opened { text: text.clone() }));
        let probed = DeviceProbe::of_path(path, Path::new("/sys")).map(|probe| probe.warnings());
        let probed = probed.unwrap_or_default().into_iter();
        warnings.extend(probed.map(|warning| DeviceWarning::Device { path: path.to_owned(), warning }));
    }
    for warning in &warnings {
        tracing::warn!(%warning, "device");
    }
    warnings
}

/// Shards stay, and change where keys are routed: whoever opened the store should not find that out by counting.
pub(super) fn note_added(added: &AddedShards) {
    match added.fewer {
        Some(_) => tracing::warn!("{added}"),
        None if added.is_nothing() => {}
        None => tracing::info!("{added}"),
    }
}

//! `corelog grow`.

use super::{
    args::{Grow, RunOptions},
    failure::Failure,
    output::{Facts, Reader, bytes, count},
    progress::Progress,
    setup,
};
use corelog::{DeviceIndex, Fill, GrowBy, Grown, Store};
use corelog_shards::limits::{RING_BUFFERS_MIN, SLOT_BYTES_MAX};
use serde::Serialize;

/// What came.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    grown: Grown,
    free_extents: u64,
}

/// Opens the store, makes it larger, and closes it.
pub fn run(args: &Grow) -> Result<(), Failure> {
    let run = RunOptions { cores: None, profile: None, sync: None, device: args.device.clone() };
    let options = setup::options(&run)?.buffer_bytes(SLOT_BYTES_MAX).buffers(RING_BUFFERS_MIN);
    let store = Store::open_all(&args.device.paths(&args.store), &options)?;
    setup::announce(&store);
    let bytes = args.size.map(|size| size.0);
    let by = match &args.add {
        Some(path) => GrowBy::NewDevice { path: path.clone(), bytes, replace: args.force },
        None => GrowBy::Device { device: DeviceIndex(args.index.unwrap_or(0)), bytes },
    };
    let fill = if args.sparse { Fill::Sparse } else { Fill::Zeros };
    let mut bar = None;
    let mut shown = 0;
    let grown = store.grow(&by, fill, &mut |done, total| {
        bar.get_or_insert_with(|| Progress::over_bytes("writing zeros", Some(total))).advance(done - shown);
        shown = done;
    });
    drop(bar);
    let free_extents = store.directory().extents.free_count();
    let closed = store.close();
    let report = Report { grown: grown?, free_extents };
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), &report, for_person).map_err(Failure::of_output)?;
    closed.map_err(Failure::from)
}

fn for_person(report: &Report) -> Facts {
    let mut facts = Facts::default();
    let Grown { device, extents, bytes: came, store_extents, warnings, .. } = &report.grown;
    facts
        .fact("device", device)
        .fact("came", format!("{} extents, {}", count((*extents).into()), bytes(*came)))
        .fact("extents now", count((*store_extents).into()))
        .fact("free now", format!("{} extents", count(report.free_extents)));
    for warning in warnings {
        facts.fact("note", warning);
    }
    facts
}

//! `corelog backup` and `corelog restore`.

use super::{
    args::{Backup, Restore, RunOptions},
    exit::Exit,
    failure::Failure,
    output::{Facts, Reader, bytes, count},
    setup,
};
use corelog::{BackupReport, Fill, FormatOptions, Store};
use corelog_shards::limits::{BUFFER_BYTES_MAX, RING_BUFFERS_MIN};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter},
    path::Path,
};

/// Bytes that are read and written at once.
const PIECE_BYTES: usize = 1 << 20;

/// Opens the store, copies it, and closes it. The copy is synced.
pub fn backup(args: &Backup) -> Result<(), Failure> {
    let run = RunOptions { cores: None, profile: None, sync: None, device: args.device.clone() };
    let store = Store::open_all(&args.device.paths(&args.store), &setup::options(&run)?)?;
    setup::announce(&store);
    let copied = copy(&store, args);
    let closed = store.close();
    let report = copied?;
    say(args.json, &report)?;
    closed.map_err(Failure::from)
}

fn copy(store: &Store, args: &Backup) -> Result<BackupReport, Failure> {
    let file =
        File::options().write(true).create_new(!args.force).create(true).truncate(true).open(&args.out);
    let file = file.map_err(|error| of_file(&args.out, &error))?;
    let mut out = BufWriter::with_capacity(PIECE_BYTES, &file);
    let report = store.backup(&store.cut(), &mut out).map_err(|error| Failure::new(Exit::Failed, error))?;
    drop(out);
    file.sync_all().map_err(|error| of_file(&args.out, &error))?;
    Ok(report)
}

/// Makes a store, and fills it.
pub fn restore(args: &Restore) -> Result<(), Failure> {
    let file = File::open(&args.backup).map_err(|error| of_file(&args.backup, &error))?;
    let backup = corelog::Backup::open(BufReader::with_capacity(PIECE_BYTES, file)).map_err(of_restore)?;
    let head = *backup.head();
    let paths = args.device.paths(&args.store);
    let format = FormatOptions {
        size_bytes: args.size.map(|size| size.0),
        shards: Some(head.shards),
        slot_bytes: head.slot_bytes,
        extent_bytes: head.extent_bytes,
        fill: if args.sparse { Fill::Sparse } else { Fill::Zeros },
        replace: args.force,
        allow_buffered: args.device.allow_buffered,
    };
    corelog::format(&paths, &format, &mut |_, _| {})?;
    // The records may be as long as any store allows.
    let buffer = (head.extent_bytes - head.slot_bytes).min(BUFFER_BYTES_MAX);
    let buffer = buffer - buffer % head.slot_bytes;
    let run = RunOptions { cores: None, profile: None, sync: None, device: args.device.clone() };
    let options = setup::options(&run)?.buffer_bytes(buffer).buffers(RING_BUFFERS_MIN);
    let store = Store::open_all(&paths, &options)?;
    setup::announce(&store);
    let restored = backup.restore(&store);
    let closed = store.close();
    let report = restored.map_err(of_restore)?;
    say(args.json, &report)?;
    closed.map_err(Failure::from)
}

fn of_file(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

fn of_restore(error: corelog::RestoreError) -> Failure {
    use corelog::RestoreError::{Append, Damaged, Flush, NotABackup, Truncated};
    match error {
        Append(error) => error.into(),
        Flush(error) => error.into(),
        Damaged { .. } | Truncated | NotABackup => Failure::new(Exit::Damage, error),
        error => Failure::new(Exit::Failed, error),
    }
}

fn say(json: bool, report: &BackupReport) -> Result<(), Failure> {
    let reader = Reader::from_json_flag(json);
    reader.write(&mut io::stdout().lock(), report, for_person).map_err(Failure::of_output)
}

fn for_person(report: &BackupReport) -> Facts {
    let mut facts = Facts::default();
    facts.fact("copied", format!("{} records, {}", count(report.records), bytes(report.bytes)));
    facts
}

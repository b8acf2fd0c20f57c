//! `corelog backup` and `corelog restore`.

use super::{
    args::{Backup, Restore, RunOptions},
    exit::Exit,
    failure::Failure,
    output::{Facts, Reader, bytes, count},
    setup,
};
use corelog::{BackupReport, Fill, FormatOptions, Store};
use corelog_shards::limits::{BUFFER_BYTES_MAX, RING_BUFFERS_MIN, SUPERBLOCK_AREA_BYTES};
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
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

/// Makes a store, and fills it. A new file has its name once it is whole, and what takes the place of another store says
/// until then that it is not; nothing that could be taken for it is left otherwise.
pub fn restore(args: &Restore) -> Result<(), Failure> {
    let file = File::open(&args.backup).map_err(|error| of_file(&args.backup, &error))?;
    let backup = corelog::Backup::open(BufReader::with_capacity(PIECE_BYTES, file)).map_err(of_restore)?;
    let head = *backup.head();
    let targets: Vec<Target> = args.device.paths(&args.store).into_iter().map(Target::new).collect();
    let format = FormatOptions {
        size_bytes: args.size.map(|size| size.0),
        shards: Some(head.shards),
        slot_bytes: head.slot_bytes,
        extent_bytes: head.extent_bytes,
        fill: if args.sparse { Fill::Sparse } else { Fill::Zeros },
        replace: args.force,
        allow_buffered: args.device.allow_buffered,
        restoring: true,
    };
    let places: Vec<&Path> = targets.iter().map(|target| target.place.as_path()).collect();
    corelog::format(&places, &format, &mut |_, _| {})?;
    let restored = fill(args, backup, &places).and_then(|report| {
        // The first one last: without it the others are no store.
        targets.iter().rev().try_for_each(Target::name).map(|()| report)
    });
    match restored {
        Ok(report) => say(args.json, &report),
        Err(failure) => {
            targets.iter().for_each(Target::discard);
            Err(failure.and("what was restored is gone again"))
        }
    }
}

fn fill(
    args: &Restore,
    backup: corelog::Backup<BufReader<File>>,
    places: &[&Path],
) -> Result<BackupReport, Failure> {
    let head = *backup.head();
    // The records may be as long as any store allows.
    let buffer = (head.extent_bytes - head.slot_bytes).min(BUFFER_BYTES_MAX);
    let buffer = buffer - buffer % head.slot_bytes;
    let run = RunOptions { cores: None, profile: None, sync: None, device: args.device.clone() };
    let options = setup::options(&run)?.buffer_bytes(buffer).buffers(RING_BUFFERS_MIN).restoring(true);
    let store = Store::open_all(places, &options)?;
    setup::announce(&store);
    let restored = backup.restore(&store);
    let closed = store.close();
    let report = restored.map_err(of_restore)?;
    closed?;
    Ok(report)
}

/// A device of the store that is made.
struct Target {
    path: PathBuf,
    /// Where it is made: a new file gets its name when the store is whole.
    place: PathBuf,
}

impl Target {
    fn new(path: &Path) -> Self {
        let is_there = fs::symlink_metadata(path).is_ok();
        let mut place = path.as_os_str().to_owned();
        if !is_there {
            place.push(".restoring");
        }
        Self { path: path.to_owned(), place: place.into() }
    }

    fn name(&self) -> Result<(), Failure> {
        if self.place == self.path {
            return Ok(());
        }
        let (cwd, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
        let named = rustix::fs::renameat_with(cwd, &self.place, cwd, &self.path, flags);
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let synced = || File::open(folder.unwrap_or(Path::new(".")))?.sync_all();
        named.map_err(io::Error::from).and_then(|()| synced()).map_err(|error| of_file(&self.path, &error))
    }

    /// Leaves no store, or a device that says that it holds none.
    fn discard(&self) {
        let is_named = self.place != self.path && fs::symlink_metadata(&self.place).is_err();
        let gone = if self.place != self.path {
            fs::remove_file(if is_named { &self.path } else { &self.place })
        } else {
            let zeros = vec![0; SUPERBLOCK_AREA_BYTES as usize];
            let file = File::options().write(true).open(&self.path);
            file.and_then(|file| file.write_all_at(&zeros, 0).and_then(|()| file.sync_all()))
        };
        if let Err(error) = gone {
            super::failure::say(&format!(
                "{}: a part of the store is left there: {error}",
                self.place.display()
            ));
        }
    }
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

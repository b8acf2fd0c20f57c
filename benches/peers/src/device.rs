//! What the host tells of the device below a folder, and how its page cache is emptied.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Which number of `/sys/block/*/stat` counts the flushes that the device was sent.
const FLUSHES_FIELD: usize = 15;

/// Flushes so far; `None`: the host does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushes(pub Option<u64>);

impl Flushes {
    /// Those since an earlier look.
    pub fn since(self, before: Self) -> Self {
        Self(self.0.zip(before.0).map(|(now, before)| now.saturating_sub(before)))
    }
}

/// The device that a folder lies on.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its counters, where there are any.
    stat: Option<PathBuf>,
}

impl Device {
    /// Finds it. Network and overlay file systems have none.
    pub fn below(folder: &Path) -> Self {
        let stat = rustix::fs::stat(folder).ok().map(|found| {
            let (major, minor) = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
        });
        // A partition does not count them; its disk does.
        let stat = stat.and_then(|path| path.canonicalize().ok()).map(|path| {
            let is_partition = path.join("partition").exists();
            path.parent().filter(|_| is_partition).unwrap_or(&path).join("stat")
        });
        Self { stat: stat.filter(|stat| stat.exists()) }
    }

    /// Flushes so far: of all processes.
    pub fn flushes(&self) -> Flushes {
        let text = self.stat.as_ref().and_then(|stat| fs::read_to_string(stat).ok());
        Flushes(text.and_then(|text| flushes_in(&text)))
    }
}

fn flushes_in(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(FLUSHES_FIELD)?.parse().ok()
}

/// Forgets what the host has read of a folder's files, which have to be clean: of all files where it lets us, else of
/// these.
pub fn drop_page_cache(folder: &Path) -> io::Result<()> {
    if fs::write("/proc/sys/vm/drop_caches", "1").is_ok() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            drop_page_cache(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Flushes, flushes_in};

    #[test]
    fn flushes_are_the_sixteenth_number() {
        let line = "  1 2 3 4 5 6 7 8 0 10 11 12 13 14 15 2384498 17\n";
        assert_eq!(flushes_in(line), Some(2_384_498));
        // Before Linux 5.5 there were fewer.
        assert_eq!(flushes_in("1 2 3 4 5 6 7 8 9 10 11"), None);
    }

    #[test]
    fn what_is_not_told_is_not_counted() {
        assert_eq!(Flushes(Some(7)).since(Flushes(Some(4))), Flushes(Some(3)));
        assert_eq!(Flushes(Some(7)).since(Flushes(None)), Flushes(None));
    }
}

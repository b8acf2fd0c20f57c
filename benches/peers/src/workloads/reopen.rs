//! W4: opening a log whose process was killed. Another process fills it and waits; it is killed with signal 9, and the
//! clock runs from there until the last acknowledged record has been read.

use super::{Kept, Setup, compare, read::append_all, settle_host};
use crate::{
    engine::{Engine, EngineName, Ground, Load, Reader},
    error::{Fault, PeerError},
    limits::{FILL_MAX, KEPT_MAX, READ_RECORD_BYTES},
    payload::Payloads,
};
use clap::ValueEnum;
use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

/// The command of this program that fills a store and waits to be killed.
pub const FILL_COMMAND: &str = "fill";

/// Milliseconds.
pub fn run<E: Engine>(setup: &Setup) -> Result<f64, PeerError> {
    let of = PeerError::of(E::NAME);
    let folder = setup.ground()?;
    let kept = filled_and_killed(E::NAME, folder.path(), setup.size)?;
    let ground = ground(folder.path(), setup.size);
    let ground = Ground { load: Load::Independent, ..ground };
    // The page cache stays warm, but what is dirty in it is not for the next process to wait for.
    settle_host(folder.path())?;
    let began = Instant::now();
    let engine = E::open(&ground).map_err(&of)?;
    read_last(&engine, &kept)?;
    let seconds = began.elapsed().as_secs_f64();
    compare(&engine, READ_RECORD_BYTES, &kept)?;
    engine.close().map_err(&of)?;
    Ok(seconds * 1e3)
}

fn ground(folder: &Path, size: u64) -> Ground<'_> {
    let records = (size / READ_RECORD_BYTES as u64).max(1);
    Ground { folder, writers: 1, load: Load::Driven, payload_bytes: size, records }
}

fn read_last<E: Engine>(engine: &E, kept: &[Kept]) -> Result<(), PeerError> {
    let of = PeerError::of(E::NAME);
    let Some(&Kept { id, place }) = kept.last() else { return Ok(()) };
    let mut found = Vec::with_capacity(READ_RECORD_BYTES);
    let is_there = engine.reader().and_then(|mut reader| reader.read(id, place, &mut found)).map_err(&of)?;
    if is_there && found == Payloads::new(READ_RECORD_BYTES).of(id) {
        Ok(())
    } else {
        Err(PeerError::Lost { engine: E::NAME, id })
    }
}

/// A child that is killed at the latest when this is dropped.
struct Filler(Child);

impl Drop for Filler {
    fn drop(&mut self) {
        // One that has ended cannot be killed any more.
        let _has_ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn filled_and_killed(engine: EngineName, folder: &Path, size: u64) -> Result<Vec<Kept>, PeerError> {
    let program = std::env::current_exe().map_err(PeerError::host("the program"))?;
    let name = engine.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let child = Command::new(&program)
        .arg(FILL_COMMAND)
        .arg(name)
        .arg(folder)
        .arg(size.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(PeerError::host(&program))?;
    let mut filler = Filler(child);
    let Some(output) = filler.0.stdout.take() else {
        return Err(PeerError::Filler { engine, status: None });
    };
    let (sender, lines) = mpsc::channel();
    // Ends with the child, whose end of the pipe it reads.
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        let _nobody_waits = sender.send(read.map(|_| line));
    });
    let line = match lines.recv_timeout(FILL_MAX) {
        Ok(line) => line.map_err(PeerError::host(folder))?,
        Err(_) => return Err(PeerError::Filler { engine, status: None }),
    };
    if line.is_empty() {
        let status = filler.0.wait().ok();
        return Err(PeerError::Filler { engine, status });
    }
    drop(filler);
    Ok(serde_json::from_str(&line)?)
}

/// In the child: fills the store, says where records are, and waits for its end.
pub fn fill<E: Engine>(folder: &Path, size: u64) -> Result<(), Fault> {
    let ground = ground(folder, size);
    let engine = E::open(&ground)?;
    let kept = append_all(&engine, ground.records, KEPT_MAX)?;
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &kept)?;
    out.write_all(b"\n")?;
    out.flush()?;
    loop {
        thread::park();
    }
}

//! `corelog read`.

use super::{
    args::{DeviceOptions, Framing, Read},
    failure::{Failure, say},
    setup,
};
use corelog::{Address, Inspection, OpenError, ReadError};
use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

/// Runs the command: prints the records in the order of their addresses on the command line. The first that cannot be
/// read ends it; what is in front of it is printed.
pub fn run(args: &Read) -> Result<(), Failure> {
    let store = inspect(&args.store, &args.device)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = args.addresses.iter().try_for_each(|address| match store.read(*address) {
        Ok(record) => write_record(&mut out, &record, args.join).map_err(Failure::of_output),
        Err(ReadError::Large { .. }) => write_large(&mut out, &store, *address, args.join),
        Err(error) => Err(error.into()),
    });
    let flushed = out.flush().map_err(Failure::of_output);
    printed.and(flushed)
}

/// Opens a store to look at it, and says on standard error what may make the look doubtful.
pub fn inspect(path: &Path, device: &DeviceOptions) -> Result<Inspection, OpenError> {
    let store = Inspection::open(&device.paths(path), &setup::inspection_options(device))?;
    store.warnings().iter().for_each(|warning| say(&format!("note: {warning}")));
    Ok(store)
}

/// Writes a large record part by part, with what is around a record. What is in front of damage is written.
pub fn write_large(
    out: &mut impl Write,
    store: &Inspection,
    address: Address,
    join: Framing,
) -> Result<(), Failure> {
    let mut reader = store.open_large(address)?;
    if join == Framing::U32le {
        // A large record has at most 1 GiB.
        let length = u32::try_from(reader.len()).unwrap_or(u32::MAX);
        out.write_all(&length.to_le_bytes()).map_err(Failure::of_output)?;
    }
    while let Some(part) = reader.next_part()? {
        out.write_all(&part).map_err(Failure::of_output)?;
    }
    match join {
        Framing::Line => out.write_all(b"\n").map_err(Failure::of_output),
        Framing::None | Framing::U32le => Ok(()),
    }
}

/// Writes a record with what is around it; `append --split` with the same word takes it back.
pub fn write_record(out: &mut impl Write, record: &[u8], join: Framing) -> io::Result<()> {
    match join {
        Framing::None => out.write_all(record),
        Framing::Line => {
            out.write_all(record)?;
            out.write_all(b"\n")
        }
        Framing::U32le => {
            // No record of a store is as long as 2^32 bytes: its header has 24 bits for the length.
            let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
            out.write_all(&length.to_le_bytes())?;
            out.write_all(record)
        }
    }
}

//! The functions of `rocksdb/c.h` that are needed, and safe types around them. Why no crate stands in
//! `docs/decisions/0021-peers.md`.

use std::{
    ffi::{CStr, CString, NulError, c_char, c_int, c_uchar, c_void},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::{self, NonNull},
};

macro_rules! opaque {
    ($($name:ident)*) => {
        $(
            /// The library's, seen only through pointers.
            #[repr(C)]
            struct $name {
                _private: [u8; 0],
            }
        )*
    };
}

opaque!(RawDatabase RawOptions RawReadOptions RawWriteOptions RawFlushOptions RawBatch RawPinned);

/// `rocksdb_no_compression`.
const NO_COMPRESSION: c_int = 0;

#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_options_create() -> *mut RawOptions;
    fn rocksdb_options_destroy(options: *mut RawOptions);
    fn rocksdb_options_set_create_if_missing(options: *mut RawOptions, yes: c_uchar);
    fn rocksdb_options_increase_parallelism(options: *mut RawOptions, threads: c_int);
    fn rocksdb_options_set_compression(options: *mut RawOptions, kind: c_int);
    fn rocksdb_options_set_write_buffer_size(options: *mut RawOptions, bytes: usize);
    fn rocksdb_options_set_enable_pipelined_write(options: *mut RawOptions, yes: c_uchar);
    fn rocksdb_options_set_manual_wal_flush(options: *mut RawOptions, yes: c_uchar);
    fn rocksdb_options_set_recycle_log_file_num(options: *mut RawOptions, files: usize);
    fn rocksdb_options_set_use_direct_reads(options: *mut RawOptions, yes: c_uchar);
    fn rocksdb_open(
        options: *const RawOptions,
        name: *const c_char,
        error: *mut *mut c_char,
    ) -> *mut RawDatabase;
    fn rocksdb_close(database: *mut RawDatabase);
    fn rocksdb_readoptions_create() -> *mut RawReadOptions;
    fn rocksdb_readoptions_destroy(options: *mut RawReadOptions);
    fn rocksdb_writeoptions_create() -> *mut RawWriteOptions;
    fn rocksdb_writeoptions_destroy(options: *mut RawWriteOptions);
    fn rocksdb_writeoptions_set_sync(options: *mut RawWriteOptions, yes: c_uchar);
    fn rocksdb_flushoptions_create() -> *mut RawFlushOptions;
    fn rocksdb_flushoptions_destroy(options: *mut RawFlushOptions);
    fn rocksdb_flushoptions_set_wait(options: *mut RawFlushOptions, yes: c_uchar);
    fn rocksdb_flush(database: *mut RawDatabase, options: *const RawFlushOptions, error: *mut *mut c_char);
    fn rocksdb_writebatch_create() -> *mut RawBatch;
    fn rocksdb_writebatch_destroy(batch: *mut RawBatch);
    fn rocksdb_writebatch_clear(batch: *mut RawBatch);
    fn rocksdb_writebatch_put(
        batch: *mut RawBatch,
        key: *const c_char,
        key_bytes: usize,
        value: *const c_char,
        value_bytes: usize,
    );
    fn rocksdb_write(
        database: *mut RawDatabase,
        options: *const RawWriteOptions,
        batch: *mut RawBatch,
        error: *mut *mut c_char,
    );
    fn rocksdb_get_pinned(
        database: *mut RawDatabase,
        options: *const RawReadOptions,
        key: *const c_char,
        key_bytes: usize,
        error: *mut *mut c_char,
    ) -> *mut RawPinned;
    fn rocksdb_pinnableslice_value(pinned: *const RawPinned, bytes: *mut usize) -> *const c_char;
    fn rocksdb_pinnableslice_destroy(pinned: *mut RawPinned);
    fn rocksdb_free(memory: *mut c_void);
}

/// What the library refused.
#[derive(Debug, thiserror::Error)]
pub enum RocksdbError {
    /// Its own words.
    #[error("{0}")]
    Library(String),
    /// A path with a zero in it.
    #[error(transparent)]
    Path(#[from] NulError),
    /// It gave no object and no reason.
    #[error("the library gave nothing")]
    Nothing,
}

/// Takes the library's error, if there is one, and gives its memory back.
fn check(error: *mut c_char) -> Result<(), RocksdbError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the library sets it to a string of its own that ends with a zero, and leaves it to the caller.
    let words = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: it is not used any more, and `malloc` of the library made it.
    unsafe { rocksdb_free(error.cast()) };
    Err(RocksdbError::Library(words))
}

/// What differs from the library's defaults, beside what every use here wants.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Background threads.
    pub threads: i32,
    /// Memory of a tree before it is written out.
    pub write_buffer_bytes: usize,
    /// Log files that are kept to be written again.
    pub recycled_logs: usize,
}

/// Options that are destroyed when dropped.
struct Options(NonNull<RawOptions>);

impl Options {
    fn new(tuning: Tuning) -> Result<Self, RocksdbError> {
        // SAFETY: it has no conditions.
        let raw = unsafe { rocksdb_options_create() };
        let options = Self(NonNull::new(raw).ok_or(RocksdbError::Nothing)?);
        // SAFETY: the options are alive until `options` is dropped; so for all below.
        unsafe { rocksdb_options_set_create_if_missing(raw, 1) };
        // SAFETY: as above.
        unsafe { rocksdb_options_increase_parallelism(raw, tuning.threads) };
        // SAFETY: as above.
        unsafe { rocksdb_options_set_compression(raw, NO_COMPRESSION) };
        // SAFETY: as above.
        unsafe { rocksdb_options_set_write_buffer_size(raw, tuning.write_buffer_bytes) };
        // SAFETY: as above.
        unsafe { rocksdb_options_set_enable_pipelined_write(raw, 1) };
        // SAFETY: as above.
        unsafe { rocksdb_options_set_manual_wal_flush(raw, 1) };
        // SAFETY: as above.
        unsafe { rocksdb_options_set_recycle_log_file_num(raw, tuning.recycled_logs) };
        // SAFETY: as above.
        unsafe { rocksdb_options_set_use_direct_reads(raw, 1) };
        Ok(options)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by the library, and dropped once.
        unsafe { rocksdb_options_destroy(self.0.as_ptr()) };
    }
}

/// An open database and the options of its calls.
#[derive(Debug)]
pub struct Database {
    database: NonNull<RawDatabase>,
    reads: NonNull<RawReadOptions>,
    writes: NonNull<RawWriteOptions>,
    synced_writes: NonNull<RawWriteOptions>,
}

// SAFETY: the header says that a database may be used by several threads, and options are only read.
unsafe impl Send for Database {}
// SAFETY: as above.
unsafe impl Sync for Database {}

impl Database {
    /// Opens the database in `folder`, or makes it.
    pub fn open(folder: &Path, tuning: Tuning) -> Result<Self, RocksdbError> {
        let name = CString::new(folder.as_os_str().as_bytes())?;
        let options = Options::new(tuning)?;
        let mut error = ptr::null_mut();
        // SAFETY: the options and the name, which ends with a zero, outlive the call.
        let database = unsafe { rocksdb_open(options.0.as_ptr(), name.as_ptr(), &raw mut error) };
        check(error)?;
        let database = NonNull::new(database).ok_or(RocksdbError::Nothing)?;
        // SAFETY: it has no conditions.
        let reads = unsafe { rocksdb_readoptions_create() };
        // SAFETY: it has no conditions.
        let writes = unsafe { rocksdb_writeoptions_create() };
        // SAFETY: it has no conditions.
        let synced = unsafe { rocksdb_writeoptions_create() };
        let opened = Self {
            database,
            reads: NonNull::new(reads).ok_or(RocksdbError::Nothing)?,
            writes: NonNull::new(writes).ok_or(RocksdbError::Nothing)?,
            synced_writes: NonNull::new(synced).ok_or(RocksdbError::Nothing)?,
        };
        // SAFETY: made above, and nobody uses it yet.
        unsafe { rocksdb_writeoptions_set_sync(synced, 1) };
        Ok(opened)
    }

    /// Writes a batch and empties it. With `sync` all that was written before is durable too.
    pub fn write(&self, batch: &mut Batch, sync: bool) -> Result<(), RocksdbError> {
        let options = if sync { self.synced_writes } else { self.writes };
        let mut error = ptr::null_mut();
        let (database, raw) = (self.database.as_ptr(), batch.0.as_ptr());
        // SAFETY: all of them are alive, and the batch is borrowed for this call alone.
        unsafe { rocksdb_write(database, options.as_ptr(), raw, &raw mut error) };
        check(error)?;
        // SAFETY: as above.
        unsafe { rocksdb_writebatch_clear(raw) };
        Ok(())
    }

    /// Writes what is in memory to tables, and waits for it.
    pub fn flush(&self) -> Result<(), RocksdbError> {
        // SAFETY: it has no conditions.
        let options = unsafe { rocksdb_flushoptions_create() };
        let options = NonNull::new(options).ok_or(RocksdbError::Nothing)?.as_ptr();
        let mut error = ptr::null_mut();
        // SAFETY: made above.
        unsafe { rocksdb_flushoptions_set_wait(options, 1) };
        // SAFETY: database and options are alive.
        unsafe { rocksdb_flush(self.database.as_ptr(), options, &raw mut error) };
        // SAFETY: made above, and not used any more.
        unsafe { rocksdb_flushoptions_destroy(options) };
        check(error)
    }

    /// Copies a value. False: there is none.
    pub fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, RocksdbError> {
        let mut error = ptr::null_mut();
        let (database, options) = (self.database.as_ptr(), self.reads.as_ptr());
        // SAFETY: database, options and key outlive the call.
        let pinned =
            unsafe { rocksdb_get_pinned(database, options, key.as_ptr().cast(), key.len(), &raw mut error) };
        check(error)?;
        if pinned.is_null() {
            return Ok(false);
        }
        let mut bytes = 0;
        // SAFETY: it was found, and is destroyed below.
        let found = unsafe { rocksdb_pinnableslice_value(pinned, &raw mut bytes) };
        value.clear();
        if !found.is_null() {
            // SAFETY: the library says that so many bytes lie there until the value is destroyed.
            value.extend_from_slice(unsafe { std::slice::from_raw_parts(found.cast(), bytes) });
        }
        // SAFETY: what it pinned has been copied.
        unsafe { rocksdb_pinnableslice_destroy(pinned) };
        Ok(true)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: whoever uses it borrows it, so that nobody does any more.
        unsafe { rocksdb_close(self.database.as_ptr()) };
        // SAFETY: no call is under way.
        unsafe { rocksdb_readoptions_destroy(self.reads.as_ptr()) };
        // SAFETY: as above.
        unsafe { rocksdb_writeoptions_destroy(self.writes.as_ptr()) };
        // SAFETY: as above.
        unsafe { rocksdb_writeoptions_destroy(self.synced_writes.as_ptr()) };
    }
}

/// Puts that are written together.
#[derive(Debug)]
pub struct Batch(NonNull<RawBatch>);

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        // SAFETY: it has no conditions.
        let raw = unsafe { rocksdb_writebatch_create() };
        // The library allocates it with `new`, which gives no null.
        Self(NonNull::new(raw).expect("a batch"))
    }

    /// Adds a put.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let (key_at, value_at) = (key.as_ptr().cast(), value.as_ptr().cast());
        // SAFETY: the batch is alive and borrowed, and the library copies both.
        unsafe { rocksdb_writebatch_put(self.0.as_ptr(), key_at, key.len(), value_at, value.len()) };
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: made by the library, and dropped once.
        unsafe { rocksdb_writebatch_destroy(self.0.as_ptr()) };
    }
}

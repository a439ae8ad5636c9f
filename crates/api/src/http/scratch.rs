//! Buffers of the thread, which a connection borrows for the length of one read or write.
//!
//! They exist so that a connection which waits owns none.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// What one read takes at most: as much as a socket mostly has to give, so that uploads go in
/// large steps.
const READ_BYTES: usize = 64 << 10;

/// A rendered answer beyond this size gives its memory back.
const WRITE_BYTES_KEPT: usize = 64 << 10;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
    static WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static DATE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Lends the buffer to read into. Not to be nested.
pub(super) fn with_read<R>(reader: impl FnOnce(&mut [u8]) -> R) -> R {
    READ.with_borrow_mut(|buffer| reader(buffer))
}

/// Lends an empty buffer to render into. Not to be nested.
pub(super) fn with_write<R>(writer: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    WRITE.with_borrow_mut(|buffer| {
        let result = writer(buffer);
        buffer.clear();
        buffer.shrink_to(WRITE_BYTES_KEPT);
        result
    })
}

/// Appends the value of the `Date` header, formatted once a second. The wall clock is read for
/// the client's eyes only; nothing here depends on it.
pub(super) fn append_date(out: &mut Vec<u8>) {
    let now = SystemTime::now();
    let second = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(written, text)| {
        if *written != second {
            *written = second;
            *text = httpdate::fmt_http_date(now);
        }
        out.extend_from_slice(text.as_bytes());
    });
}

//! How many bytes the server holds for its clients, against one bound for all of them together.
//!
//! Owns the account and its marks; refuses to know what the bytes are. The relay has every payload on its feeds
//! counted ([`Memory::hold`]: once, however many rings, readers and targets share it), `ingest` what clients have
//! sent of messages that are not whole yet ([`Memory::open`]). Asked by the relay, which keeps less for joiners when
//! memory is [tight](Memory::is_tight), and by `auth` before anybody is let in ([`Memory::is_full`]).
//!
//! What is not counted: code, codecs, the kernel's socket buffers, and some kilobytes per connection, which the limits
//! on their number bound.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What a message costs besides its payload: its place in rings, its framing, and the account's own note.
pub const MESSAGE_OVERHEAD: usize = 384;

/// The account. Clones are the same account.
#[derive(Clone, Default)]
pub struct Memory {
    account: Arc<Account>,
}

#[derive(Default)]
struct Account {
    used: AtomicUsize,
    /// 0: no limit.
    limit: AtomicUsize,
}

impl Memory {
    /// An account with a limit in bytes; 0 is no limit.
    pub fn new(limit: usize) -> Self {
        let memory = Self::default();
        memory.limit_to(limit);
        memory
    }

    /// Another limit from now on. Nothing that is held is taken away.
    pub fn limit_to(&self, limit: usize) {
        self.account.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes that may be held; 0 is no limit.
    pub fn limit(&self) -> usize {
        self.account.limit.load(Ordering::Relaxed)
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.account.used.load(Ordering::Relaxed)
    }

    /// Over seven eighths of the limit: time to keep less of what nobody needs to have.
    pub fn is_tight(&self) -> bool {
        let limit = self.limit();
        limit > 0 && self.used() > limit - limit / 8
    }

    /// Over the limit: nobody else comes in.
    pub fn is_full(&self) -> bool {
        let limit = self.limit();
        limit > 0 && self.used() > limit
    }

    /// The same bytes, counted (with [`MESSAGE_OVERHEAD`]) until the last slice of them is gone.
    pub fn hold(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let mut charge = self.open();
        charge.set(bytes.len() + MESSAGE_OVERHEAD);
        Bytes::from_owner(Held {
            bytes,
            _charge: charge,
        })
    }

    /// An entry of nothing yet, for bytes that come and go.
    pub fn open(&self) -> Charge {
        Charge {
            account: self.account.clone(),
            bytes: 0,
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("used", &self.used())
            .field("limit", &self.limit())
            .finish()
    }
}

/// An entry in the account, taken back when dropped.
pub struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Charge {
    /// It is so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        let used = &self.account.used;
        if bytes > self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

struct Held {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_once_until_their_last_slice_is_gone() {
        let memory = Memory::new(0);
        let bytes = memory.hold(Bytes::from_static(&[7; 1_000]));
        assert_eq!(memory.used(), 1_000 + MESSAGE_OVERHEAD);
        let slice = bytes.slice(10..20);
        let clone = bytes.clone();
        drop(bytes);
        drop(clone);
        assert_eq!(memory.used(), 1_000 + MESSAGE_OVERHEAD);
        assert_eq!(slice[..], [7; 10]);
        drop(slice);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn an_entry_grows_shrinks_and_ends() {
        let memory = Memory::new(100);
        let mut charge = memory.open();
        // Tight over 100 - 100 / 8 = 88, full over 100.
        for (bytes, tight, full) in [
            (88, false, false),
            (89, true, false),
            (100, true, false),
            (101, true, true),
            (10, false, false),
        ] {
            charge.set(bytes);
            assert_eq!(memory.used(), bytes);
            assert_eq!((memory.is_tight(), memory.is_full()), (tight, full));
        }
        drop(charge);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn without_a_limit_there_is_always_room_and_a_new_limit_holds_at_once() {
        let memory = Memory::default();
        let mut charge = memory.open();
        charge.set(usize::MAX / 2);
        assert!(!memory.is_tight() && !memory.is_full());
        memory.limit_to(1_000);
        assert!(memory.is_tight() && memory.is_full());
    }
}

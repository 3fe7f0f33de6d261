//! Names for what a log line is about: one for each connection, one for each call of an API.
//!
//! A connection's name goes into its span, and with the request into events; a call's is held for as long as the call is worked
//! on ([`on_behalf`]), so that whoever tells of a change can say which call caused it ([`request`]). Whoever moves work to another
//! task or thread takes the name along.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tracing::{Instrument, Span};

/// Longest name of a call in bytes that is taken from a client; a UUID has 36.
const MAX_REQUEST: usize = 64;

/// Connections of this process so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
/// What names of this process begin with.
static PROCESS: OnceLock<u32> = OnceLock::new();

tokio::task_local! {
    static REQUEST: RequestId;
}

/// One connection. Prints as `5f3a9c21-17`: unlike those of other processes, also of the one before on the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// That of a connection which was accepted just now.
    pub fn next() -> Self {
        Self(CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without random bytes names are still unlike each other, only not unlike those of other processes.
        let process = PROCESS.get_or_init(|| getrandom::u32().unwrap_or(0));
        write!(f, "{process:08x}-{}", self.0)
    }
}

/// One call of an API: as its client names it, or as we do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new one: 16 hexadecimal digits.
    pub fn new() -> Self {
        Self(format!("{:016x}", getrandom::u64().unwrap_or(0)).into())
    }

    /// A client's own, where it can stand in any log and header: 1 to 64 of `A-Z a-z 0-9 - _ . : + / =`.
    pub fn given(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:+/=".contains(&b);
        let fits = (1..=MAX_REQUEST).contains(&text.len()) && text.bytes().all(plain);
        fits.then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The call that is being worked on here; `None` outside of any.
pub fn request() -> Option<RequestId> {
    REQUEST.try_with(Clone::clone).ok()
}

/// Works for a call, or for none.
pub async fn on_behalf<F: Future>(request: Option<RequestId>, work: F) -> F::Output {
    match request {
        Some(request) => REQUEST.scope(request, work).await,
        None => work.await,
    }
}

/// Work that is to be done in another task, for the call that is being worked on here and within its span.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    on_behalf(request(), work).in_current_span()
}

/// As [`carried`], for work that blocks and is to be done on another thread.
pub fn carried_blocking<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (request, span) = (request(), Span::current());
    move || span.in_scope(|| on_behalf_blocking(request, work))
}

/// As [`on_behalf`], for work that blocks.
fn on_behalf_blocking<T>(request: Option<RequestId>, work: impl FnOnce() -> T) -> T {
    match request {
        Some(request) => REQUEST.sync_scope(request, work),
        None => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_told_apart_and_share_the_name_of_their_process() {
        let [one, other] = [ConnectionId::next(), ConnectionId::next()].map(|id| id.to_string());
        assert_ne!(one, other);
        assert_eq!(one[..9], other[..9]);
        assert_eq!(one.as_bytes()[8], b'-');
    }

    #[test]
    fn a_name_that_could_break_a_log_or_a_header_is_not_taken() {
        let long = "x".repeat(65);
        for bad in ["", "a b", "a\nb", "ä", "a\"b", &long] {
            assert_eq!(RequestId::given(bad), None, "{bad:?}");
        }
        for good in ["a", "6f1c3b9e-5d2a-4c57-9a55-0b1e2c3d4e5f", &long[..64]] {
            assert_eq!(RequestId::given(good).unwrap().as_str(), good);
        }
        assert_eq!(RequestId::new().as_str().len(), 16);
        assert_ne!(RequestId::new(), RequestId::new());
    }

    #[tokio::test]
    async fn a_call_is_known_where_it_is_worked_on_and_nowhere_else() {
        let id = RequestId::given("mine").unwrap();
        let named = Some(id);
        let (inside, blocking, task) = on_behalf(named.clone(), async {
            let bare = tokio::spawn(async { request() }).await.unwrap();
            assert_eq!(bare, None, "it was not taken along");
            let task = tokio::spawn(carried(async { request() })).await;
            let blocking = tokio::task::spawn_blocking(carried_blocking(request)).await;
            (request(), blocking.unwrap(), task.unwrap())
        })
        .await;
        assert_eq!(
            [inside, blocking, task],
            [named.clone(), named.clone(), named]
        );
        assert_eq!(request(), None);
        assert_eq!(on_behalf(None, async { request() }).await, None);
    }
}

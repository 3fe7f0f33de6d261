//! Serves a router on a socket, or on connections that somebody else accepted: knows who calls, and gives up on callers
//! that fall silent.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::net::{self, Handed, Stream};

/// Connections per listener. Health checks and scrapers need a handful.
const MAX_CONNECTIONS: usize = 256;
/// A connection on which nothing moves for this long is closed. Longer than usual scrape intervals, so that these keep
/// their connection.
const SILENCE: Duration = Duration::from_secs(75);
/// So long after the stop, who was accepted before it may still send a first request. A caller writes as soon as it is connected.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// The caller's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, Guarded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded>) -> Self {
        Peer(*stream.remote_addr())
    }
}

/// Serves until `stop`, then lets requests in progress finish, and the first one of callers who have just connected.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let callers = Callers::until(stop);
    let guarded = Guarded {
        listener,
        callers: callers.clone(),
    };
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(guarded, service)
        .with_graceful_shutdown(callers.heard())
        .await
}

/// As [`serve`], for connections that come through a channel; `local` is where they were accepted.
///
/// # Errors
/// As [`serve`].
pub async fn serve_handed(
    connections: mpsc::Receiver<Handed>,
    local: SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let callers = Callers::until(stop);
    let handed = HandedOver {
        connections,
        local,
        callers: callers.clone(),
    };
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(handed, service)
        .with_graceful_shutdown(callers.heard())
        .await
}

/// Who is connected: not too many, and nobody new after the stop.
#[derive(Clone)]
struct Callers {
    room: Arc<Semaphore>,
    /// Those who have said nothing yet.
    unheard: TaskTracker,
    stop: CancellationToken,
}

impl Callers {
    fn until(stop: CancellationToken) -> Self {
        Self {
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            unheard: TaskTracker::new(),
            stop,
        }
    }

    /// The next one, when there is room; nobody after the stop.
    async fn next<S>(
        &self,
        accepted: impl Future<Output = (S, SocketAddr)>,
    ) -> (Impatient<S>, SocketAddr) {
        let next = async {
            // The semaphore is never closed; without a permit there would merely be no limit.
            let room = self.room.clone().acquire_owned().await.ok();
            let (stream, peer) = accepted.await;
            (
                Impatient::new(stream, room, Some(self.unheard.token())),
                peer,
            )
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => std::future::pending().await,
            next = next => next,
        }
    }

    /// Resolves after the stop, when everybody has said something or had the time to: who is silent now may be cut.
    async fn heard(self) {
        self.stop.cancelled().await;
        self.unheard.close();
        let _ = timeout(FIRST_WORD, self.unheard.wait()).await;
    }
}

/// A listener with room for [`MAX_CONNECTIONS`]; more wait in the kernel's queue.
pub(super) struct Guarded {
    listener: TcpListener,
    callers: Callers,
}

impl axum::serve::Listener for Guarded {
    type Io = Impatient<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        self.callers.next(net::accept(&self.listener)).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, HandedOver>> for Peer {
    fn connect_info(stream: IncomingStream<'_, HandedOver>) -> Self {
        Peer(*stream.remote_addr())
    }
}

/// Connections from elsewhere, with room for [`MAX_CONNECTIONS`]; more wait in the channel.
pub(super) struct HandedOver {
    connections: mpsc::Receiver<Handed>,
    local: SocketAddr,
    callers: Callers,
}

impl axum::serve::Listener for HandedOver {
    type Io = Impatient<Stream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let handed = async {
            match self.connections.recv().await {
                Some(Handed { stream, peer }) => (stream, peer),
                // Nobody hands anything over any more; those that are served go on until the stop.
                None => std::future::pending().await,
            }
        };
        self.callers.next(handed).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// A connection that ends with an error when nothing is read or written for [`SILENCE`].
pub(super) struct Impatient<S> {
    stream: S,
    patience: Pin<Box<Sleep>>,
    _room: Option<OwnedSemaphorePermit>,
    /// Until something is read.
    unheard: Option<TaskTrackerToken>,
}

impl<S> Impatient<S> {
    fn new(
        stream: S,
        room: Option<OwnedSemaphorePermit>,
        unheard: Option<TaskTrackerToken>,
    ) -> Self {
        Self {
            stream,
            patience: Box::pin(tokio::time::sleep(SILENCE)),
            _room: room,
            unheard,
        }
    }

    /// Passes a result on; one that is still pending becomes an error when patience is over.
    fn judge<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.patience.as_mut().reset(Instant::now() + SILENCE);
            return result;
        }
        match self.patience.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if result.is_ready() {
            self.unheard = None;
        }
        self.judge(result, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_falls_silent_is_dropped() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let _client = client.unwrap();
        let mut server = Impatient::new(server.unwrap().0, None, None);
        let began = Instant::now();
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), SILENCE.as_secs());
    }

    async fn ask(client: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let read = client.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test]
    async fn who_has_just_connected_when_it_stops_is_heard_once_and_who_says_nothing_is_not_waited_for()
     {
        let router = Router::new().route("/", axum::routing::get(async || "fine"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, stop.clone()));
        let mut early = TcpStream::connect(address).await.unwrap();
        let _silent = TcpStream::connect(address).await.unwrap();
        // Who came after them is served: they are connected.
        let mut last = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut last, "/").await.ends_with("fine"));
        stop.cancel();
        // All that this wakes has run.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(ask(&mut early, "/").await.ends_with("fine"));
        let ended = timeout(Duration::from_secs(30), serving).await;
        ended.unwrap().unwrap().unwrap();
        assert_eq!(early.read(&mut [0; 16]).await.unwrap(), 0, "it is closed");
    }

    #[tokio::test]
    async fn a_panic_in_one_request_ends_its_connection_and_no_other() {
        async fn fine() -> &'static str {
            "fine"
        }
        async fn broken() -> &'static str {
            panic!("on purpose")
        }
        let router = Router::new()
            .route("/fine", axum::routing::get(fine))
            .route("/broken", axum::routing::get(broken));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, router, stop.clone()));
        // Open before, during and after the panic.
        let mut other = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut other, "/fine").await.ends_with("fine"));
        let mut unlucky = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut unlucky, "/broken").await, "", "it is closed");
        assert!(ask(&mut other, "/fine").await.ends_with("fine"));
        let mut next = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut next, "/fine").await.ends_with("fine"));
        stop.cancel();
    }
}

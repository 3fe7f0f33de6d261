//! A path with a bandwidth that can stand still: a TCP proxy which reads from the server only as fast as it may.
//!
//! Its buffers are small and its segments those of an Ethernet, so what the path does not take stays with the server,
//! as behind a radio link that has gone. What the path itself holds (some 30 KB) is no fault of the server's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// What the path's end towards the server may hold, as the kernel doubles it.
const RECEIVE_BUFFER: u32 = 8 << 10;
/// Most that is passed on at once.
const PIECE: usize = 4 << 10;
/// A segment on an Ethernet. Loopback's own are 64 KB, larger than the buffers here.
const SEGMENT: u32 = 1_448;

/// What the path takes from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nothing.
    Stopped,
    /// So many bytes per second.
    Rate(usize),
}

/// The path. Dropping it closes its connections.
pub struct Throttle {
    address: SocketAddr,
    flow: Arc<watch::Sender<Flow>>,
    acceptor: AbortHandle,
}

impl Throttle {
    /// In front of `server`.
    pub async fn before(server: SocketAddr, flow: Flow) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let flow = Arc::new(watch::Sender::new(flow));
        let changes = flow.clone();
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, changes.subscribe()));
            }
        });
        Self {
            address,
            flow,
            acceptor: acceptor.abort_handle(),
        }
    }

    /// Where it is to be entered.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url` by way of this path.
    pub fn through(&self, url: &str, server: SocketAddr) -> String {
        url.replace(&server.to_string(), &self.address.to_string())
    }

    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn carry(client: TcpStream, server: SocketAddr, flow: watch::Receiver<Flow>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let options = SockRef::from(&socket);
    options
        .set_recv_buffer_size(RECEIVE_BUFFER as usize)
        .expect("a small buffer");
    options.set_tcp_mss(SEGMENT).expect("small segments");
    let Ok(server) = socket.connect(server).await else {
        return;
    };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("no delay");
    }
    let (from_server, mut to_server) = server.into_split();
    let (mut from_client, to_client) = client.into_split();
    // Either end takes both directions along.
    tokio::select! {
        () = throttled(from_server, to_client, flow) => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}

async fn throttled(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut flow: watch::Receiver<Flow>,
) {
    let mut piece = vec![0; PIECE];
    let mut free = Instant::now();
    loop {
        let now = *flow.borrow_and_update();
        let Flow::Rate(rate) = now else {
            if flow.changed().await.is_err() {
                return;
            }
            free = Instant::now();
            continue;
        };
        sleep_until(free).await;
        let read = tokio::select! {
            biased;
            changed = flow.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut piece) => read,
        };
        let Ok(read @ 1..) = read else { return };
        let time = Duration::from_secs_f64(read as f64 / rate as f64);
        // What was not used is lost, but for what the machine's own delays take.
        free = free.max(Instant::now() - Duration::from_millis(20)) + time;
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

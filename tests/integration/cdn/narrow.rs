//! A path to a target that takes only so much, or stops: a TCP proxy with small buffers, by which a push enters.
//!
//! What the path itself holds when it stops (some 30 KB) its TCP has acknowledged; that is no fault of the pusher's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::edge::throttle::Flow;

/// What the path's end towards the pusher may hold, as the kernel doubles it.
const RECEIVE_BUFFER: usize = 8 << 10;
/// Most that is passed on at once.
const PIECE: usize = 4 << 10;
/// A segment on an Ethernet. Loopback's own are 64 KB, larger than the buffers here.
const SEGMENT: u32 = 1_448;
/// As good as no limit.
pub const WIDE: Flow = Flow::Rate(100_000_000);

/// The path. Dropping it lets nobody else in.
pub struct Narrow {
    address: SocketAddr,
    flow: Arc<watch::Sender<Flow>>,
    acceptor: AbortHandle,
}

impl Narrow {
    /// In front of `target`; `flow` is what it takes towards the target. Back it takes everything.
    pub async fn before(target: SocketAddr, flow: Flow) -> Self {
        let listener = listener();
        let address = listener.local_addr().expect("an address");
        let flow = Arc::new(watch::Sender::new(flow));
        let changes = flow.clone();
        let acceptor = tokio::spawn(async move {
            while let Ok((pusher, _)) = listener.accept().await {
                tokio::spawn(carry(pusher, target, changes.subscribe()));
            }
        });
        Self {
            address,
            flow,
            acceptor: acceptor.abort_handle(),
        }
    }

    /// `url` of the target by way of this path.
    pub fn through(&self, url: &str, target: SocketAddr) -> String {
        url.replace(&target.to_string(), &self.address.to_string())
    }

    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// Its buffer and segments are those of what it accepts.
fn listener() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .set_recv_buffer_size(RECEIVE_BUFFER)
        .expect("a small buffer");
    SockRef::from(&socket)
        .set_tcp_mss(SEGMENT)
        .expect("small segments");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a port");
    socket.listen(16).expect("a listener");
    socket.set_nonblocking(true).expect("without waiting");
    TcpListener::from_std(socket.into()).expect("a listener")
}

async fn carry(pusher: TcpStream, target: SocketAddr, flow: watch::Receiver<Flow>) {
    let Ok(target) = TcpStream::connect(target).await else {
        return;
    };
    for socket in [&pusher, &target] {
        socket.set_nodelay(true).expect("no delay");
    }
    let (from_pusher, mut to_pusher) = pusher.into_split();
    let (mut from_target, to_target) = target.into_split();
    // Either end takes both directions along.
    tokio::select! {
        () = throttled(from_pusher, to_target, flow) => {}
        _ = copy(&mut from_target, &mut to_pusher) => {}
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

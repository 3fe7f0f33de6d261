//! A line that can be cut: a proxy whose server side stays open and silent, as when a network vanishes under TCP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Listens on a port of its own and forwards each connection to the server, until it is cut.
pub struct Line {
    address: SocketAddr,
    /// Bytes that the newest connection still forwards to the server; `None`: all.
    left: Arc<Mutex<watch::Sender<Option<usize>>>>,
}

impl Line {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("a port");
        let left = Arc::new(Mutex::new(watch::channel(None).0));
        let newest = left.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (left, told) = watch::channel(None);
                *newest.lock().expect("no panic") = left;
                tokio::spawn(carry(client, server, told));
            }
        });
        Self { address, left }
    }

    /// The URL that leads through this line.
    pub fn url(&self, direct: &str, server: SocketAddr) -> String {
        direct.replace(&server.to_string(), &self.address.to_string())
    }

    /// Lets so many more bytes of the newest connection through, and then nothing, in neither direction, for ever. The
    /// server hears neither FIN nor RST; the client is cut off at once.
    pub fn cut_after(&self, bytes: usize) {
        let left = self.left.lock().expect("no panic");
        left.send_replace(Some(bytes));
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut told: watch::Receiver<Option<usize>>) {
    let server = TcpStream::connect(server).await.expect("it listens");
    server.set_nodelay(true).expect("no delay");
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut counted = told.clone();
    let up = forward(&mut from_client, &mut to_server, &mut counted);
    let down = async {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            if to_client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    let is_cut = tokio::select! {
        is_cut = up => is_cut,
        () = down => false,
        // A line that is cut while nothing is sent.
        () = async { let _ = told.wait_for(|left| *left == Some(0)).await; } => true,
    };
    if is_cut {
        // The client is gone; the server's end of the line stays as it is until the test is over.
        drop((from_client, to_client));
        std::future::pending::<()>().await;
        drop((from_server, to_server));
    }
}

/// Forwards until the client ends (`false`) or the line is cut (`true`).
async fn forward(
    client: &mut OwnedReadHalf,
    server: &mut OwnedWriteHalf,
    told: &mut watch::Receiver<Option<usize>>,
) -> bool {
    let mut buffer = [0; 4096];
    let mut last = None;
    loop {
        let Ok(n @ 1..) = client.read(&mut buffer).await else {
            return false;
        };
        if last.is_none() {
            last = *told.borrow_and_update();
        }
        let through = last.map_or(n, |left| left.min(n));
        if server.write_all(&buffer[..through]).await.is_err() {
            return false;
        }
        if let Some(left) = &mut last {
            *left -= through;
            if *left == 0 {
                return true;
            }
        }
    }
}

//! Sessions of real programs, recorded while they run.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use linkmic::rtmp::chunk::Limits;
use linkmic::rtmp::{CHUNK_BYTES, Framed, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;

use super::drive;
use crate::edge::SOON;
use crate::edge::clip::clip;
use crate::edge::house::House;
use crate::edge::programs::{Player, Publisher};

/// C0, C1 and C2, or S0, S1 and S2.
pub const HANDSHAKE: usize = 1 + 1536 + 1536;
/// What is kept of each session as it came: the commands and the first pictures.
const KEPT: usize = 16 * 1024;
/// Media messages in a session made short: everything said before and after them is there.
const SHORT: usize = 12;

/// What went over the wire, each connection by itself, without its handshake: its beginning as it came, and the whole
/// with most of the media left out.
#[derive(Debug, Default)]
pub struct Recorded {
    pub from_clients: Vec<Vec<u8>>,
    pub from_servers: Vec<Vec<u8>>,
}

/// ffmpeg, GStreamer and librtmp, publishing and playing a clip; recorded once per run.
pub async fn recorded() -> &'static Recorded {
    static RECORDED: OnceCell<Recorded> = OnceCell::const_new();
    RECORDED.get_or_init(record).await
}

async fn record() -> Recorded {
    let house = House::open().await;
    let tape = Tape::start(house.urls.rtmp()).await;
    let through =
        |url: String| url.replace(&house.urls.rtmp().to_string(), &tape.address.to_string());
    let folder = tempfile::tempdir().expect("a folder");
    let clip = clip().await;
    let mut running = Vec::new();
    let mut publishers = Vec::new();
    for publisher in [Publisher::Ffmpeg, Publisher::Rtmp2Sink, Publisher::Librtmp] {
        let name = format!("{publisher:?}").to_lowercase();
        for player in Player::ALL {
            let file = folder.path().join(format!("{name}-{player:?}.flv"));
            if matches!(
                (publisher, player),
                (Publisher::Ffmpeg, _) | (_, Player::Rtmpdump)
            ) {
                running.push(player.start(&through(house.urls.plain(&name)), &file));
            }
        }
        publishers.push(publisher.start(clip.path(), &through(house.urls.push(&name))));
    }
    for mut process in publishers.into_iter().chain(running) {
        process.end(SOON).await.expect("it ends with the clip");
    }
    tape.take()
}

/// Passes bytes on and keeps a copy.
struct Tape {
    address: SocketAddr,
    kept: Arc<Mutex<Vec<[Vec<u8>; 2]>>>,
}

impl Tape {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a port");
        let kept: Arc<Mutex<Vec<[Vec<u8>; 2]>>> = Arc::default();
        let tape = kept.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.expect("the server");
                let index = {
                    let mut tape = tape.lock().expect("nobody panics with it");
                    tape.push(Default::default());
                    tape.len() - 1
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, tape.clone(), index, 0));
                tokio::spawn(pass(from_server, to_client, tape.clone(), index, 1));
            }
        });
        Self { address, kept }
    }

    fn take(self) -> Recorded {
        let kept = std::mem::take(&mut *self.kept.lock().expect("nobody panics with it"));
        let mut recorded = Recorded::default();
        for [client, server] in kept {
            for (bytes, all) in [
                (client, &mut recorded.from_clients),
                (server, &mut recorded.from_servers),
            ] {
                let said = bytes.get(HANDSHAKE..).unwrap_or_default();
                assert!(said.len() > 200, "a session of {} bytes", said.len());
                all.push(said[..said.len().min(KEPT)].to_vec());
                all.push(shortened(said));
            }
        }
        recorded
    }
}

/// The same session with its first [`SHORT`] media messages, and every other message.
fn shortened(said: &[u8]) -> Vec<u8> {
    let (messages, end) = drive::read(said, 1 << 16, Limits::default());
    assert_eq!(end, None, "what was recorded makes sense");
    let mut bytes = BytesMut::new();
    let size = Bytes::copy_from_slice(&(CHUNK_BYTES as u32).to_be_bytes());
    Framed::new(kind::SET_CHUNK_SIZE, 0, 0, size).write_to(&mut bytes);
    let mut media = 0;
    for message in messages {
        media += usize::from(matches!(message.type_id, kind::AUDIO | kind::VIDEO));
        if media <= SHORT || !matches!(message.type_id, kind::AUDIO | kind::VIDEO) {
            Framed::new(
                message.type_id,
                message.timestamp,
                message.stream_id,
                message.payload,
            )
            .write_to(&mut bytes);
        }
    }
    bytes.to_vec()
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    tape: Arc<Mutex<Vec<[Vec<u8>; 2]>>>,
    index: usize,
    direction: usize,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        {
            let mut tape = tape.lock().expect("nobody panics with it");
            tape[index][direction].extend_from_slice(&buffer[..read]);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

//! Protocol breadth: codecs, forms and habits beyond the H.264 and AAC of every day.
//!
//! [`programs`]: what an ffmpeg that speaks Enhanced RTMP sends and can decode again. [`wire`]: bytes that no program
//! at hand sends. [`times`]: clocks that jump. [`tracks`]: several video tracks. [`farewell`]: reconnect requests.

mod farewell;
pub mod programs;
mod times;
mod tracks;
mod wire;

use bytes::BytesMut;
use linkmic::config::{Config, Env};
use linkmic::probe::http;
use linkmic::rtmp::amf::{self, Value, Writer};
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, Message, chunk, kind};
use linkmic::server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;
use super::client::shake_hands;
use super::house::{TOKEN, Urls, configuration};

/// A server that a test can shut down and ask for its numbers.
struct Place {
    urls: Urls,
    server: Server,
    control: http::Client,
    _state: TempDir,
}

impl Place {
    async fn open() -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let text = configuration(state.path(), "", "");
        let config = Config::parse(&text, "test", &Env::default()).expect("a configuration");
        let server = Server::start(config.clone()).await.expect("it starts");
        Self {
            urls: Urls::new(server.rtmp_addr(), &config),
            control: http::Client::new(server.control_addr(), Some(TOKEN)),
            server,
            _state: state,
        }
    }

    /// How many timestamps of that kind were repaired.
    async fn anomalies(&self, kind: &str) -> u64 {
        let text = self.control.get("/metrics").await.expect("metrics").body;
        let name = format!("linkmic_ingest_timestamp_anomalies_total{{kind=\"{kind}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("it is counted").parse().expect("a number")
    }
}

/// A connection on which every message is ours to write and to see.
struct Wire {
    socket: TcpStream,
    reader: chunk::Reader,
    stream_name: String,
}

/// What a server said with a command: its name, and the code in it, if any.
type Said = (String, String);

impl Wire {
    /// Connected, with these bits in `capsEx`, if any.
    async fn connect(url: &str, caps: Option<u32>) -> Self {
        let mut wire = Self::shaken(url).await;
        let mut body = Writer::new();
        body.string("connect").number(1.0).object();
        body.key("app").string("live");
        if let Some(caps) = caps {
            body.key("capsEx").number(caps.into());
        }
        wire.send(kind::COMMAND, 0, 0, &body.end().finish()).await;
        wire.until("_result").await;
        wire
    }

    /// After the handshake.
    async fn shaken(url: &str) -> Self {
        let target = Target::parse(url).expect("a URL");
        let (socket, reader) = shake_hands(&target, None).await;
        let stream_name = target.name_with_query();
        Self {
            socket,
            reader,
            stream_name,
        }
    }

    /// Creates a stream and begins to publish or play the URL's on it.
    async fn begin(&mut self, what: &str) {
        self.ask(what).await;
        loop {
            let (_, code) = self.until("onStatus").await;
            if code.ends_with(".Start") {
                return;
            }
        }
    }

    /// As [`begin`](Self::begin), without waiting for the answer.
    async fn ask(&mut self, what: &str) {
        let create = Writer::new()
            .string("createStream")
            .number(2.0)
            .null()
            .finish();
        self.send(kind::COMMAND, 0, 0, &create).await;
        self.until("_result").await;
        let name = self.stream_name.clone();
        let mut body = Writer::new();
        body.string(what).number(3.0).null().string(&name);
        self.send(kind::COMMAND, 0, 1, &body.finish()).await;
    }

    /// One message in chunks of the initial 128 bytes, or in one where it fits.
    async fn send(&mut self, type_id: u8, timestamp: u32, stream_id: u32, payload: &[u8]) {
        // Framed writes chunks of its own size; ours are announced with each message, which is legal.
        let mut bytes = BytesMut::new();
        let size = (linkmic::rtmp::CHUNK_BYTES as u32).to_be_bytes();
        Framed::new(kind::SET_CHUNK_SIZE, 0, 0, size.to_vec().into()).write_to(&mut bytes);
        Framed::new(type_id, timestamp, stream_id, payload.to_vec().into()).write_to(&mut bytes);
        let sent = timeout(SOON, self.socket.write_all(&bytes)).await;
        sent.expect("the server reads")
            .expect("the connection holds");
    }

    /// The next message; `None`: the server closed.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.reader.next().expect("the server's bytes make sense") {
                return Some(message);
            }
            let read = self.socket.read_buf(self.reader.buffer());
            match timeout(SOON, read)
                .await
                .expect("the server says something")
            {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next command; `None`: the server closed.
    async fn command(&mut self) -> Option<Said> {
        loop {
            let message = self.next().await?;
            if message.type_id != kind::COMMAND {
                continue;
            }
            let values = amf::decode(&message.payload).expect("AMF0");
            let name = values.first().and_then(amf::text).unwrap_or_default();
            let codes = values
                .iter()
                .filter_map(|value| amf::property(value, "code"));
            let code = codes.filter_map(amf::text).next_back().unwrap_or_default();
            return Some((name.to_owned(), code.to_owned()));
        }
    }

    /// Everything up to the next command of that name.
    async fn until(&mut self, name: &str) -> Said {
        loop {
            let said = self
                .command()
                .await
                .expect("the server holds the connection");
            if said.0 == name {
                return said;
            }
        }
    }
}

/// A value inside a command or data message that says it is AMF3: `{app: "live"}`.
fn app_in_amf3() -> Vec<u8> {
    b"\x11\x0a\x0b\x01\x07app\x06\x09live\x01".to_vec()
}

/// What a message of data holds.
fn values(message: &Message) -> Vec<Value> {
    amf::decode(&message.payload).expect("AMF0")
}

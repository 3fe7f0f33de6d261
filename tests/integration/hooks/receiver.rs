//! A back end: takes requests over HTTP, inside TLS where it has a certificate, remembers them and answers as it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use linkmic::probe::process::poll;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::edge::SOON;
use crate::edge::tunnel::Pair;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it was whole.
    #[cfg_attr(
        not(feature = "mixer"),
        expect(dead_code, reason = "only a soak asks when")
    )]
    pub at: Instant,
    pub path: String,
    /// By names in lower case.
    pub headers: HashMap<String, String>,
    pub text: String,
    pub json: Value,
}

/// What it says to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    Says(u16, &'static str),
    /// The connection stays open, without a word.
    Silence,
    /// The status, as soon as that is notified.
    Later(Arc<Notify>, u16),
}

type Decide = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// The back end; it ends with the test's runtime.
pub struct Receiver {
    address: SocketAddr,
    secure: bool,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// Takes everything.
    pub async fn open() -> Self {
        Self::deciding(None, |_, _| Reply::Says(200, "{\"code\":0}")).await
    }

    /// Asks `decide` what to say to a request, which is told how many came before.
    pub async fn deciding(
        pair: Option<&Pair>,
        decide: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let acceptor = pair.map(Pair::showing);
        let (taken, decide): (_, Arc<Decide>) = (requests.clone(), Arc::new(decide));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (taken, decide) = (taken.clone(), decide.clone());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(socket, &taken, &*decide).await,
                        Some(acceptor) => {
                            // Who does not believe the certificate goes away.
                            if let Ok(socket) = acceptor.accept(socket).await {
                                serve(socket, &taken, &*decide).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            secure: pair.is_some(),
            requests,
        }
    }

    /// The URL of a path on it. Inside TLS by the name that its certificate is for.
    pub fn url(&self, path: &str) -> String {
        match self.secure {
            true => format!("https://localhost:{}{path}", self.address.port()),
            false => format!("http://{}{path}", self.address),
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("whole").clone()
    }

    /// Waits until what came makes sense to `found`.
    pub async fn until<T>(&self, what: &str, found: impl Fn(&[Request]) -> Option<T>) -> T {
        let seen = poll(what, SOON, || async { found(&self.requests()) }).await;
        seen.unwrap_or_else(|error| panic!("{error}; there are {:#?}", self.requests()))
    }

    /// Waits for so many requests.
    pub async fn wait(&self, count: usize) -> Vec<Request> {
        let enough = |all: &[Request]| (all.len() >= count).then(|| all.to_vec());
        self.until(&format!("{count} requests"), enough).await
    }
}

/// One connection, request after request.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    taken: &Mutex<Vec<Request>>,
    decide: &Decide,
) {
    let mut bytes = Vec::new();
    loop {
        // Who goes away in the midst of a request leaves it half said.
        match socket.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Some((request, length)) = parse(&bytes) else {
            continue;
        };
        bytes.drain(..length);
        let reply = {
            let mut taken = taken.lock().expect("whole");
            let reply = decide(&request, taken.len());
            taken.push(request);
            reply
        };
        let (status, body) = match reply {
            Reply::Says(status, body) => (status, body),
            Reply::Later(when, status) => {
                when.notified().await;
                (status, "")
            }
            Reply::Silence => return std::future::pending().await,
        };
        let answer = format!(
            "HTTP/1.1 {status} x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(begin) = head.parse(bytes).expect("HTTP") else {
        return None;
    };
    let path = head.path.unwrap_or_default().to_owned();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = head.headers.iter();
    let headers: HashMap<_, _> = fields
        .map(|field| (field.name.to_ascii_lowercase(), text(field.value)))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let body = bytes.get(begin..begin + length)?;
    let request = Request {
        at: Instant::now(),
        path,
        headers,
        text: text(body),
        json: serde_json::from_slice(body).unwrap_or_default(),
    };
    Some((request, begin + length))
}

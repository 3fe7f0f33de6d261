//! As much of an HTTP client as asking our own API takes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Error;

/// Nothing that we ask takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Talks to one HTTP server, a connection per request.
#[derive(Debug, Clone)]
pub struct Client {
    addr: SocketAddr,
    token: Option<String>,
}

/// An answer: its status, and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Client {
    /// `token` goes into `Authorization: Bearer`.
    pub fn new(addr: SocketAddr, token: Option<&str>) -> Self {
        Self {
            addr,
            token: token.map(str::to_owned),
        }
    }

    /// Whom it talks to.
    pub fn address(&self) -> SocketAddr {
        self.addr
    }

    /// # Errors
    /// When there is no answer; a status of failure is an answer.
    pub async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.request("GET", path, None).await
    }

    /// # Errors
    /// As [`get`](Self::get).
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.request("PUT", path, Some(body.to_string())).await
    }

    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.request("POST", path, Some(body.to_string())).await
    }

    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete(&self, path: &str) -> Result<Answer, Error> {
        self.request("DELETE", path, None).await
    }

    /// # Errors
    /// As [`get`](Self::get).
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, Error> {
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n", self.addr);
        if let Some(token) = &self.token {
            request += &format!("Authorization: Bearer {token}\r\n");
        }
        if let Some(body) = &body {
            request += &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            );
        }
        request += "\r\n";
        request += body.as_deref().unwrap_or_default();
        let exchange = async {
            let mut stream = TcpStream::connect(self.addr).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok(answer)
        };
        let answer = timeout(PATIENCE, exchange)
            .await
            .map_err(|_| Error::Deadline {
                what: format!("the answer to {method} {path}"),
                within: PATIENCE,
            })?
            .map_err(|e: std::io::Error| Error::io(format!("{method} {path}"), e))?;
        parse(&answer).ok_or_else(|| Error::Http(self.addr.to_string()))
    }
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let answer = String::from_utf8_lossy(answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_request_carries_token_and_body_and_the_answer_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = vec![0; 4096];
            let mut filled = 0;
            while !request[..filled].ends_with(b"{\"a\":1}") {
                filled += stream.read(&mut request[filled..]).await.expect("bytes");
            }
            stream
                .write_all(b"HTTP/1.1 409 Conflict\r\nX: y\r\n\r\n{\"code\":\"busy\"}")
                .await
                .expect("sent");
            String::from_utf8_lossy(&request[..filled]).into_owned()
        });
        let client = Client::new(addr, Some("sesame"));
        let answer = client
            .put("/x", &serde_json::json!({"a": 1}))
            .await
            .expect("an answer");
        assert_eq!((answer.status, answer.is_success()), (409, false));
        assert_eq!(answer.json()["code"], "busy");
        let request = server.await.expect("served");
        assert!(request.starts_with("PUT /x HTTP/1.0\r\n"), "{request}");
        assert!(
            request.contains("Authorization: Bearer sesame\r\n"),
            "{request}"
        );
        assert!(request.contains("Content-Length: 7\r\n"), "{request}");
    }

    #[test]
    fn what_is_no_http_is_no_answer() {
        for bytes in [&b""[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(parse(bytes), None);
        }
    }
}

//! As much HTTP as the tests need, over a real socket.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client {
    pub address: SocketAddr,
    token: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Client {
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self {
            address,
            token: token.map(str::to_owned),
        }
    }

    /// One request on a connection of its own. The content type is deliberately not JSON's.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_with(method, path, "", body).await
    }

    /// With further headers, each of them a whole line.
    pub async fn call_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let exchange = self.exchange(method, path, headers, body);
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .expect("an answer comes in time")
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &body.to_string()).await
    }

    async fn exchange(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n",
            body.len()
        );
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        head.push_str(headers);
        head.push_str("\r\n");
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        // A server may answer and close before it has read a body that is too long.
        let _ = socket.write_all(body.as_bytes()).await;
        let mut text = Vec::new();
        let read = socket.read_to_end(&mut text).await;
        assert!(read.is_ok() || !text.is_empty(), "{read:?}");
        Answer::parse(&String::from_utf8(text).unwrap())
    }
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            status: status.parse().unwrap(),
            headers: lines.map(header).collect(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap()
    }
}

//! Drives what reads the first bytes of a connection: the PROXY header and the head of an HTTP request.
//!
//! Used by the mutational test and, the same file, by the fuzz targets. Panics when something that must hold does not.

use std::net::SocketAddr;

use linkmic::net::proxy;
use linkmic::playback::request_head::{self, MAX_HEAD_BYTES, Parsed};

/// Reads a PROXY header. Whether it was one; an address in it is the same however it is written.
pub fn proxy_header(header: &[u8]) -> bool {
    let Ok(announced) = proxy::parse(header) else {
        return false;
    };
    if let Some(address) = announced {
        let family = match address {
            SocketAddr::V4(_) => "TCP4",
            SocketAddr::V6(_) => "TCP6",
        };
        let (ip, port) = (address.ip(), address.port());
        let text = format!("PROXY {family} {ip} {ip} {port} {port}\r\n");
        let again = proxy::parse(text.as_bytes()).expect("a header");
        assert_eq!(again, announced, "{text}");
    }
    true
}

/// Reads the head of a request `step` bytes at a time. Whether it asks for a stream; once there is an answer, what
/// comes behind it changes nothing.
pub fn request(bytes: &[u8], step: usize) -> bool {
    // Behind the limit an answer is that it is too long.
    let bytes = &bytes[..bytes.len().min(MAX_HEAD_BYTES - 1)];
    let mut answer = None;
    for end in (0..bytes.len()).step_by(step.max(1)).chain([bytes.len()]) {
        let parsed = request_head::parse(&bytes[..end]);
        assert!(answer.is_none() || parsed == answer, "after {end} bytes");
        answer = parsed;
    }
    let Some(Parsed::Media(request)) = answer else {
        return false;
    };
    assert!(!request.app.contains('/') && !request.stream.contains('/'));
    let shown = format!("{request:?}");
    let elsewhere = format!("{} {}", request.app, request.stream);
    let secret = request.query.len() >= 16 && !elsewhere.contains(&request.query);
    assert!(
        !secret || !shown.contains(&request.query),
        "its query is shown"
    );
    true
}

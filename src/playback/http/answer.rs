//! The heads of our answers, and refusals whole. Pure, but for the date.
//!
//! Players are web pages of any origin, so every answer may be read by all of them (Fetch, "CORS protocol"); none
//! carries credentials. Nothing is cached: a refusal of now may be a stream in a second.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

use crate::media::flv;
use crate::reason::Reason;

/// How a request for a stream is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    NoContent,
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    HeadTooLarge,
    Internal,
    Unavailable,
}

impl Status {
    /// What a refusal for that reason is in HTTP. What is not listed is somebody's decision not to let this client
    /// in, and so will be what is added to the list.
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::BadName | Reason::Protocol => Status::BadRequest,
            Reason::UnknownApp | Reason::NotFound => Status::NotFound,
            Reason::LimitReached | Reason::Overloaded | Reason::HookFailed | Reason::Shutdown => {
                Status::Unavailable
            }
            Reason::TooLarge => Status::HeadTooLarge,
            Reason::Internal => Status::Internal,
            _ => Status::Forbidden,
        }
    }

    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::NoContent => "204 No Content",
            Status::BadRequest => "400 Bad Request",
            Status::Forbidden => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::Internal => "500 Internal Server Error",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// Which tracks a stream has, for the FLV header. Players that take the header at its word (mpegts.js) wait for a
/// track that is announced and never comes, and add one late that was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracks {
    pub audio: bool,
    pub video: bool,
}

impl Tracks {
    /// What is announced while it is not known.
    pub const BOTH: Self = Self {
        audio: true,
        video: true,
    };
}

/// The head of a stream's answer, and with `tracks` what its body begins with.
pub fn stream_head(chunked: bool, tracks: Option<Tracks>) -> Bytes {
    let mut head = begin(Status::Ok);
    // nginx in front would collect the stream before passing it on.
    head.push_str("Content-Type: video/x-flv\r\nX-Accel-Buffering: no\r\n");
    if chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = BytesMut::from(head.as_bytes());
    if let Some(tracks) = tracks {
        let mut file_header = flv::FILE_HEADER;
        file_header[4] = u8::from(tracks.audio) << 2 | u8::from(tracks.video);
        if chunked {
            bytes.put_slice(format!("{:x}\r\n", file_header.len()).as_bytes());
        }
        bytes.put_slice(&file_header);
        if chunked {
            bytes.put_slice(b"\r\n");
        }
    }
    bytes.freeze()
}

/// The end of a stream's answer.
pub fn stream_end(chunked: bool) -> Bytes {
    Bytes::from_static(if chunked { b"0\r\n\r\n" } else { b"" })
}

/// What a browser asks before it lets a page ask with header fields of its own.
pub fn preflight() -> Bytes {
    let mut head = begin(Status::NoContent);
    head.push_str(concat!(
        "Allow: GET, HEAD, OPTIONS\r\n",
        "Access-Control-Allow-Methods: GET, HEAD, OPTIONS\r\n",
        "Access-Control-Allow-Headers: *\r\n",
        "Access-Control-Max-Age: 86400\r\n\r\n",
    ));
    head.into()
}

/// A refusal with its reason, for programs and for people, as the API words it. Without body: for HEAD.
pub fn refusal(status: Status, reason: Reason, message: &str, with_body: bool) -> Bytes {
    let body = json!({"code": reason.code(), "message": message}).to_string();
    let mut answer = begin(status);
    if status == Status::MethodNotAllowed {
        answer.push_str("Allow: GET, HEAD, OPTIONS\r\n");
    }
    // Writing to a string does not fail.
    let _ = write!(
        answer,
        "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    if with_body {
        answer.push_str(&body);
    }
    answer.into()
}

fn begin(status: Status) -> String {
    format!(
        "HTTP/1.1 {}\r\nDate: {}\r\nCache-Control: no-store\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n",
        status.line(),
        date(SystemTime::now())
    )
}

/// As RFC 9110, section 5.6.7 wants it: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(now: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let text = humantime::format_rfc3339_seconds(now).to_string();
    // 1994-11-06T08:49:37Z
    let (year, day, time) = (&text[..4], &text[8..10], &text[11..19]);
    let month: usize = text[5..7].parse().unwrap_or(1);
    // The epoch began on a Thursday.
    let weekday = DAYS[(days % 7) as usize];
    format!("{weekday}, {day} {} {year} {time} GMT", MONTHS[month - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_written_as_http_wants_them() {
        for (seconds, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_stream_begins_with_its_tracks_in_a_chunk_where_the_client_takes_chunks() {
        let sound = Tracks {
            audio: true,
            video: false,
        };
        for (chunked, tracks, end) in [
            (
                true,
                Some(Tracks::BOTH),
                b"\r\n\r\nd\r\nFLV\x01\x05\0\0\0\x09\0\0\0\0\r\n".as_slice(),
            ),
            (
                true,
                Some(sound),
                b"\r\n\r\nd\r\nFLV\x01\x04\0\0\0\x09\0\0\0\0\r\n",
            ),
            (
                false,
                Some(Tracks::BOTH),
                b"\r\n\r\nFLV\x01\x05\0\0\0\x09\0\0\0\0",
            ),
            (true, None, b"\r\n\r\n"),
        ] {
            let head = stream_head(chunked, tracks);
            assert!(head.ends_with(end), "{chunked} {tracks:?}");
            let text = String::from_utf8_lossy(&head);
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert_eq!(text.contains("Transfer-Encoding: chunked\r\n"), chunked);
            assert!(
                text.contains("Access-Control-Allow-Origin: *\r\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_refusal_tells_its_reason_and_to_head_only_its_length() {
        let whole = refusal(
            Status::Forbidden,
            Reason::SignatureWrong,
            "no \"key\" fits",
            true,
        );
        let text = String::from_utf8(whole.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            body,
            r#"{"code":"signature_wrong","message":"no \"key\" fits"}"#
        );
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        let bare = refusal(
            Status::Forbidden,
            Reason::SignatureWrong,
            "no \"key\" fits",
            false,
        );
        assert_eq!(bare.len(), whole.len() - body.len());
    }
}

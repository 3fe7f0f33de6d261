//! What a request's head asks for. Pure.
//!
//! Source: RFC 9112, sections 2 and 3 (message and request line); parsed by `httparse`.

/// Longest head that is read. Browsers send about 1 KB; cookies of a whole site may come along.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// Header fields in it.
const MAX_FIELDS: usize = 100;
/// What a stream's path ends with.
const SUFFIX: &str = ".flv";

/// A whole head.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It asks for `/{app}/{stream}.flv`.
    Media(Request),
    /// It asks for something else, or is no HTTP that could ask for a stream.
    Other,
    /// No end in sight.
    TooLong { limit: usize },
}

/// A request for a stream. The names are as the client wrote them, not checked.
#[derive(PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub app: String,
    pub stream: String,
    /// As received, without `?`; empty when there is none. May hold a signature.
    pub query: String,
    /// The client takes chunks (HTTP/1.1); else the body ends with the connection.
    pub chunked: bool,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("app", &self.app)
            .field("stream", &self.stream)
            .field("query", &"***")
            .field("chunked", &self.chunked)
            .finish()
    }
}

/// What is to be done with the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Options,
    Other,
}

/// `None`: the head goes on.
pub fn parse(bytes: &[u8]) -> Option<Parsed> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(Parsed::TooLong {
                limit: MAX_HEAD_BYTES,
            });
        }
        // Whoever serves the rest answers what makes no sense.
        Err(_) => return Some(Parsed::Other),
    }
    let method = match request.method.unwrap_or_default() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    };
    let target = request.path.unwrap_or_default();
    let Some((app, stream, query)) = media_target(target) else {
        return Some(Parsed::Other);
    };
    Some(Parsed::Media(Request {
        method,
        app: app.to_owned(),
        stream: stream.to_owned(),
        query: query.to_owned(),
        chunked: request.version == Some(1),
    }))
}

/// Application, stream and query of `/{app}/{stream}.flv?{query}`, also behind scheme and host.
fn media_target(target: &str) -> Option<(&str, &str, &str)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = match path.split_once("://") {
        // RFC 9112, 3.2.2: a server takes the absolute form too.
        Some((_scheme, rest)) => &rest[rest.find('/')?..],
        None => path,
    };
    let (app, file) = path.strip_prefix('/')?.split_once('/')?;
    let stream = file.strip_suffix(SUFFIX)?;
    (!stream.contains('/')).then_some((app, stream, query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn media(method: Method, stream: &str, query: &str, chunked: bool) -> Option<Parsed> {
        Some(Parsed::Media(Request {
            method,
            app: "live".into(),
            stream: stream.into(),
            query: query.into(),
            chunked,
        }))
    }

    #[test]
    fn requests_for_streams_are_told_from_all_others() {
        for (line, expected) in [
            (
                "GET /live/a.flv HTTP/1.1",
                media(Method::Get, "a", "", true),
            ),
            (
                "GET /live/a.b.flv.flv HTTP/1.0",
                media(Method::Get, "a.b.flv", "", false),
            ),
            (
                "HEAD /live/a.flv?x=/1.flv?y HTTP/1.1",
                media(Method::Head, "a", "x=/1.flv?y", true),
            ),
            (
                "OPTIONS /live/a.flv HTTP/1.1",
                media(Method::Options, "a", "", true),
            ),
            (
                "POST /live/a.flv HTTP/1.1",
                media(Method::Other, "a", "", true),
            ),
            (
                "GET http://h:1/live/a.flv?q HTTP/1.1",
                media(Method::Get, "a", "q", true),
            ),
            // Names are judged later, with words for the client.
            (
                "GET /live/%61.flv HTTP/1.1",
                media(Method::Get, "%61", "", true),
            ),
            ("GET /live/.flv HTTP/1.1", media(Method::Get, "", "", true)),
            ("GET /healthz HTTP/1.1", Some(Parsed::Other)),
            ("GET / HTTP/1.1", Some(Parsed::Other)),
            ("OPTIONS * HTTP/1.1", Some(Parsed::Other)),
            ("GET /a.flv HTTP/1.1", Some(Parsed::Other)),
            ("GET /live/b/a.flv HTTP/1.1", Some(Parsed::Other)),
            ("GET /live/a?b.flv HTTP/1.1", Some(Parsed::Other)),
            ("GET http://h HTTP/1.1", Some(Parsed::Other)),
            ("PRI * HTTP/2.0", Some(Parsed::Other)),
        ] {
            let head = format!("{line}\r\nHost: h\r\n\r\n");
            assert_eq!(parse(head.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_head_may_come_in_any_number_of_pieces() {
        let head = b"GET /live/a.flv?k=v HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(parse(&head[..cut]), None, "cut at {cut}");
        }
        let with_more = [head.as_slice(), b"GET /x HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&with_more), media(Method::Get, "a", "k=v", true));
    }

    #[test]
    fn a_head_without_end_is_bounded() {
        let too_long = Some(Parsed::TooLong {
            limit: MAX_HEAD_BYTES,
        });
        let mut head = b"GET /live/a.flv HTTP/1.1\r\nX: ".to_vec();
        head.resize(MAX_HEAD_BYTES - 1, b'x');
        assert_eq!(parse(&head), None);
        head.push(b'x');
        assert_eq!(parse(&head), too_long);
        let many = format!(
            "GET /live/a.flv HTTP/1.1\r\n{}\r\n",
            "X: y\r\n".repeat(MAX_FIELDS + 1)
        );
        assert_eq!(parse(many.as_bytes()), too_long);
    }

    #[test]
    fn a_request_prints_without_its_query() {
        let parsed = parse(b"GET /live/a.flv?txSecret=abc HTTP/1.1\r\n\r\n");
        let shown = format!("{parsed:?}");
        assert!(!shown.contains("abc") && shown.contains("\"a\""), "{shown}");
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200), target in "[ -~]{0,60}") {
            let _ = parse(&bytes);
            let _ = parse(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
            let _ = media_target(&target);
        }
    }
}

//! RTMP URLs: where to push to or pull from, and what a client's `app`, `tcUrl` and stream name say.
//!
//! Nothing here is percent-decoded: signatures cover the text as it was sent, and clients put their URL on the wire
//! unchanged. Names are held to their grammar by `media::StreamKey` (which has no `%`), and a query's values
//! are decoded, if at all, by whoever reads a value. Queries carry signatures, so nothing here prints one.

use std::fmt;
use std::str::FromStr;

use crate::reason::Reason;

/// The port of an `rtmp://` URL that names none.
pub const DEFAULT_PORT: u16 = 1935;
/// The port of an `rtmps://` URL that names none, as ffmpeg and OBS have it.
pub const DEFAULT_TLS_PORT: u16 = 443;

/// Why a text is no RTMP target. Holds no part of the text beyond the scheme: it may contain a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("URL does not begin with rtmp:// or rtmps://")]
    Scheme,
    /// Only from [`Target::plain`].
    #[error("rtmps:// cannot be used here; use rtmp://")]
    Tls,
    #[error("URL has a user or password, which RTMP has no place for")]
    User,
    #[error("URL has no host")]
    Host,
    #[error("URL has a port that is not a number from 1 to 65535")]
    Port,
    #[error("URL has no application and stream name; expected rtmp://host/app/name")]
    Path,
    #[error("URL has a space or control character at byte {at}")]
    Character { at: usize },
}

impl Error {
    /// The reason under which this is counted and reported.
    pub fn reason(&self) -> Reason {
        Reason::BadName
    }
}

/// One stream at another server: `rtmp[s]://host[:port]/app[/more]/name[?query]`.
///
/// The last segment of the path is the stream's name, everything before it the application. Prints with its
/// query masked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// `rtmps://`: the connection is inside TLS.
    pub tls: bool,
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// 1935, or 443 inside TLS, unless the URL says otherwise.
    pub port: u16,
    /// Application, possibly of several segments.
    pub app: String,
    /// Stream name without its query.
    pub name: String,
    /// Everything after the first `?`, as written; empty when there is none.
    pub query: String,
}

impl Target {
    /// Parses an `rtmp://` or `rtmps://` URL.
    ///
    /// # Errors
    /// When a part is missing or malformed, or the scheme is another.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(at) = text.find(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::Character { at });
        }
        let (scheme, rest) = text.split_once("://").ok_or(Error::Scheme)?;
        let tls = scheme.eq_ignore_ascii_case("rtmps");
        if !tls && !scheme.eq_ignore_ascii_case("rtmp") {
            return Err(Error::Scheme);
        }
        let (location, query) = split_name(rest);
        let (authority, path) = location.split_once('/').ok_or(Error::Path)?;
        let (host, port) = parse_authority(authority)?;
        let port = port.unwrap_or(default_port(tls));
        let (app, name) = path.rsplit_once('/').ok_or(Error::Path)?;
        let app = app.trim_matches('/');
        if app.is_empty() || name.is_empty() {
            return Err(Error::Path);
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            app: app.to_owned(),
            name: name.to_owned(),
            query: query.to_owned(),
        })
    }

    /// The same target, for those who speak no TLS.
    ///
    /// # Errors
    /// [`Error::Tls`] when it asks for TLS.
    pub fn plain(self) -> Result<Self, Error> {
        if self.tls { Err(Error::Tls) } else { Ok(self) }
    }

    /// The same target with another query: for targets that are signed anew at each connect.
    pub fn with_query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }

    /// What `connect` says as `tcUrl`: everything up to the application. The default port is left out, as librtmp
    /// does, because some CDNs look their customers up by this text.
    pub fn tc_url(&self) -> String {
        format!("{}://{}/{}", self.scheme(), Authority(self), self.app)
    }

    /// What `publish` and `play` say: the name with its query. Do not log it.
    pub fn name_with_query(&self) -> String {
        if self.query.is_empty() {
            self.name.clone()
        } else {
            format!("{}?{}", self.name, self.query)
        }
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "rtmps" } else { "rtmp" }
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = if self.query.is_empty() { "" } else { "?***" };
        write!(
            f,
            "{}://{}/{}/{}{mask}",
            self.scheme(),
            Authority(self),
            self.app,
            self.name
        )
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

struct Authority<'a>(&'a Target);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target {
            tls, host, port, ..
        } = self.0;
        match host.contains(':') {
            true => write!(f, "[{host}]")?,
            false => f.write_str(host)?,
        }
        if *port == default_port(*tls) {
            return Ok(());
        }
        write!(f, ":{port}")
    }
}

/// Host, and port where there is one.
fn parse_authority(authority: &str) -> Result<(&str, Option<u16>), Error> {
    if authority.contains('@') {
        return Err(Error::User);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(Error::Host)?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| Error::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(Error::Port),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(Error::Host);
    }
    let port = match port {
        None => None,
        Some(text) => match text.parse() {
            Ok(port) if port != 0 && text.bytes().all(|b| b.is_ascii_digit()) => Some(port),
            _ => return Err(Error::Port),
        },
    };
    Ok((host, port))
}

/// Splits `name?query` at the first `?`; the query is empty when there is none.
pub fn split_name(name: &str) -> (&str, &str) {
    name.split_once('?').unwrap_or((name, ""))
}

/// Splits what `connect` says as `app` into application and query (`live?txSecret=…`), without outer slashes.
pub fn app_of(app: &str) -> (&str, &str) {
    let (app, query) = split_name(app);
    (app.trim_matches('/'), query)
}

/// The query of a `tcUrl`, empty when it has none.
pub fn query_of_tc_url(tc_url: &str) -> &str {
    split_name(tc_url).1
}

/// The application a `tcUrl` names, for the clients that send no `app`; empty when it names none.
pub fn app_of_tc_url(tc_url: &str) -> &str {
    let location = split_name(tc_url).0;
    let after_scheme = location
        .split_once("://")
        .map_or(location, |(_, rest)| rest);
    after_scheme
        .split_once('/')
        .map_or("", |(_, app)| app.trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart_and_put_together_again() {
        for (text, host, port, app, name, query, tc_url) in [
            (
                "rtmp://cdn.example/live/a",
                "cdn.example",
                1935,
                "live",
                "a",
                "",
                "rtmp://cdn.example/live",
            ),
            (
                "rtmp://h:1936/live/8888_a?txSecret=0f&txTime=1",
                "h",
                1936,
                "live",
                "8888_a",
                "txSecret=0f&txTime=1",
                "rtmp://h:1936/live",
            ),
            (
                "RTMP://[::1]:1935/a/b/c/d?x=1/2?3",
                "::1",
                1935,
                "a/b/c",
                "d",
                "x=1/2?3",
                "rtmp://[::1]/a/b/c",
            ),
            (
                "rtmp://127.0.0.1:1/app/n%20m",
                "127.0.0.1",
                1,
                "app",
                "n%20m",
                "",
                "rtmp://127.0.0.1:1/app",
            ),
            (
                "RTMPS://cdn.example/live/a",
                "cdn.example",
                443,
                "live",
                "a",
                "",
                "rtmps://cdn.example/live",
            ),
            (
                "rtmps://h:1935/live/a?k",
                "h",
                1935,
                "live",
                "a",
                "k",
                "rtmps://h:1935/live",
            ),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(
                (
                    target.host.as_str(),
                    target.port,
                    target.app.as_str(),
                    target.name.as_str(),
                    target.query.as_str()
                ),
                (host, port, app, name, query),
                "{text}"
            );
            assert_eq!(target.tc_url(), tc_url);
            assert_eq!(target.tls, tc_url.starts_with("rtmps"));
        }
    }

    #[test]
    fn malformed_targets_are_refused_with_the_reason() {
        for (text, expected) in [
            ("", Error::Scheme),
            ("http://h/a/b", Error::Scheme),
            ("rtmpt://h/a/b", Error::Scheme),
            ("rtmp://h", Error::Path),
            ("rtmp://h/", Error::Path),
            ("rtmp://h/app", Error::Path),
            ("rtmp://h/app/", Error::Path),
            ("rtmp://h//name", Error::Path),
            ("rtmp:///app/name", Error::Host),
            ("rtmp://[::1/app/name", Error::Host),
            ("rtmp://[x]/app/name", Error::Host),
            ("rtmp://[::1]1935/app/name", Error::Port),
            ("rtmp://h:/app/name", Error::Port),
            ("rtmp://h:0/app/name", Error::Port),
            ("rtmp://h:+80/app/name", Error::Port),
            ("rtmp://h:65536/app/name", Error::Port),
            ("rtmp://::1/app/name", Error::Host),
            ("rtmp://me:secret@h/app/name", Error::User),
            ("rtmp://h/app/na me", Error::Character { at: 15 }),
            ("rtmp://h/app/name?q\r\n", Error::Character { at: 19 }),
        ] {
            assert_eq!(Target::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn who_speaks_no_tls_is_not_sent_there_without() {
        let parse = |text| Target::parse(text).and_then(Target::plain);
        assert!(parse("rtmp://h/a/b").is_ok());
        assert_eq!(parse("rtmps://h/a/b"), Err(Error::Tls));
    }

    #[test]
    fn a_target_prints_without_its_query() {
        let target = Target::parse("rtmp://h:1936/live/a?txSecret=abc").unwrap();
        assert_eq!(
            format!("{target} {target:?}"),
            "rtmp://h:1936/live/a?*** rtmp://h:1936/live/a?***"
        );
        assert_eq!(target.name_with_query(), "a?txSecret=abc");
        let plain = target.with_query("");
        assert_eq!(
            (plain.to_string().as_str(), plain.name_with_query().as_str()),
            ("rtmp://h:1936/live/a", "a")
        );
    }

    #[test]
    fn queries_are_found_wherever_clients_put_them() {
        assert_eq!(split_name("a?b?c"), ("a", "b?c"));
        assert_eq!(split_name("a"), ("a", ""));
        assert_eq!(app_of("/live/?k=v"), ("live", "k=v"));
        assert_eq!(query_of_tc_url("rtmp://h/live?k=v"), "k=v");
        assert_eq!(app_of_tc_url("rtmp://h:1/live/x?k=v"), "live/x");
        assert_eq!(app_of_tc_url("rtmp://h"), "");
    }
}

//! The stream and the query in a URL that a person pastes: for signing and explaining, not for the media path.

use std::fmt;

use url::Url;

use crate::media::{NameError, StreamKey};

/// Which stream a URL names, and with what query. `Debug` leaves the query out.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Application and stream.
    pub key: StreamKey,
    /// Everything after the `?`, still percent-encoded; empty when there is none.
    pub query: String,
}

/// Why a URL does not name a stream. Never repeats the URL: it may hold a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("not a URL: {0}")]
    Syntax(#[from] url::ParseError),
    #[error("scheme {0:?} is none of rtmp, rtmps, http, https")]
    Scheme(String),
    #[error(
        "the path has {found} parts; expected two, application and stream: rtmp://host/live/name"
    )]
    Path { found: usize },
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Address {
    /// Reads `rtmp[s]://host[:port]/app/stream?query` or `http[s]://host[:port]/app/stream.flv?query`.
    ///
    /// # Errors
    /// When the text is not such a URL, or a name breaks the rules for names.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text.trim())?;
        let over_http = match url.scheme() {
            "rtmp" | "rtmps" => false,
            "http" | "https" => true,
            other => return Err(AddressError::Scheme(other.to_owned())),
        };
        let path = url.path().strip_prefix('/').unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let &[app, stream] = parts.as_slice() else {
            let found = parts.iter().filter(|part| !part.is_empty()).count();
            return Err(AddressError::Path { found });
        };
        let stream = match stream.strip_suffix(".flv") {
            Some(bare) if over_http => bare,
            _ => stream,
        };
        Ok(Self {
            key: StreamKey::new(app, stream)?,
            query: url.query().unwrap_or_default().to_owned(),
        })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("key", &self.key)
            .field("query", &"***")
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_forms_of_a_url_name_the_stream() {
        for (text, stream, query) in [
            ("rtmp://h/live/8888_streamA", "8888_streamA", ""),
            ("rtmp://h:1936/live/a?txTime=1&b=%20", "a", "txTime=1&b=%20"),
            ("rtmps://[::1]/live/a.b?", "a.b", ""),
            ("rtmp://h/live/a.flv", "a.flv", ""),
            (" https://h/live/a.flv?x=1\n", "a", "x=1"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                (address.key.app(), address.key.stream()),
                ("live", stream),
                "{text}"
            );
            assert_eq!(address.query, query, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_without_being_repeated() {
        for (text, words) in [
            ("live/a?txSecret=topsecret", "not a URL"),
            ("ftp://h/live/a?txSecret=topsecret", "scheme \"ftp\""),
            ("rtmp://h/a?txSecret=topsecret", "1 parts"),
            ("rtmp://h/?txSecret=topsecret", "0 parts"),
            ("rtmp://h/live/a/b?txSecret=topsecret", "3 parts"),
            (
                "rtmp://h/live/a%20b?txSecret=topsecret",
                "stream name has the character '%'",
            ),
        ] {
            let message = Address::parse(text).unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
            assert!(!message.contains("topsecret"), "{message}");
        }
    }
}

//! Where a request goes.

use std::fmt;

use url::{Host, Url};

/// `http[s]://host[:port]/path?query`. Prints with `***` for its query: there may be a key in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// # Errors
    /// When it is no address of HTTP, or has a user name or password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not an address: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "scheme {:?} is neither http nor https",
                url.scheme()
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user name or password".to_owned());
        }
        Ok(Self(url))
    }

    /// Whether what is sent there can be read on the way: without TLS, to another host.
    pub fn is_exposed(&self) -> bool {
        let is_here = match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        self.0.scheme() == "http" && !is_here
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str().split_once('?') {
            Some((front, _)) => write!(f, "{front}?***"),
            None => f.write_str(self.0.as_str()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_http_with_and_without_tls() {
        for (text, ok) in [
            ("http://backend/cb", true),
            ("http://[::1]:8080/", true),
            ("https://backend/cb", true),
            ("ftp://backend/cb", false),
            ("http://user@backend/", false),
            ("https://:secret@backend/", false),
            ("backend", false),
        ] {
            assert_eq!(Address::parse(text).is_ok(), ok, "{text}");
        }
    }

    #[test]
    fn what_leaves_the_host_without_tls_is_exposed() {
        for (text, exposed) in [
            ("http://backend/", true),
            ("http://192.0.2.1/", true),
            ("http://[2001:db8::1]/", true),
            ("http://localhost:8080/", false),
            ("http://127.0.0.1/", false),
            ("http://[::1]/", false),
            ("https://backend/", false),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.is_exposed(), exposed, "{text}");
        }
    }

    #[test]
    fn an_address_prints_without_its_query() {
        let address = Address::parse("https://backend:8443/cb?token=hunter2").unwrap();
        assert_eq!(address.to_string(), "https://backend:8443/cb?***");
        assert_eq!(format!("{address:?}"), "\"https://backend:8443/cb?***\"");
    }
}

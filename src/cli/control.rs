//! A client of a server's control API: which server, with which token, and one call after the other.
//!
//! Owns where address and token come from: the command line, the environment, or the configuration that the server has. Refuses to
//! know what is asked for and how it is shown. Called by `ctl`, `top` and `doctor`.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url, redirect};

use super::{ConfigArgs, local};
use crate::auth::Secret;
use crate::config::{self, Config, Env, TokenError, TokenSource};
use crate::logging::RequestId;
use crate::net::tls::{Trust, TrustError};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// Nothing is sent for so long: the server's own calls take some seconds at most, and event streams say something every 15 s.
const SILENCE: Duration = Duration::from_secs(60);
const REQUEST_ID: &str = "x-request-id";

/// Variables that stand for flags. Not read by the parser of the command line, to which the token of a variable would be as
/// good as the one of a flag, and an empty variable as good as a full one.
const ADDRESS: &str = "LINKMIC_ADDRESS";
const TOKEN: &str = "LINKMIC_TOKEN";
const TOKEN_FILE: &str = "LINKMIC_TOKEN_FILE";

/// Which server to ask, and with which token.
#[derive(Debug, Args)]
pub struct Reach {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the control API is: host and port, or a URL; without it, $LINKMIC_ADDRESS, then as the configuration says.
    #[arg(long, value_name = "ADDRESS", global = true, help_heading = "Server")]
    address: Option<String>,
    /// File with the control token; without it and --token, $LINKMIC_TOKEN, then the file $LINKMIC_TOKEN_FILE, then what the
    /// configuration says, then the one in the state directory.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Server")]
    token_file: Option<PathBuf>,
    /// The control token. Others on this machine can see it here; in $LINKMIC_TOKEN or a file they cannot.
    #[arg(
        long,
        value_name = "TOKEN",
        value_parser = secret,
        global = true,
        help_heading = "Server"
    )]
    token: Option<Secret>,
}

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--address {0:?} is neither host and port nor an http URL")]
    Address(String),
    #[error("the configuration cannot be used\n{0}")]
    Config(#[from] config::Error),
    #[error("{0}; --token-file, $LINKMIC_TOKEN or --config say where to find it")]
    Token(#[from] TokenError),
    #[error("cannot read the control token from {}: {source}", path.display())]
    TokenFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "the control token that a server on this machine made for itself is not sent to {0}; --token-file or $LINKMIC_TOKEN say with \
         which one to ask there"
    )]
    Elsewhere(String),
    #[error("the control token has characters that no HTTP header takes")]
    Unsendable,
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    #[error("cannot reach the server at {address}: {why}")]
    Unreachable { address: String, why: String },
    #[error("{message} ({status} {code}, request {request})")]
    Refused {
        status: u16,
        code: String,
        message: String,
        request: String,
    },
}

impl Error {
    /// Whether arguments or configuration must change.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Error::Unreachable { .. } | Error::Refused { .. })
    }
}

/// A server, and the token that it is asked with.
pub struct Control {
    base: Url,
    client: reqwest::Client,
    token: Option<HeaderValue>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub method: Method,
    /// Behind `/`, not yet percent-encoded.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Option<Vec<u8>>,
}

/// An answer of success, of which the body is still to be read.
pub struct Answer {
    address: String,
    response: reqwest::Response,
}

impl Ask {
    /// A question for what is at a path.
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path
                .trim_start_matches('/')
                .split('/')
                .map(str::to_owned)
                .collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
        }
    }
}

impl Reach {
    /// Finds the server and its token. Reads files; the configuration only where flags and environment leave something open.
    ///
    /// # Errors
    /// When address or token cannot be found or make no sense, or when the token is not for that address.
    pub fn open(&self, env: &Env) -> Result<Control, Error> {
        let given = self.token(env)?;
        let address = self.address.as_deref().or_else(|| env.text(ADDRESS));
        let config = match (address, &given) {
            (Some(_), Some(_)) => None,
            _ => Some(self.config.load(env)?),
        };
        let base = match (address, &config) {
            (Some(address), _) => parse(address)?,
            (None, Some(config)) => parse(&control_address(config).to_string())?,
            (None, None) => return Err(Error::Address(String::new())),
        };
        let token = match (given, &config) {
            (Some(token), _) => Some(token),
            (None, Some(config)) => Some(configured(config, env, &base)?),
            (None, None) => None,
        };
        Control::new(base, token)
    }

    /// By flags, else by variables.
    fn token(&self, env: &Env) -> Result<Option<Secret>, Error> {
        let (token, path) = match (&self.token, &self.token_file) {
            (None, None) => (
                env.text(TOKEN).map(Secret::new),
                env.text(TOKEN_FILE).map(PathBuf::from),
            ),
            (token, path) => (token.clone(), path.clone()),
        };
        let (None, Some(path)) = (&token, path) else {
            return Ok(token);
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Secret::new(text.trim()))),
            Err(source) => Err(Error::TokenFile { path, source }),
        }
    }
}

/// The token of the server that the configuration is of. One that nobody wrote down is for the server on this machine alone: whoever has
/// an address asked must not get it by that.
fn configured(config: &Config, env: &Env, base: &Url) -> Result<Secret, Error> {
    let is_made = matches!(config.control.token, TokenSource::Generated);
    if is_made && !is_here(base, config) {
        let host = base.host_str().unwrap_or_default();
        return Err(Error::Elsewhere(host.to_owned()));
    }
    Ok(config.known_control_token(env)?.secret)
}

/// Is it loopback, or what the control API of the configuration listens on?
fn is_here(base: &Url, config: &Config) -> bool {
    let host = base.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(address) = bare.parse::<IpAddr>() else {
        return host == "localhost";
    };
    let mut listening = config.control.listen.iter();
    address.to_canonical().is_loopback() || listening.any(|listen| listen.ip() == address)
}

/// Where a client on this host reaches the control listener.
pub fn control_address(config: &Config) -> SocketAddr {
    let first = config.control.listen.first().copied();
    local(first.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1985))))
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

fn parse(address: &str) -> Result<Url, Error> {
    let wrong = || Error::Address(address.to_owned());
    let text = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let url = Url::parse(&text).map_err(|_| wrong())?;
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none();
    match fits {
        true => Ok(url),
        false => Err(wrong()),
    }
}

impl Control {
    fn new(base: Url, token: Option<Secret>) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(Trust::load(None)?.client_config())
            .user_agent(concat!("linkmic/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| Error::Tls(root(&error)))?;
        let token = match token {
            None => None,
            Some(token) => {
                let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
                let mut value = value.map_err(|_| Error::Unsendable)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            base,
            client,
            token,
        })
    }

    /// Host and port, for people.
    pub fn address(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.base.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Asks, and returns when the answer's head is there.
    ///
    /// # Errors
    /// When there is no answer, or one that is not of success.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&ask.path);
        }
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&ask.query);
        }
        let id = RequestId::new();
        let mut headers = HeaderMap::new();
        for (name, value) in &ask.headers {
            let name = HeaderName::try_from(name.to_ascii_lowercase());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if let Ok(id) = HeaderValue::try_from(id.as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(token) = &self.token {
            headers.insert(reqwest::header::AUTHORIZATION, token.clone());
        }
        let mut request = self
            .client
            .request(ask.method.clone(), url)
            .headers(headers);
        if let Some(body) = &ask.body {
            request = request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(body.clone());
        }
        let address = self.address();
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(unreachable(&address, &error)),
        };
        let status = response.status();
        let answer = Answer { address, response };
        match status.is_success() {
            true => Ok(answer),
            false => Err(answer.refusal(status, &id).await),
        }
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// As [`Self::ask`], and when the answer breaks off or is no JSON.
    pub async fn json(&self, ask: &Ask) -> Result<serde_json::Value, Error> {
        let answer = self.ask(ask).await?;
        let address = answer.address.clone();
        let body = answer.body().await?;
        serde_json::from_slice(&body).map_err(|error| Error::Unreachable {
            address,
            why: format!("its answer is no JSON: {error}"),
        })
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// The media type, without its parameters.
    pub fn kind(&self) -> String {
        let value = self.response.headers().get(CONTENT_TYPE);
        let value = value.and_then(|value| value.to_str().ok());
        let kind = value.and_then(|value| value.split(';').next());
        kind.unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The body, whole.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn body(mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let piece = self.response.chunk().await;
        let piece = piece.map_err(|error| unreachable(&self.address, &error))?;
        Ok(piece.map(|piece| piece.to_vec()))
    }

    async fn refusal(self, status: StatusCode, id: &RequestId) -> Error {
        let named = self.response.headers().get(REQUEST_ID);
        let named = named.and_then(|value| value.to_str().ok());
        let request = named.unwrap_or(id.as_str()).to_owned();
        let body = self.body().await.unwrap_or_default();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |field: &str, or: &str| json[field].as_str().unwrap_or(or).to_owned();
        Error::Refused {
            status: status.as_u16(),
            code: text("code", "http"),
            message: text("message", "the server refuses it and does not say why"),
            request,
        }
    }
}

fn unreachable(address: &str, error: &reqwest::Error) -> Error {
    Error::Unreachable {
        address: address.to_owned(),
        why: root(error),
    }
}

/// The innermost cause, which is the one that tells.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_or_a_url_and_nothing_more() {
        for (address, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("[::1]:8080", "http://[::1]:8080/"),
            ("live.example", "http://live.example/"),
            (
                "https://live.example/linkmic",
                "https://live.example/linkmic",
            ),
        ] {
            assert_eq!(parse(address).unwrap().as_str(), url, "{address}");
        }
        for address in ["", "rtmp://a:1935", "http://a/?token=1", "a b"] {
            assert!(parse(address).is_err(), "{address:?}");
        }
    }

    fn reach(arguments: &[&str]) -> Reach {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            reach: Reach,
        }
        let line = std::iter::once(&"linkmic").chain(arguments);
        <Line as clap::Parser>::try_parse_from(line).unwrap().reach
    }

    fn env(variables: &[(&str, &str)]) -> Env {
        variables.iter().copied().collect()
    }

    #[test]
    fn a_token_on_the_command_line_goes_before_one_in_the_environment_and_an_empty_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("of {name}\n")).unwrap();
            path.display().to_string()
        };
        let (flagged, named) = (file("flag"), file("variable"));
        let both = env(&[(TOKEN, "variable"), (TOKEN_FILE, &named)]);
        let second = env(&[(TOKEN, ""), (TOKEN_FILE, &named)]);
        let empty = env(&[(TOKEN, ""), (TOKEN_FILE, "")]);
        let file_flag = ["--token-file", flagged.as_str()];
        for (arguments, env, token) in [
            (&["--token", "flag"][..], &both, Some("flag")),
            (&file_flag, &both, Some("of flag")),
            (&[], &both, Some("variable")),
            (&[], &second, Some("of variable")),
            (&[], &empty, None),
        ] {
            let found = reach(arguments).token(env).unwrap();
            assert_eq!(found, token.map(Secret::new), "{arguments:?}");
        }
        let address = env(&[(ADDRESS, "127.0.0.1:7000"), (TOKEN, "x")]);
        let asked = |arguments: &[&str], env: &Env| reach(arguments).open(env).unwrap().address();
        assert_eq!(asked(&[], &address), "127.0.0.1:7000");
        let flag = ["--address", "127.0.0.1:7001"];
        assert_eq!(asked(&flag, &address), "127.0.0.1:7001");
        let empty = env(&[(ADDRESS, ""), (TOKEN, "x")]);
        assert_eq!(asked(&[], &empty), "127.0.0.1:1985");
    }

    #[test]
    fn the_token_that_a_server_made_is_for_this_machine_and_one_that_was_written_down_for_any() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("control.token"), "made\n").unwrap();
        let state = dir.path().display().to_string();
        let listen = ("LINKMIC__CONTROL__LISTEN", "192.0.2.7:1985");
        let made = env(&[("LINKMIC__STATE__DIR", &state), listen]);
        let token = "sesame-sesame-sesame";
        let written = env(&[("LINKMIC__CONTROL__TOKEN", token), listen]);
        for (address, is_here) in [
            ("127.0.0.1:1985", true),
            ("127.1.2.3:1985", true),
            ("[::1]:1985", true),
            ("http://localhost:1985", true),
            ("192.0.2.7:1985", true),
            ("192.0.2.8:1985", false),
            ("https://live.example", false),
            ("localhost.example:1985", false),
        ] {
            let open = |env: &Env| reach(&["--address", address]).open(env);
            match open(&made) {
                Ok(control) => assert!(is_here && control.token.is_some(), "{address}"),
                Err(error) => {
                    assert!(
                        !is_here && matches!(error, Error::Elsewhere(_)),
                        "{address}: {error}"
                    );
                    assert!(error.is_usage());
                }
            }
            assert!(open(&written).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        let text = "[control]\nlisten = ['0.0.0.0:7000', '127.0.0.1:7001']";
        let config = Config::parse(text, "test", &Env::default());
        // Listening everywhere may be refused or warned of; what counts is what is made of the address.
        let config = config.unwrap();
        assert_eq!(control_address(&config).to_string(), "127.0.0.1:7000");
    }
}

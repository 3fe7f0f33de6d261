//! HTTP requests with JSON in them, over reqwest: no redirect is followed, no proxy of the environment used, and of an answer
//! no more is read than was asked for.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect;

use super::Address;
use crate::net::tls::Trust;

/// How long a connection is kept for the next question. Servers close those that idle after 5 s and more.
const IDLE: Duration = Duration::from_secs(4);

/// Why there is no answer. Never holds the address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no answer within {} s", .0.as_secs_f32())]
    Slow(Duration),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Broke(String),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Sends requests to servers that `Trust` believes. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Post {
    client: reqwest::Client,
}

/// What becomes of a connection after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It is closed: what comes next may come in a minute, when the server may be closing it.
    Close,
    /// It is kept for a moment: who asks is waiting.
    Keep,
}

impl Post {
    /// # Errors
    /// When TLS cannot be used, which would be a build mistake.
    pub fn new(trust: &Trust, after: After) -> Result<Self, String> {
        let idle = match after {
            After::Close => 0,
            After::Keep => usize::MAX,
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.client_config())
            .user_agent("linkmic")
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(idle)
            .pool_idle_timeout(IDLE)
            .build()
            .map_err(|error| root(&error))?;
        Ok(Self { client })
    }

    /// Sends `body` and gives the status and as much of the answer's body as `most` allows; with 0 it is not read.
    ///
    /// # Errors
    /// When there is no answer within `patience`, or it is longer than that.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn post(
        &self,
        to: &Address,
        headers: HeaderMap,
        body: String,
        patience: Duration,
        most: usize,
    ) -> Result<Answer, Error> {
        let exchange = async {
            let mut request = self.client.post(to.url().clone()).headers(headers);
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let mut answer = request.body(body).send().await.map_err(failed)?;
            let status = answer.status().as_u16();
            let mut body = Vec::new();
            while most > 0
                && let Some(chunk) = answer.chunk().await.map_err(failed)?
            {
                if body.len() + chunk.len() > most {
                    return Err(Error::TooLong(most));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Answer { status, body })
        };
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or(Err(Error::Slow(patience)))
    }
}

fn failed(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let why = root(&error);
    match error.is_connect() {
        true => Error::Connect(why),
        false => Error::Broke(why),
    }
}

/// The innermost cause, which is the one that tells.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let mut why = cause.to_string();
    if why.is_empty() {
        why = error.to_string();
    }
    why
}

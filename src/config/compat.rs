//! `[compat]`: who may call in the forms of the vendor's interface, and what their requests name by number.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ::config::Value;

use super::check::is_short;
use super::hooks::address;
use super::read::absolute;
use super::reader::{
    Parsed, Reader, Table, choice, flag, no_or_addresses, non_empty, number, string,
};
use super::secret::secret;
use super::{Config, Remark};
use crate::compat::{Account, Callback, Credentials, Picture, Shape};
use crate::media::StreamKey;

/// The vendor's have ten digits.
const MAX_APPID: u64 = 9_999_999_999;

/// Words for [`Shape`].
const SHAPES: &[(&str, Shape)] = &[("own", Shape::Own), ("hosted", Shape::Hosted)];

/// `[compat]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compat {
    /// Where it is served besides `[control]`.
    pub listen: Vec<SocketAddr>,
    /// Still pictures by the numbers that requests name them by.
    pub pictures: BTreeMap<u32, Picture>,
    /// Do queries of push URLs ask for mixes?
    pub url_mixes: bool,
    /// How a room service's `merge_stream` is answered.
    pub merge_stream: Shape,
    /// Who may call; none: it is not served at all.
    pub accounts: Vec<Account>,
}

pub(super) fn compat(t: &mut Table<'_>) -> Compat {
    Compat {
        listen: t.value("listen", Vec::new(), no_or_addresses),
        pictures: t.section("pictures", pictures),
        url_mixes: t.value("url_mixes", false, flag),
        merge_stream: t.value("merge_stream", Shape::default(), choice(SHAPES)),
        accounts: t.list("accounts", account),
    }
}

fn pictures(t: &mut Table<'_>) -> BTreeMap<u32, Picture> {
    let mut pictures = BTreeMap::new();
    for (name, picture) in t.entries(picture) {
        match name.parse::<u32>() {
            Ok(number) if number.to_string() == name => drop(pictures.insert(number, picture)),
            _ => t.mistake(&name, "not a picture's number, like 10"),
        }
    }
    pictures
}

/// Messages never hold the address: it may be signed.
fn picture(value: &Value) -> Parsed<Picture> {
    let text = non_empty(value)?;
    if !text.contains("://") {
        return absolute(value).map(Picture::File);
    }
    let url = url::Url::parse(&text).map_err(|error| format!("not an address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("pictures are files, or fetched by http or https".to_owned());
    }
    Ok(Picture::Url(text))
}

fn account(t: &mut Table<'_>) -> Option<Account> {
    let appid = t.required("appid", number(1..=MAX_APPID));
    let api_key = t.optional("api_key", secret);
    let id = t.optional("secret_id", secret_id);
    let key = t.optional("secret_key", secret);
    let credentials = match (id, key) {
        (Some(id), Some(key)) => Some(Credentials { id, key }),
        (Some(_), None) => {
            t.mistake("secret_key", "is missing; a secret_id needs its secret_key");
            None
        }
        (None, Some(_)) => {
            t.mistake("secret_id", "is missing; a secret_key needs its secret_id");
            None
        }
        (None, None) if api_key.is_none() => {
            t.mistake(
                "api_key",
                "is missing, and so are secret_id and secret_key; nobody could sign",
            );
            None
        }
        (None, None) => None,
    };
    let address = t.optional("callback_url", address);
    let own_key = t.optional("callback_key", secret);
    let callback = match (address, own_key.or_else(|| api_key.clone())) {
        (Some(address), Some(key)) => Some(Callback { address, key }),
        (Some(_), None) => {
            t.mistake(
                "callback_key",
                "is missing, and so is api_key; one of them signs callbacks",
            );
            None
        }
        (None, _) => None,
    };
    Some(Account {
        appid: appid?,
        api_key,
        credentials,
        app: t.value("app", "live".to_owned(), non_empty),
        stream_prefix: t.value("stream_prefix", String::new(), prefix),
        callback,
    })
}

/// It stands between a `=` and a `/` of a header.
fn secret_id(value: &Value) -> Parsed<String> {
    let text = non_empty(value)?;
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ',')) {
        return Err("has white space, a slash or a comma".to_owned());
    }
    Ok(text)
}

fn prefix(value: &Value) -> Parsed<String> {
    let text = string(value)?;
    if text.is_empty() || StreamKey::new("x", &text).is_ok() {
        return Ok(text);
    }
    Err(format!(
        "{text:?} is not the beginning of a stream's name: up to 128 of A-Z a-z 0-9 _ . -"
    ))
}

/// Notes contradictions.
pub(super) fn consistency(config: &Config, reader: &Reader) {
    let Compat {
        listen, accounts, ..
    } = &config.compat;
    if accounts.is_empty() && !listen.is_empty() {
        reader.mistake(
            "compat.listen",
            "no account is configured, so nobody could call; name them in [[compat.accounts]]",
        );
    }
    for (at, account) in accounts.iter().enumerate() {
        let path = format!("compat.accounts[{at}]");
        if config.app(&account.app).is_none() {
            let known: Vec<_> = config.apps.names().collect();
            reader.mistake(
                format!("{path}.app"),
                format!(
                    "no application {:?} is configured; there are: {}",
                    account.app,
                    known.join(", ")
                ),
            );
        }
        for (earlier, other) in accounts[..at].iter().enumerate() {
            let earlier = format!("compat.accounts[{earlier}]");
            if other.appid == account.appid {
                reader.mistake(
                    format!("{path}.appid"),
                    format!("the same as {earlier}.appid"),
                );
            }
            if let (Some(one), Some(other)) = (&account.credentials, &other.credentials)
                && one.id == other.id
            {
                reader.mistake(
                    format!("{path}.secret_id"),
                    format!("the same as {earlier}.secret_id"),
                );
            }
        }
    }
}

/// What deserves a second look.
pub(super) fn warnings(config: &Config) -> Vec<Remark> {
    let mut found = Vec::new();
    let mut warn = |path: String, message: String| found.push(Remark { path, message });
    let Compat {
        listen, accounts, ..
    } = &config.compat;
    if let Some(address) = listen.iter().find(|address| !address.ip().is_loopback()) {
        warn(
            "compat.listen".to_owned(),
            format!(
                "{address} can be reached from other hosts, and calls are signed, but not encrypted: a legacy signature that \
                 is seen on the way is good for any call until its t"
            ),
        );
    }
    for (at, account) in accounts.iter().enumerate() {
        let secrets = [
            ("api_key", account.api_key.as_ref()),
            (
                "secret_key",
                account.credentials.as_ref().map(|pair| &pair.key),
            ),
        ];
        for (key, secret) in secrets {
            if secret.is_some_and(is_short) {
                warn(
                    format!("compat.accounts[{at}].{key}"),
                    "shorter than 16 characters; can be found by trying".to_owned(),
                );
            }
        }
    }
    found
}

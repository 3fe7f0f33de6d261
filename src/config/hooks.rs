//! `[hooks]`: who is told what happens, and who is asked before it does.

use std::path::PathBuf;
use std::time::Duration;

use ::config::Value;

use super::check::is_short;
use super::read::absolute;
use super::reader::{Parsed, Reader, Table, choice, duration, non_empty, one_or_many, string};
use super::secret::secret;
use super::{Config, Remark};
use crate::auth::Secret;
use crate::hooks::{Address, Ask, Kind, OnFailure, Style, Webhook, check_secret};

/// Who waits longer for an answer has left: encoders give up after some 10 s.
const MAX_PATIENCE: Duration = Duration::from_secs(8);
/// Below it no back end answers.
const MIN_PATIENCE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(2);
/// Each costs a row on the disk for every event that it wants.
const MAX_WEBHOOKS: usize = 16;

const STYLES: &[(&str, Style)] = &[("native", Style::Native), ("srs", Style::Srs)];
const ON_FAILURE: &[(&str, OnFailure)] = &[("deny", OnFailure::Deny), ("allow", OnFailure::Allow)];

/// `[hooks]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks {
    /// A PEM file of certificate authorities that callbacks', webhooks' and the authorize hook's servers may come from, besides the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// Who is told of what. No two have the same address.
    pub webhooks: Vec<Webhook>,
    /// Who is asked whether somebody may publish or play; `None`: nobody.
    pub authorize: Option<Ask>,
}

pub(super) fn hooks(t: &mut Table<'_>) -> Hooks {
    Hooks {
        ca_file: t.optional("ca_file", absolute),
        webhooks: t.list("webhooks", webhook),
        authorize: t.optional_section("authorize", authorize).flatten(),
    }
}

fn webhook(t: &mut Table<'_>) -> Option<Webhook> {
    let address = t.required("url", address);
    let secret = t.required("secret", signing_secret);
    let kinds = t.required("events", kinds);
    Some(Webhook {
        address: address?,
        secret: secret?,
        kinds: kinds?,
    })
}

fn authorize(t: &mut Table<'_>) -> Option<Ask> {
    let address = t.required("url", address);
    Some(Ask {
        style: t.value("style", Style::Native, choice(STYLES)),
        patience: t.value("timeout", PATIENCE, duration(MIN_PATIENCE..=MAX_PATIENCE)),
        on_failure: t.value("on_failure", OnFailure::Deny, choice(ON_FAILURE)),
        secret: t.optional("secret", signing_secret),
        address: address?,
    })
}

pub(super) fn address(value: &Value) -> Parsed<Address> {
    Address::parse(&non_empty(value)?)
}

fn signing_secret(value: &Value) -> Parsed<Secret> {
    let secret = secret(value)?;
    check_secret(secret.expose())?;
    Ok(secret)
}

fn kinds(value: &Value) -> Parsed<Vec<Kind>> {
    let mut kinds = Vec::new();
    for item in one_or_many(value) {
        let word = string(&item)?;
        let Some(kind) = Kind::from_word(&word) else {
            let words: Vec<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
            return Err(format!("{word:?} is none of {}", words.join(", ")));
        };
        if kinds.contains(&kind) {
            return Err(format!("{word:?} stands twice"));
        }
        kinds.push(kind);
    }
    if kinds.is_empty() {
        return Err("the list is empty; there would be nothing to tell".to_owned());
    }
    Ok(kinds)
}

/// Notes contradictions.
pub(super) fn consistency(config: &Config, reader: &Reader) {
    let webhooks = &config.hooks.webhooks;
    if webhooks.len() > MAX_WEBHOOKS {
        reader.mistake(
            "hooks.webhooks",
            format!("{} exceed the limit of {MAX_WEBHOOKS}", webhooks.len()),
        );
    }
    for (at, webhook) in webhooks.iter().enumerate() {
        let same = |other: &Webhook| other.address == webhook.address;
        if let Some(earlier) = webhooks[..at].iter().position(same) {
            reader.mistake(
                format!("hooks.webhooks[{at}].url"),
                format!("the same as hooks.webhooks[{earlier}].url; give one of them all events"),
            );
        }
    }
}

/// What deserves a second look.
pub(super) fn warnings(config: &Config) -> Vec<Remark> {
    let mut found = Vec::new();
    let secrets = config.hooks.webhooks.iter().enumerate();
    let secrets = secrets.map(|(at, hook)| (format!("hooks.webhooks[{at}].secret"), &hook.secret));
    let ask = config.hooks.authorize.as_ref();
    let own = ask.and_then(|ask| Some(("hooks.authorize.secret".to_owned(), ask.secret.as_ref()?)));
    for (path, secret) in secrets.chain(own) {
        if is_short(secret) {
            found.push(Remark {
                path,
                message: "shorter than 16 characters; can be found by trying".to_owned(),
            });
        }
    }
    if let Some(ask) = ask.filter(|ask| ask.address.is_exposed()) {
        found.push(Remark {
            path: "hooks.authorize.url".to_owned(),
            message: format!(
                "{}: questions have the queries of URLs in them, and are not encrypted",
                ask.address
            ),
        });
    }
    if ask.is_some_and(|ask| ask.on_failure == OnFailure::Allow) {
        found.push(Remark {
            path: "hooks.authorize.on_failure".to_owned(),
            message: "\"allow\": whoever can keep the back end from answering gets in".to_owned(),
        });
    }
    found
}

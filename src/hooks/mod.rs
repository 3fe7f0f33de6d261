//! What others are told, and what they are asked: callbacks in the vendor's form, native webhooks, the journal that event streams
//! read, and the back end that may refuse who publishes and plays.
//!
//! Owns what is told, to whom, in which order, and when it is tried again. Refuses to know sockets of publishers, requests and
//! mixes: it hears the relay's facts itself ([`scribe`]), and those of other rooms from the server, through [`Journal::tell`]. A letter
//! is kept in the store before it is sent ([`sender`]), and until it was taken; letters of one stream leave one after the other, so a
//! start never overtakes the end before it. Epochs that a killed server left open are ended at the next start. Made by the server.

mod address;
mod authorize;
mod chronicle;
mod fact;
mod journal;
mod letter;
mod post;
mod scribe;
mod sender;
#[cfg(test)]
mod tests;
mod webhook;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use address::Address;
pub use authorize::{Ask, Door, OnFailure, Style};
pub use chronicle::{Chronicle, Entry, Remark, What};
pub use fact::{Event, EventId, Fact, Kind};
pub use journal::{Gap, Journal, Reader};
pub use webhook::{Webhook, check_secret};

use crate::auth::Secret;
use crate::media::StreamKey;
use crate::media::health::Report;
use crate::metrics::Metrics;
use crate::net::tls::Trust;
use crate::store::{self, EpochChange, LetterRow, OutboxState, Store};
use post::{After, Post};

/// The documents' pause between two tries of a callback.
pub const PAUSE: Duration = Duration::from_secs(60);
/// Before something that the store refused is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// Reports about publishers that may wait to be written down.
const REPORTS: usize = 256;

/// Whom to call back of which streams, in the vendor's form.
#[derive(Debug, Clone)]
pub struct Account {
    pub appid: u64,
    pub app: String,
    pub stream_prefix: String,
    pub address: Address,
    /// Signs letters.
    pub key: Secret,
}

/// What hooks are made of.
#[derive(Debug, Clone)]
pub struct Config {
    pub accounts: Vec<Account>,
    pub webhooks: Vec<Webhook>,
    /// What is told as the server's address.
    pub node: String,
    /// Between two tries of a callback.
    pub pause: Duration,
    /// Whom to believe where an address is of HTTPS.
    pub trust: Trust,
}

/// Hooks of this server. Cheap to clone.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

struct Inner {
    config: Config,
    store: Store,
    metrics: Arc<Metrics>,
    journal: Journal,
    post: Post,
    /// What was wrong with publishers, for the scribe.
    reports: mpsc::Sender<Trouble>,
    /// Taken by the scribe.
    reported: Mutex<Option<mpsc::Receiver<Trouble>>>,
    /// There is something new to send.
    news: Notify,
    /// Nothing more is written.
    written: CancellationToken,
    /// The latest epoch whose beginning is on the disk, where anybody is told of it.
    kept: watch::Sender<u64>,
}

/// What was wrong with a publisher.
#[derive(Debug)]
struct Trouble {
    key: StreamKey,
    epoch: u64,
    report: Report,
    at: SystemTime,
}

/// A dead letter, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    pub row: LetterRow,
    /// `"callback"` or `"webhook"`.
    pub kind: &'static str,
    /// Whom it was for, as long as it is configured: an appid or an address.
    pub addressee: Option<String>,
    /// Its stream: `live/a`.
    pub stream: String,
}

impl Hooks {
    /// Begins a new run of the journal.
    ///
    /// # Errors
    /// When TLS cannot be used, which would be a build mistake.
    pub async fn open(config: Config, store: Store, metrics: Arc<Metrics>) -> Result<Self, String> {
        let now = millis(SystemTime::now());
        let run = match store.begin_run(now).await {
            Ok(run) => run,
            Err(error) => {
                warn!(%error, "the run's number could not be kept; events are numbered by the clock");
                now
            }
        };
        let post = Post::new(&config.trust, After::Close)?;
        let (reports, reported) = mpsc::channel(REPORTS);
        Ok(Self(Arc::new(Inner {
            config,
            store,
            metrics,
            journal: Journal::new(u64::try_from(run).unwrap_or(0)),
            post,
            reports,
            reported: Mutex::new(Some(reported)),
            news: Notify::new(),
            written: CancellationToken::new(),
            kept: watch::Sender::new(0),
        })))
    }

    /// Keeps what became of epochs of the process that we took over from, and has its letters sent. Gives how many there was no
    /// room for.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn take_in(&self, changes: Vec<EpochChange>) -> Result<usize, store::Error> {
        let lost = self.0.store.note_epochs(changes).await?;
        self.0.news.notify_one();
        Ok(lost)
    }

    /// Looks for letters anew: the state was handed to another process, or is ours again.
    pub fn look(&self) {
        self.0.news.notify_one();
    }

    /// Where facts of all rooms are told and read.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Cancelled when the server ends and all that happened is told: [`Hooks::write`] has ended.
    pub fn over(&self) -> CancellationToken {
        self.0.written.clone()
    }

    /// Something was wrong with what the publisher of that epoch sent: it is remarked, and accounts of the vendor's form are told.
    /// Never waits.
    pub fn trouble(&self, key: &StreamKey, epoch: u64, report: Report) {
        for found in &report.found {
            let (words, _) = found.trouble.words();
            let details = found.details.first().map_or("", |detail| &detail.words);
            let remark = Remark {
                kind: "trouble",
                reason: found.trouble.reason(),
                words: format!("{words}: {details} ({} in 5 s)", found.count),
                address: None,
            };
            self.0.journal.chronicle().remark(key, remark);
        }
        if self.0.accounts(key).next().is_none() {
            return;
        }
        let trouble = Trouble {
            key: key.clone(),
            epoch,
            report,
            at: SystemTime::now(),
        };
        if self.0.reports.try_send(trouble).is_err() {
            self.0.metrics.hooks_lost(1);
        }
    }

    /// Whether a webhook is told of facts of that kind.
    pub fn wants(&self, kind: Kind) -> bool {
        self.0.config.webhooks.iter().any(|hook| hook.wants(kind))
    }

    /// The numbers of the webhooks in the outbox.
    #[cfg(test)]
    pub fn webhook_accounts(&self) -> Vec<i64> {
        let webhooks = self.0.config.webhooks.iter();
        webhooks.map(Webhook::account).collect()
    }

    /// How much waits to be taken, and since when.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn outbox(&self) -> Result<OutboxState, store::Error> {
        self.0.store.outbox().await
    }

    /// Dead letters with ids above `after`, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn dead(&self, after: i64, limit: usize) -> Result<Vec<Dead>, store::Error> {
        let rows = self.0.store.dead_letters(after, limit).await?;
        Ok(rows.into_iter().map(|row| self.0.dead(row)).collect())
    }

    /// Sends a dead letter again, with all its tries. `None`: there is no such.
    ///
    /// # Errors
    /// When that could not be kept.
    pub async fn retry(&self, id: i64) -> Result<Option<Dead>, store::Error> {
        let row = self.0.store.revive_letter(id).await?;
        self.0.news.notify_one();
        Ok(row.map(|row| self.0.dead(row)))
    }

    /// Forgets a dead letter. `None`: there is no such.
    ///
    /// # Errors
    /// When that could not be kept.
    pub async fn forget(&self, id: i64) -> Result<Option<Dead>, store::Error> {
        let row = self.0.store.forget_letter(id).await?;
        Ok(row.map(|row| self.0.dead(row)))
    }
}

/// Whom a letter is for.
enum Addressee<'a> {
    Account(&'a Account),
    Webhook(&'a Webhook),
}

impl Inner {
    /// What comes through [`Hooks::trouble`], for the first who asks.
    fn reported(&self) -> mpsc::Receiver<Trouble> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Accounts that are told of a stream.
    fn accounts<'a>(&'a self, key: &'a StreamKey) -> impl Iterator<Item = &'a Account> {
        let all = self.config.accounts.iter();
        all.filter(|one| one.app == key.app() && key.stream().starts_with(&one.stream_prefix))
    }

    fn addressee(&self, account: i64) -> Option<Addressee<'_>> {
        let accounts = &mut self.config.accounts.iter();
        let webhooks = &mut self.config.webhooks.iter();
        let found = accounts.find(|one| one.number() == account);
        let found = found.map(Addressee::Account);
        found.or_else(|| {
            let found = webhooks.find(|one| one.account() == account);
            found.map(Addressee::Webhook)
        })
    }

    fn dead(&self, row: LetterRow) -> Dead {
        let addressee = self.addressee(row.account).map(|found| match found {
            Addressee::Account(account) => account.appid.to_string(),
            Addressee::Webhook(hook) => hook.address.to_string(),
        });
        let stream = row.lane.split_once(' ').map_or("", |(_, stream)| stream);
        Dead {
            kind: kind_of(row.account),
            addressee,
            stream: stream.to_owned(),
            row,
        }
    }
}

impl Account {
    /// Its number in the outbox.
    fn number(&self) -> i64 {
        // An appid has ten digits.
        i64::try_from(self.appid).unwrap_or(i64::MAX)
    }
}

/// What a letter of that account is called.
fn kind_of(account: i64) -> &'static str {
    if account < 0 { "webhook" } else { "callback" }
}

/// Letters of one account about one stream go one after the other.
fn lane(account: i64, key: &StreamKey) -> String {
    format!("{account} {key}")
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

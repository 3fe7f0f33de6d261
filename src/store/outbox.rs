//! Letters to back ends, as rows, and the publish epochs that a letter of the end is still owed for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Error, Store};

/// Most letters that are kept, dead ones among them. Beyond it the oldest dead ones go, and without any no more is taken.
const MOST: i64 = 100_000;
/// Longest sentence about a failure that is kept, in characters.
const MAX_ERROR: usize = 300;

/// Nobody puts a letter off for longer, in milliseconds. One that seems to be due later was put off before the host's clock was set
/// back.
const LONGEST_PAUSE: i64 = 15 * 60 * 1_000;

/// The first letter of each lane that is neither delivered nor dead. Goes from lane to lane by the index, however many letters
/// wait in each.
const HEADS: &str = "WITH RECURSIVE lanes (lane) AS (
        SELECT min(lane) FROM outbox WHERE dead = 0
        UNION ALL
        SELECT (SELECT min(lane) FROM outbox WHERE dead = 0 AND lane > lanes.lane) FROM lanes
            WHERE lanes.lane IS NOT NULL
    ), heads (id) AS (
        SELECT (SELECT min(id) FROM outbox WHERE dead = 0 AND lane = lanes.lane) FROM lanes
            WHERE lanes.lane IS NOT NULL
    )";

/// A letter as it is kept. Texts are the caller's; times are UNIX milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterRow {
    /// Given by the store, rising; what it is on the way in does not matter.
    pub id: i64,
    /// Letters of one lane leave one after the other, in the order in which they came.
    pub lane: String,
    /// Whom it is for.
    pub account: i64,
    pub body: String,
    /// How often it was tried.
    pub attempts: i64,
    /// Not before then.
    pub due_at: i64,
    /// When it was written.
    pub created_at: i64,
    /// What became of it last; empty when it was not tried yet.
    pub error: String,
}

/// A publish epoch that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Unique for an account, also over restarts.
    pub sequence: String,
    pub account: i64,
    pub lane: String,
    pub begun_at: i64,
    /// What its letters have in common.
    pub body: String,
}

/// What became of an epoch, and the letter that says so where one is wanted; or a letter of something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EpochChange {
    Begun(EpochRow, Option<LetterRow>),
    Ended {
        sequence: String,
        account: i64,
        letter: Option<LetterRow>,
    },
    Told(LetterRow),
}

/// What a look into the outbox found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// To be sent now.
    pub letters: Vec<LetterRow>,
    /// When the next one is due, where none comes in before.
    pub next_at: Option<i64>,
}

/// The outbox in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxState {
    pub waiting: i64,
    pub dead: i64,
    /// When the oldest of those that wait was written.
    pub oldest_at: Option<i64>,
}

impl OutboxState {
    /// How long the oldest has waited by `now`; zero without any.
    pub fn oldest(&self, now: SystemTime) -> Duration {
        let at = self.oldest_at.and_then(|at| u64::try_from(at).ok());
        let at = at.map(|at| UNIX_EPOCH + Duration::from_millis(at));
        at.and_then(|at| now.duration_since(at).ok())
            .unwrap_or_default()
    }
}

impl LetterRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            lane: row.get("lane")?,
            account: row.get("account")?,
            body: row.get("body")?,
            attempts: row.get("attempts")?,
            due_at: row.get("due_at")?,
            created_at: row.get("created_at")?,
            error: row.get("error")?,
        })
    }
}

impl EpochRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            sequence: row.get("sequence")?,
            account: row.get("account")?,
            lane: row.get("lane")?,
            begun_at: row.get("begun_at")?,
            body: row.get("body")?,
        })
    }
}

/// How many letters there is room for, counted once for many of them.
struct Room(i64);

impl Room {
    fn count(file: &Transaction<'_>) -> rusqlite::Result<Self> {
        let kept: i64 = file.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?;
        Ok(Self(MOST - kept))
    }

    /// Room for one more, if need be where dead ones are; `false`: there is none.
    fn take(&mut self, file: &Transaction<'_>) -> rusqlite::Result<bool> {
        if self.0 <= 0 {
            file.execute(
                "DELETE FROM outbox WHERE id IN
                    (SELECT id FROM outbox WHERE dead = 1 ORDER BY id LIMIT 1000)",
                [],
            )?;
            *self = Self::count(file)?;
        }
        self.0 -= 1;
        Ok(self.0 >= 0)
    }
}

/// `false`: there is no room. Without a letter there always is.
fn post(
    file: &Transaction<'_>,
    letter: Option<&LetterRow>,
    room: &mut Room,
) -> rusqlite::Result<bool> {
    let Some(letter) = letter else {
        return Ok(true);
    };
    if !room.take(file)? {
        return Ok(false);
    }
    let mut insert = file.prepare_cached(
        "INSERT INTO outbox (lane, account, body, attempts, due_at, dead, created_at)
        VALUES (?1, ?2, ?3, 0, ?4, 0, ?5)",
    )?;
    insert.execute(params![
        letter.lane,
        letter.account,
        letter.body,
        letter.due_at,
        letter.created_at
    ])?;
    Ok(true)
}

/// `false`: there is no room for the letter, and nothing is kept.
fn begin(
    file: &Transaction<'_>,
    epoch: &EpochRow,
    letter: Option<&LetterRow>,
    room: &mut Room,
) -> rusqlite::Result<bool> {
    if !post(file, letter, room)? {
        return Ok(false);
    }
    let mut insert = file.prepare_cached(
        "INSERT OR REPLACE INTO epochs (sequence, account, lane, begun_at, body)
        VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let EpochRow {
        sequence,
        account,
        lane,
        begun_at,
        body,
    } = epoch;
    insert.execute(params![sequence, account, lane, begun_at, body])?;
    Ok(true)
}

/// `false`: there is no room for the letter; the epoch is forgotten.
fn end(
    file: &Transaction<'_>,
    sequence: &str,
    account: i64,
    letter: Option<&LetterRow>,
    room: &mut Room,
) -> rusqlite::Result<bool> {
    let mut forget =
        file.prepare_cached("DELETE FROM epochs WHERE sequence = ?1 AND account = ?2")?;
    let kept = forget.execute(params![sequence, account])? > 0;
    Ok(!kept || post(file, letter, room)?)
}

impl Store {
    /// The number of a run of the server that begins at `now`: that time in UNIX milliseconds, or one more than the number of the
    /// run before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn begin_run(&self, now: i64) -> Result<i64, Error> {
        self.run(move |file| {
            let before: Option<i64> =
                file.query_row("SELECT max(latest) FROM runs", [], |row| row.get(0))?;
            let run = before.map_or(now, |before| now.max(before + 1));
            file.execute("DELETE FROM runs", [])?;
            file.execute("INSERT INTO runs (latest) VALUES (?1)", params![run])?;
            Ok(run)
        })
        .await
    }

    /// Keeps what became of epochs and the letters that say so, in that order: all or nothing. An end of which the beginning
    /// is not kept is left out. Gives how many letters there was no room for.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn note_epochs(&self, changes: Vec<EpochChange>) -> Result<usize, Error> {
        if let Some(to) = self.successor() {
            let (answer, answered) = oneshot::channel();
            let passed = to.send((changes, answer)).await;
            passed.map_err(|_| Error::HandedOver)?;
            return answered.await.unwrap_or(Err(Error::HandedOver));
        }
        self.run(move |file| {
            let mut lost = 0;
            let room = &mut Room::count(file)?;
            for change in &changes {
                let kept = match change {
                    EpochChange::Begun(epoch, letter) => begin(file, epoch, letter.as_ref(), room)?,
                    EpochChange::Ended {
                        sequence,
                        account,
                        letter,
                    } => end(file, sequence, *account, letter.as_ref(), room)?,
                    EpochChange::Told(letter) => post(file, Some(letter), room)?,
                };
                lost += usize::from(!kept);
            }
            Ok(lost)
        })
        .await
    }

    /// Epochs that have begun and not ended, by their beginning.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn open_epochs(&self) -> Result<Vec<EpochRow>, Error> {
        self.run(|file| {
            let mut all =
                file.prepare_cached("SELECT * FROM epochs ORDER BY begun_at, sequence")?;
            let rows = all.query_map([], EpochRow::read)?;
            rows.collect()
        })
        .await
    }

    /// Of each lane the first letter that is neither delivered nor dead, where it is due by `now`, by a clock that may have been set
    /// back since, and not for one of the accounts
    /// in `but`; at most `limit`, the oldest first. And when the next one is due.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn due_letters(&self, now: i64, but: Vec<i64>, limit: usize) -> Result<Due, Error> {
        self.run(move |file| {
            let mut due = file.prepare_cached(&format!(
                "{HEADS} SELECT * FROM outbox
                WHERE id IN (SELECT id FROM heads) AND due_at NOT BETWEEN ?1 + 1 AND ?4
                    AND account NOT IN (SELECT value FROM json_each(?2))
                ORDER BY id LIMIT ?3"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let latest = now.saturating_add(LONGEST_PAUSE);
            let list: Vec<String> = but.iter().map(i64::to_string).collect();
            let list = format!("[{}]", list.join(","));
            let rows = due.query_map(params![now, list, limit, latest], LetterRow::read)?;
            let letters = rows.collect::<rusqlite::Result<_>>()?;
            let mut next = file.prepare_cached(&format!(
                "{HEADS} SELECT min(due_at) FROM outbox
                WHERE id IN (SELECT id FROM heads) AND due_at BETWEEN ?1 + 1 AND ?2"
            ))?;
            let next_at = next.query_row(params![now, latest], |row| row.get(0))?;
            Ok(Due { letters, next_at })
        })
        .await
    }

    /// A letter was taken; it is kept no more.
    ///
    /// # Errors
    /// When the file cannot be written: it will be sent again.
    pub async fn letter_taken(&self, id: i64) -> Result<(), Error> {
        self.run(move |file| {
            file.execute("DELETE FROM outbox WHERE id = ?1", params![id])?;
            Ok(())
        })
        .await
    }

    /// A letter was not taken, and why: it is to be sent again at `due_at`, or is dead (`None`).
    ///
    /// # Errors
    /// When the file cannot be written: it will be sent again at once.
    pub async fn letter_refused(
        &self,
        id: i64,
        due_at: Option<i64>,
        error: &str,
    ) -> Result<(), Error> {
        let error: String = error.chars().take(MAX_ERROR).collect();
        self.run(move |file| {
            file.execute(
                "UPDATE outbox SET attempts = attempts + 1, due_at = coalesce(?2, due_at), dead = (?2 IS NULL), error = ?3
                WHERE id = ?1",
                params![id, due_at, error],
            )?;
            Ok(())
        })
        .await
    }

    /// Dead letters with an id above `after`, at most `limit`, by their ids.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn dead_letters(&self, after: i64, limit: usize) -> Result<Vec<LetterRow>, Error> {
        self.run(move |file| {
            let mut dead = file.prepare_cached(
                "SELECT * FROM outbox WHERE dead = 1 AND id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = dead.query_map(params![after, limit], LetterRow::read)?;
            rows.collect()
        })
        .await
    }

    /// A dead letter lives again, with all its tries, and is due at once. Gives it as it was; `None`: no dead letter has that id.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn revive_letter(&self, id: i64) -> Result<Option<LetterRow>, Error> {
        self.run(move |file| {
            let found = dead(file, id)?;
            file.execute(
                "UPDATE outbox SET dead = 0, attempts = 0, due_at = 0 WHERE id = ?1 AND dead = 1",
                params![id],
            )?;
            Ok(found)
        })
        .await
    }

    /// Forgets a dead letter, and gives it. `None`: no dead letter has that id.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn forget_letter(&self, id: i64) -> Result<Option<LetterRow>, Error> {
        self.run(move |file| {
            let found = dead(file, id)?;
            file.execute("DELETE FROM outbox WHERE id = ?1 AND dead = 1", params![id])?;
            Ok(found)
        })
        .await
    }

    /// How much waits, and since when.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn outbox(&self) -> Result<OutboxState, Error> {
        self.run(|file| {
            let count = |dead: i64| {
                let sql = "SELECT count(*) FROM outbox WHERE dead = ?1";
                file.query_row(sql, params![dead], |row| row.get(0))
            };
            // Later ones have higher ids, so that the index tells which is the oldest.
            let oldest = "SELECT created_at FROM outbox
                WHERE id = (SELECT min(id) FROM outbox WHERE dead = 0)";
            Ok(OutboxState {
                waiting: count(0)?,
                dead: count(1)?,
                oldest_at: file.query_row(oldest, [], |row| row.get(0)).optional()?,
            })
        })
        .await
    }
}

fn dead(file: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<LetterRow>> {
    let mut find = file.prepare_cached("SELECT * FROM outbox WHERE id = ?1 AND dead = 1")?;
    find.query_row(params![id], LetterRow::read).optional()
}

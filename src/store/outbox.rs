//! Letters to back ends, as rows, and the publish epochs that a letter of the end is still owed for.

use rusqlite::{Row, Transaction, params};

use super::{Error, Store};

/// Most letters that are kept, dead ones among them. Beyond it the oldest dead ones go, and without any no more is taken.
const MOST: i64 = 100_000;

/// A letter as it is kept. Texts are the caller's; times are UNIX milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// A publish epoch that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRow {
    /// Unique for an account, also over restarts.
    pub sequence: String,
    pub account: i64,
    pub lane: String,
    pub begun_at: i64,
    /// What its letters have in common.
    pub body: String,
}

/// What became of an epoch, and the letter that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochChange {
    Begun(EpochRow, LetterRow),
    Ended { sequence: String, letter: LetterRow },
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

/// `false`: there is no room.
fn post(file: &Transaction<'_>, letter: &LetterRow) -> rusqlite::Result<bool> {
    let count = |file: &Transaction<'_>| -> rusqlite::Result<i64> {
        file.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
    };
    if count(file)? >= MOST {
        file.execute(
            "DELETE FROM outbox WHERE id IN
                (SELECT id FROM outbox WHERE dead = 1 ORDER BY id LIMIT 1000)",
            [],
        )?;
        if count(file)? >= MOST {
            return Ok(false);
        }
    }
    let mut insert = file.prepare_cached(
        "INSERT INTO outbox (lane, account, body, attempts, due_at, dead)
        VALUES (?1, ?2, ?3, 0, ?4, 0)",
    )?;
    insert.execute(params![
        letter.lane,
        letter.account,
        letter.body,
        letter.due_at
    ])?;
    Ok(true)
}

/// `false`: there is no room for the letter, and nothing is kept.
fn begin(file: &Transaction<'_>, epoch: &EpochRow, letter: &LetterRow) -> rusqlite::Result<bool> {
    if !post(file, letter)? {
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
fn end(file: &Transaction<'_>, sequence: &str, letter: &LetterRow) -> rusqlite::Result<bool> {
    let mut forget =
        file.prepare_cached("DELETE FROM epochs WHERE sequence = ?1 AND account = ?2")?;
    let kept = forget.execute(params![sequence, letter.account])? > 0;
    Ok(!kept || post(file, letter)?)
}

impl Store {
    /// Keeps what became of epochs and the letters that say so, in that order: all or nothing. An end of which the beginning
    /// is not kept is left out. Gives how many letters there was no room for.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn note_epochs(&self, changes: Vec<EpochChange>) -> Result<usize, Error> {
        self.run(move |file| {
            let mut lost = 0;
            for change in &changes {
                let kept = match change {
                    EpochChange::Begun(epoch, letter) => begin(file, epoch, letter)?,
                    EpochChange::Ended { sequence, letter } => end(file, sequence, letter)?,
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

    /// Of each lane the first letter that is neither delivered nor dead, where it is due by `now`; at most `limit`, the
    /// oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn due_letters(&self, now: i64, limit: usize) -> Result<Vec<LetterRow>, Error> {
        self.run(move |file| {
            let mut due = file.prepare_cached(
                "SELECT * FROM outbox
                WHERE id IN (SELECT min(id) FROM outbox WHERE dead = 0 GROUP BY lane)
                    AND due_at <= ?1
                ORDER BY id LIMIT ?2",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = due.query_map(params![now, limit], LetterRow::read)?;
            rows.collect()
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

    /// A letter was not taken: it is to be sent again at `due_at`, or is dead (`None`).
    ///
    /// # Errors
    /// When the file cannot be written: it will be sent again at once.
    pub async fn letter_refused(&self, id: i64, due_at: Option<i64>) -> Result<(), Error> {
        self.run(move |file| {
            file.execute(
                "UPDATE outbox SET attempts = attempts + 1, due_at = coalesce(?2, due_at), dead = (?2 IS NULL)
                WHERE id = ?1",
                params![id, due_at],
            )?;
            Ok(())
        })
        .await
    }
}

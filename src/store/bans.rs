//! Bans as rows.

use rusqlite::{OptionalExtension, Row, params};

use super::{Error, Store};

/// One ban as it is kept. Texts are the caller's; times are UNIX milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanRow {
    /// Given by the store; what it is on the way in does not matter.
    pub id: i64,
    pub kind: String,
    pub subject: String,
    pub scope: String,
    pub created_at: i64,
    /// `None`: for ever.
    pub expires_at: Option<i64>,
    pub note: String,
}

impl BanRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            kind: row.get("kind")?,
            subject: row.get("subject")?,
            scope: row.get("scope")?,
            created_at: row.get("created_at")?,
            expires_at: row.get("expires_at")?,
            note: row.get("note")?,
        })
    }
}

impl Store {
    /// All bans by id, without those that ended by `now` (UNIX milliseconds).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn bans(&self, now: i64) -> Result<Vec<BanRow>, Error> {
        self.run(move |file| {
            let mut all = file.prepare_cached(
                "SELECT * FROM bans WHERE expires_at IS NULL OR expires_at > ?1 ORDER BY id",
            )?;
            let rows = all.query_map(params![now], BanRow::read)?;
            rows.collect()
        })
        .await
    }

    /// Removes the bans that ended by `now` (UNIX milliseconds). They hold no more with or without it: this is only
    /// for the room they take.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn forget_bans(&self, now: i64) -> Result<(), Error> {
        self.run(move |file| {
            file.execute("DELETE FROM bans WHERE expires_at <= ?1", params![now])?;
            Ok(())
        })
        .await
    }

    /// Keeps a ban. One of the same kind, subject and scope is the same ban: it keeps its id and beginning and takes
    /// the rest. Gives the row as it is kept.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn put_ban(&self, ban: BanRow) -> Result<BanRow, Error> {
        self.run(move |file| {
            let mut put = file.prepare_cached(
                "INSERT INTO bans (kind, subject, scope, created_at, expires_at, note)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                ON CONFLICT (kind, subject, scope)
                DO UPDATE SET expires_at = excluded.expires_at, note = excluded.note
                RETURNING *",
            )?;
            let values = params![
                ban.kind,
                ban.subject,
                ban.scope,
                ban.created_at,
                ban.expires_at,
                ban.note
            ];
            put.query_row(values, BanRow::read)
        })
        .await
    }

    /// Forgets a ban; `None` when there is none of that id.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn delete_ban(&self, id: i64) -> Result<Option<BanRow>, Error> {
        self.run(move |file| {
            let mut delete = file.prepare_cached("DELETE FROM bans WHERE id = ?1 RETURNING *")?;
            delete.query_row(params![id], BanRow::read).optional()
        })
        .await
    }
}

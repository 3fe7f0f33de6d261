//! What was asked for and is to be so after a restart: mixes, pushes and links, as rows.

use rusqlite::types::ValueRef;
use rusqlite::{Row, params};

use super::{Error, Store};

/// A mix as it was asked for. Times are UNIX milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixRow {
    pub id: String,
    /// The request's JSON text.
    pub scene: String,
    /// Counts the scenes from 1.
    pub revision: i64,
    pub created_at: i64,
    /// Since when none of its streams has come; `None`: one does.
    pub idle_since: Option<i64>,
}

/// A push as it was asked for. It may hold secrets. Times are UNIX milliseconds.
#[derive(Clone, PartialEq, Eq)]
pub struct PushRow {
    pub id: String,
    /// The request's JSON text.
    pub spec: String,
    /// Counts the targets from 1.
    pub revision: i64,
    pub created_at: i64,
}

/// A link as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    pub id: String,
    /// All of it, in whoever's form keeps it.
    pub body: String,
}

impl std::fmt::Debug for PushRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushRow")
            .field("id", &self.id)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// A text column. What a failing disk has made no text of is replaced in it, so that one row does not keep all others from
/// being read.
fn text(row: &Row<'_>, column: &str) -> rusqlite::Result<String> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        _ => row.get(column),
    }
}

impl MixRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: text(row, "id")?,
            scene: text(row, "scene")?,
            revision: row.get("revision")?,
            created_at: row.get("created_at")?,
            idle_since: row.get("idle_since")?,
        })
    }
}

impl PushRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: text(row, "id")?,
            spec: text(row, "spec")?,
            revision: row.get("revision")?,
            created_at: row.get("created_at")?,
        })
    }
}

impl LinkRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: text(row, "id")?,
            body: text(row, "body")?,
        })
    }
}

impl Store {
    /// All mixes by id.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn mixes(&self) -> Result<Vec<MixRow>, Error> {
        self.run(|file| {
            let mut all = file.prepare_cached("SELECT * FROM mixes ORDER BY id")?;
            let rows = all.query_map([], MixRow::read)?;
            rows.collect()
        })
        .await
    }

    /// Keeps a mix in place of the one of its id, which keeps its `idle_since`.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn put_mix(&self, mix: MixRow) -> Result<(), Error> {
        self.run(move |file| {
            let mut put = file.prepare_cached(
                "INSERT INTO mixes (id, scene, revision, created_at, idle_since) VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT (id) DO UPDATE SET
                    scene = excluded.scene, revision = excluded.revision, created_at = excluded.created_at",
            )?;
            let MixRow { id, scene, revision, created_at, idle_since } = mix;
            put.execute(params![id, scene, revision, created_at, idle_since])?;
            Ok(())
        })
        .await
    }

    /// Notes since when none of the mix's streams has come. One that is not kept stays so.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn note_idle_mix(&self, id: String, since: Option<i64>) -> Result<(), Error> {
        self.run(move |file| {
            let mut note = file.prepare_cached("UPDATE mixes SET idle_since = ?2 WHERE id = ?1")?;
            note.execute(params![id, since])?;
            Ok(())
        })
        .await
    }

    /// Forgets a mix, if it is there.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn delete_mix(&self, id: String) -> Result<(), Error> {
        self.delete("DELETE FROM mixes WHERE id = ?1", id).await
    }

    /// All pushes by id.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn pushes(&self) -> Result<Vec<PushRow>, Error> {
        self.run(|file| {
            let mut all = file.prepare_cached("SELECT * FROM pushes ORDER BY id")?;
            let rows = all.query_map([], PushRow::read)?;
            rows.collect()
        })
        .await
    }

    /// Keeps a push in place of the one of its id.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn put_push(&self, push: PushRow) -> Result<(), Error> {
        self.run(move |file| {
            let mut put = file.prepare_cached(
                "INSERT OR REPLACE INTO pushes (id, spec, revision, created_at) VALUES (?1, ?2, ?3, ?4)",
            )?;
            put.execute(params![push.id, push.spec, push.revision, push.created_at])?;
            Ok(())
        })
        .await
    }

    /// Forgets a push, if it is there.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn delete_push(&self, id: String) -> Result<(), Error> {
        self.delete("DELETE FROM pushes WHERE id = ?1", id).await
    }

    /// All links by id.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn links(&self) -> Result<Vec<LinkRow>, Error> {
        self.run(|file| {
            let mut all = file.prepare_cached("SELECT * FROM links ORDER BY id")?;
            let rows = all.query_map([], LinkRow::read)?;
            rows.collect()
        })
        .await
    }

    /// Keeps a link in place of the one of its id.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn put_link(&self, link: LinkRow) -> Result<(), Error> {
        self.run(move |file| {
            let mut put =
                file.prepare_cached("INSERT OR REPLACE INTO links (id, body) VALUES (?1, ?2)")?;
            put.execute(params![link.id, link.body])?;
            Ok(())
        })
        .await
    }

    /// Forgets a link, if it is there.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing has changed.
    pub async fn delete_link(&self, id: String) -> Result<(), Error> {
        self.delete("DELETE FROM links WHERE id = ?1", id).await
    }

    async fn delete(&self, statement: &'static str, id: String) -> Result<(), Error> {
        self.run(move |file| {
            file.prepare_cached(statement)?.execute(params![id])?;
            Ok(())
        })
        .await
    }
}

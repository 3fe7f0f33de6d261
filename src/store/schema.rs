//! The schema, as the steps that lead to it. A step that was released is never changed; what is new is a new step.

use rusqlite::{Connection, TransactionBehavior};

use super::Refused;

/// Marks a file as ours: "lkmc". SQLite keeps it in the file's header.
const APPLICATION_ID: i64 = 0x6c6b_6d63;

/// Each step leads from the schema of its index to the next. `user_version` in the file says how many were taken.
const STEPS: &[&str] = &[
    // 1: bans. Times are UNIX milliseconds; AUTOINCREMENT, so that an id once told is never another ban's.
    "CREATE TABLE bans (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        scope TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        note TEXT NOT NULL,
        UNIQUE (kind, subject, scope)
    ) STRICT;",
    // 2: letters to back ends, and epochs whose end they were not told of. Times are UNIX milliseconds; AUTOINCREMENT, so that
    // later letters always have higher ids.
    "CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        lane TEXT NOT NULL,
        account INTEGER NOT NULL,
        body TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        due_at INTEGER NOT NULL,
        dead INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX outbox_lanes ON outbox (dead, lane, id);
    CREATE TABLE epochs (
        sequence TEXT NOT NULL,
        account INTEGER NOT NULL,
        lane TEXT NOT NULL,
        begun_at INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (sequence, account)
    ) STRICT;",
    // 3: since when a letter waits and what became of it last, for whoever looks at those that are dead; and the latest run of the
    // server, a UNIX time in milliseconds that rises even where clocks step back. An account below 0 is a webhook's.
    "ALTER TABLE outbox ADD COLUMN created_at INTEGER NOT NULL DEFAULT 0;
    UPDATE outbox SET created_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000;
    ALTER TABLE outbox ADD COLUMN error TEXT NOT NULL DEFAULT '';
    CREATE TABLE runs (latest INTEGER NOT NULL) STRICT;",
    // 4: mixes, pushes and links as they were asked for. Times are UNIX milliseconds.
    "CREATE TABLE mixes (
        id TEXT PRIMARY KEY,
        scene TEXT NOT NULL,
        revision INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        idle_since INTEGER
    ) STRICT;
    CREATE TABLE pushes (
        id TEXT PRIMARY KEY,
        spec TEXT NOT NULL,
        revision INTEGER NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE links (
        id TEXT PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT;",
];

/// Takes the steps that the file has not taken yet, each whole or not at all.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Refused> {
    steps(connection, STEPS)
}

fn steps(connection: &mut Connection, steps: &[&str]) -> Result<(), Refused> {
    let known = steps.len() as i64;
    // The write lock comes first: whatever is found holds until the steps are taken. Where there is none to take nothing
    // is written, so that a server comes up again on a full disk.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number =
        |name: &str| transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let (id, found): (i64, i64) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = id == 0 && found == 0 && tables == 0;
    if id != APPLICATION_ID && !fresh {
        return Err(Refused::Foreign);
    }
    if found > known {
        return Err(Refused::Newer { found, known });
    }
    // Not negative: a file of ours has only what was written here.
    let taken = usize::try_from(found).map_err(|_| Refused::Foreign)?;
    if found == known {
        return Ok(());
    }
    for step in &steps[taken..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i64 {
        let read = connection.query_row("PRAGMA user_version", [], |row| row.get(0));
        read.unwrap()
    }

    #[test]
    fn each_older_schema_comes_up_to_date_with_what_is_in_it() {
        let later = "ALTER TABLE bans ADD COLUMN author TEXT NOT NULL DEFAULT 'unknown';";
        let all = [STEPS, &[later]].concat();
        for taken in 0..=all.len() {
            let mut file = Connection::open_in_memory().unwrap();
            steps(&mut file, &all[..taken]).unwrap();
            assert_eq!(version(&file), taken as i64);
            if taken > 0 {
                let row = "INSERT INTO bans (kind, subject, scope, created_at, note)
                    VALUES ('stream', 'live/a', 'both', 1, 'kept')";
                file.execute(row, []).unwrap();
            }
            steps(&mut file, &all).unwrap();
            assert_eq!(version(&file), all.len() as i64);
            let (rows, author): (i64, Option<String>) = file
                .query_row("SELECT count(*), max(author) FROM bans", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert_eq!(rows, i64::from(taken > 0));
            assert_eq!(author.is_some(), taken > 0);
            // Once more changes nothing.
            steps(&mut file, &all).unwrap();
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let mut file = Connection::open_in_memory().unwrap();
        steps(&mut file, STEPS).unwrap();
        let broken = [STEPS, &["CREATE TABLE more (x); CREATE TABLE bans (x);"]].concat();
        assert!(matches!(
            steps(&mut file, &broken),
            Err(Refused::Database(_))
        ));
        assert_eq!(version(&file), STEPS.len() as i64);
        let left: i64 = file
            .query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name = 'more'",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn files_of_others_and_of_newer_versions_are_left_alone() {
        let mut newer = Connection::open_in_memory().unwrap();
        steps(&mut newer, &[STEPS, &["CREATE TABLE more (x);"]].concat()).unwrap();
        let refused = steps(&mut newer, STEPS);
        assert!(matches!(
            refused,
            Err(Refused::Newer { found, known }) if (found, known) == (STEPS.len() as i64 + 1, STEPS.len() as i64)
        ));

        let mut foreign = Connection::open_in_memory().unwrap();
        foreign.execute_batch("CREATE TABLE theirs (x);").unwrap();
        assert!(matches!(steps(&mut foreign, STEPS), Err(Refused::Foreign)));
        assert_eq!(version(&foreign), 0);
    }
}

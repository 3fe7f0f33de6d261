use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn row(subject: &str, expires_at: Option<i64>) -> BanRow {
    BanRow {
        id: 0,
        kind: "stream".into(),
        subject: subject.into(),
        scope: "both".into(),
        created_at: 1_000,
        expires_at,
        note: "why".into(),
    }
}

/// Waits until the store before has let go of the directory.
fn until_closed(dir: &Path) {
    while claim(dir).is_err() {
        std::thread::yield_now();
    }
}

/// Opens a store as soon as the one before it has let go of the directory.
fn reopen(dir: &Path) -> Store {
    until_closed(dir);
    Store::open(dir).unwrap()
}

#[tokio::test]
async fn what_was_kept_is_there_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = store.put_ban(row("live/a", None)).await.unwrap();
    let second = store.put_ban(row("live/b", Some(5_000))).await.unwrap();
    assert!(first.id < second.id);
    assert_eq!(
        store.delete_ban(first.id).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(store.delete_ban(first.id).await.unwrap(), None);
    drop(store);
    let store = reopen(dir.path());
    assert_eq!(
        store.bans(4_999).await.unwrap(),
        std::slice::from_ref(&second)
    );
    // An id is never given twice, so a late DELETE cannot hit another ban.
    let third = store.put_ban(row("live/a", None)).await.unwrap();
    assert!(third.id > second.id);
    assert_eq!(
        store.bans(5_000).await.unwrap(),
        std::slice::from_ref(&third)
    );
    store.forget_bans(5_000).await.unwrap();
    assert_eq!(store.bans(0).await.unwrap(), [third]);
}

impl Store {
    /// From now on changes of bans, mixes, pushes and links fail at the commit and no sooner, as they do on a full disk:
    /// each breaks a reference that nothing but the commit looks at.
    pub(crate) async fn refuse_commits(&self) {
        let mut broken = "CREATE TABLE promises (
            to_whom INTEGER REFERENCES bans (id) DEFERRABLE INITIALLY DEFERRED);"
            .to_owned();
        for table in ["bans", "mixes", "pushes", "links"] {
            for change in ["INSERT", "UPDATE", "DELETE"] {
                broken += &format!(
                    "CREATE TRIGGER {table}_{change} AFTER {change} ON {table}
                    BEGIN INSERT INTO promises VALUES (0); END;"
                );
            }
        }
        self.run(move |file| file.execute_batch(&broken))
            .await
            .unwrap();
    }

    /// Takes commits again.
    pub(crate) async fn take_commits(&self) {
        let mut mended = String::new();
        for table in ["bans", "mixes", "pushes", "links"] {
            for change in ["INSERT", "UPDATE", "DELETE"] {
                mended += &format!("DROP TRIGGER {table}_{change};");
            }
        }
        mended += "DROP TABLE promises;";
        self.run(move |file| file.execute_batch(&mended))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_the_commit_does_not_take_is_an_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let kept = [
        store.put_ban(row("live/a", None)).await.unwrap(),
        store.put_ban(row("live/b", Some(5_000))).await.unwrap(),
    ];
    store.refuse_commits().await;
    for _ in 0..3 {
        let changes = [
            store.put_ban(row("live/c", None)).await.map(drop),
            store.put_ban(row("live/a", Some(9_000))).await.map(drop),
            store.delete_ban(kept[0].id).await.map(drop),
            store.forget_bans(5_000).await,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            assert!(change.is_err(), "change {at} is said to be kept");
        }
        assert_eq!(store.bans(0).await.unwrap(), kept);
    }
}

#[tokio::test]
async fn a_file_that_may_not_grow_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .run(|file| file.pragma_update(None, "max_page_count", 16))
        .await
        .unwrap();
    let mut kept = Vec::new();
    let error = loop {
        let long = BanRow {
            note: "x".repeat(500),
            ..row(&format!("live/{}", kept.len()), None)
        };
        match store.put_ban(long).await {
            Ok(row) => kept.push(row),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(store.bans(0).await.unwrap(), kept);
    // What makes room is taken again.
    let gone = kept.remove(0);
    assert_eq!(store.delete_ban(gone.id).await.unwrap(), Some(gone));
    assert_eq!(store.bans(0).await.unwrap(), kept);
}

#[tokio::test]
async fn without_room_for_the_file_beside_it_a_database_is_opened_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put_ban(row("live/a", None)).await.unwrap();
    drop(store);
    until_closed(dir.path());
    // What SQLite shares with other processes cannot be made here. On a full disk that is an I/O error.
    let path = dir.path().join(FILE);
    fs::create_dir(dir.path().join(format!("{FILE}-shm"))).unwrap();
    assert!(prepare(&mut connect(&path).unwrap()).is_err());
    let mut connection = connect(&path).unwrap();
    alone(&mut connection).unwrap();
    let changed = connection.execute("UPDATE bans SET note = 'changed'", []);
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test]
async fn jobs_that_the_disk_refuses_are_counted_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put_ban(row("live/a", None)).await.unwrap();
    assert_eq!(store.failures(), 0);
    let full = "CREATE TRIGGER full BEFORE INSERT ON bans BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";
    store.execute(full).await.unwrap();
    for failed in 1..=3 {
        store.put_ban(row("live/b", None)).await.unwrap_err();
        assert_eq!(store.failures(), failed);
    }
    store.execute("DROP TRIGGER full").await.unwrap();
    store.put_ban(row("live/b", None)).await.unwrap();
    assert_eq!(store.clone().failures(), 3);
}

#[test]
fn a_database_is_opened_alone_for_want_of_room_and_for_nothing_else() {
    use rusqlite::ffi;
    for (code, alone) in [
        (ffi::SQLITE_IOERR_SHMSIZE, true),
        (ffi::SQLITE_IOERR_SHMOPEN, true),
        (ffi::SQLITE_CANTOPEN, true),
        (ffi::SQLITE_FULL, true),
        (ffi::SQLITE_BUSY, false),
        (ffi::SQLITE_CORRUPT, false),
        (ffi::SQLITE_NOTADB, false),
        (ffi::SQLITE_READONLY, false),
    ] {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let refused = Refused::Database(error);
        assert_eq!(refused.is_for_want_of_room(), alone, "{code}");
    }
    assert!(!Refused::Foreign.is_for_want_of_room());
}

#[test]
fn a_start_without_a_step_to_take_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    until_closed(dir.path());
    let path = dir.path().join(FILE);
    let connection = Connection::open(&path).unwrap();
    let version = || -> i64 {
        let read = connection.query_row("PRAGMA data_version", [], |row| row.get(0));
        read.unwrap()
    };
    let before = version();
    drop(Store::open(dir.path()).unwrap());
    until_closed(dir.path());
    assert_eq!(version(), before);
}

#[tokio::test]
async fn the_same_ban_again_changes_the_one_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = store.put_ban(row("live/a", Some(5_000))).await.unwrap();
    let again = BanRow {
        created_at: 2_000,
        expires_at: None,
        note: "still".into(),
        ..row("live/a", None)
    };
    let changed = store.put_ban(again).await.unwrap();
    assert_eq!((changed.id, changed.created_at), (first.id, 1_000));
    assert_eq!((changed.expires_at, changed.note.as_str()), (None, "still"));
    assert_eq!(store.bans(0).await.unwrap().len(), 1);
}

#[test]
fn files_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("made/here");
    let _store = Store::open(&inside).unwrap();
    for (path, mode) in [(inside.clone(), 0o700), (inside.join(FILE), 0o600)] {
        let found = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path:?}");
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_as_it_is() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Damage); 3] = [
        ("no database", |_| {
            b"not a database at all, but text".repeat(100)
        }),
        ("cut short", |whole| whole[..100].to_vec()),
        ("a page overwritten", |whole| {
            let mut bytes = whole.to_vec();
            bytes[4096..6000].fill(0xff);
            bytes
        }),
    ];
    for (case, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..200 {
            store
                .put_ban(row(&format!("live/{n}"), None))
                .await
                .unwrap();
        }
        drop(store);
        until_closed(dir.path());
        let path = dir.path().join(FILE);
        let bytes = damage(&fs::read(&path).unwrap());
        fs::write(&path, &bytes).unwrap();
        let error = Store::open(dir.path()).expect_err(case);
        assert!(matches!(error, Error::Damaged { .. }), "{case}: {error}");
        assert!(
            error.to_string().contains("linkmic.db is damaged"),
            "{error}"
        );
        assert!(fs::read(&path).unwrap() == bytes, "{case}: it was changed");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    until_closed(dir.path());
    let path = dir.path().join(FILE);
    // Permissions do not hold for root, so the connection itself is read only here.
    let mut connection =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let error = prepare(&mut connection).unwrap_err().at(&path);
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    // Where a directory is to be, there is a file.
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Directory { .. }), "{error}");
}

#[test]
fn a_database_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = Connection::open(dir.path().join(FILE)).unwrap();
    theirs.execute_batch("CREATE TABLE theirs (x);").unwrap();
    drop(theirs);
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn a_row_that_is_damaged_does_not_keep_the_others_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for id in ["a", "b"] {
        let mix = MixRow {
            id: id.into(),
            scene: "{}".into(),
            revision: 1,
            created_at: 1_000,
            idle_since: None,
        };
        let push = PushRow {
            id: id.into(),
            spec: "{}".into(),
            revision: 1,
            created_at: 1_000,
        };
        let link = LinkRow {
            id: id.into(),
            body: "{}".into(),
        };
        store.put_mix(mix).await.unwrap();
        store.put_push(push).await.unwrap();
        store.put_link(link).await.unwrap();
    }
    drop(store);
    until_closed(dir.path());
    let file = Connection::open(dir.path().join(FILE)).unwrap();
    let damage = "UPDATE mixes SET scene = CAST(x'7bff' AS TEXT) WHERE id = 'a';
        UPDATE pushes SET spec = CAST(x'7bff' AS TEXT) WHERE id = 'a';
        UPDATE links SET body = CAST(x'7bff' AS TEXT) WHERE id = 'a';";
    file.execute_batch(damage).unwrap();
    drop(file);
    let store = reopen(dir.path());
    let texts: [Vec<String>; 3] = [
        store
            .mixes()
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.scene)
            .collect(),
        store
            .pushes()
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.spec)
            .collect(),
        store
            .links()
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.body)
            .collect(),
    ];
    for all in texts {
        assert_eq!(all, ["{\u{fffd}", "{}"]);
    }
}

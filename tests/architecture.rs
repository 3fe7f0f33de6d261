//! Holds the source to the layers of ARCHITECTURE.md: who may name whom, and who alone may name a library.
//!
//! A small scanner, not a compiler: it strips comments and literals, walks the remaining tokens, and
//! resolves every path that begins with `crate`, `self`, `super` or the crate's own name, through inline
//! modules and nested `use` trees. What it cannot follow (naming the crate root itself, a `#[path]`
//! attribute, a renamed dependency) is a violation, so that there is no way round it by accident.

#[path = "architecture/scanner.rs"]
mod scanner;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use scanner::{paths, tokenise};

/// The rows of the house, top first. A room may use rooms of lower rows; rooms of its own row too,
/// unless the row is marked [`Apart`](Neighbours::Apart).
const ROWS: &[(Neighbours, &[&str])] = &[
    (
        Neighbours::Together,
        &["main", "cli", "demo", "load", "probe"],
    ),
    (Neighbours::Together, &["server", "config"]),
    (Neighbours::Together, &["api", "compat", "links"]),
    (
        Neighbours::Apart,
        &["ingest", "playback", "push", "mixer", "hooks", "capture"],
    ),
    (Neighbours::Apart, &["relay", "auth"]),
    (Neighbours::Together, &["store"]),
    (Neighbours::Together, &["rtmp"]),
    (Neighbours::Together, &["media"]),
    (
        Neighbours::Together,
        &["metrics", "logging", "shutdown", "reason", "net", "memory"],
    ),
];

/// A library that only one room may name.
struct OnlyPlace {
    library: &'static str,
    room: &'static str,
    /// Whether an identifier belongs to the library.
    owns: fn(&str) -> bool,
}

const ONLY_PLACES: &[OnlyPlace] = &[
    OnlyPlace {
        library: "rml_rtmp/rml_amf0",
        room: "rtmp",
        owns: |name| name.starts_with("rml_"),
    },
    OnlyPlace {
        library: "GStreamer",
        room: "mixer",
        owns: |name| name == "gst" || name.starts_with("gst_") || name.starts_with("gstreamer"),
    },
    OnlyPlace {
        library: "rusqlite",
        room: "store",
        owns: |name| name == "rusqlite",
    },
    OnlyPlace {
        library: "anyhow",
        room: "main",
        owns: |name| name == "anyhow",
    },
];

/// The files with one `unsafe`, which say why there.
const UNSAFE: [&str; 2] = ["net/queue.rs", "net/scheduler.rs"];

/// A file longer than this has more than one job.
const MAX_LINES: usize = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbours {
    Together,
    Apart,
}

/// Something a file does that the house forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Violation {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Every violation in the `.rs` files under `src`, in file order.
fn examine(src: &Path) -> Vec<Violation> {
    let mut files = Vec::new();
    collect(src, &mut files);
    files.sort();
    assert!(!files.is_empty(), "no sources under {}", src.display());
    files
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).expect("a source file is readable UTF-8");
            let inside = path.strip_prefix(src).expect("collected under src");
            examine_file(inside, &text)
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn examine_file(inside: &Path, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |line: usize, what: String| {
        found.push(Violation {
            file: inside.to_owned(),
            line,
            what,
        });
    };
    let lines = text.lines().count();
    if lines > MAX_LINES {
        report(lines, format!("{lines} lines, the limit is {MAX_LINES}"));
    }
    let module = module_path(inside);
    // lib.rs is the list of rooms, and belongs to none.
    let room = module.first().map(String::as_str);
    if let Some(room) = room
        && row_of(room).is_none()
    {
        report(
            1,
            format!("room `{room}` has no place in the table of rows"),
        );
    }
    let tokens = tokenise(text);
    let mut unsafes = 0;
    for (at, token) in tokens.iter().enumerate() {
        let Some(name) = token.ident() else { continue };
        for place in ONLY_PLACES {
            if (place.owns)(name) && room != Some(place.room) {
                let OnlyPlace { library, room, .. } = place;
                report(
                    token.line,
                    format!("`{name}`: only `{room}` may name {library}"),
                );
            }
        }
        if name == "unsafe" {
            unsafes += 1;
            if !UNSAFE.iter().any(|file| inside == Path::new(file)) || unsafes > 1 {
                report(
                    token.line,
                    format!(
                        "`unsafe` has no place in this house but once in {}",
                        UNSAFE.join(" and ")
                    ),
                );
            }
        }
        if name == "path" && at >= 2 && tokens[at - 1].is("[") && tokens[at - 2].is("#") {
            report(token.line, "`#[path]` hides where a module lives".into());
        }
    }
    let Some(room) = room else { return found };
    for used in paths(&tokens, &module) {
        match used.target.first() {
            None => report(
                used.line,
                "names the crate root; name the room instead".into(),
            ),
            Some(target) => {
                if let Some(what) = forbidden(room, target) {
                    report(used.line, what);
                }
            }
        }
    }
    found
}

/// `relay/ring.rs` is module `relay::ring`; `main.rs` counts as a room, `lib.rs` is the root.
fn module_path(inside: &Path) -> Vec<String> {
    let mut module: Vec<String> = inside
        .with_extension("")
        .components()
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
        .collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        module.pop();
    }
    module
}

fn row_of(room: &str) -> Option<usize> {
    ROWS.iter().position(|(_, rooms)| rooms.contains(&room))
}

/// Why `room` may not use `target`; `None` when it may.
fn forbidden(room: &str, target: &str) -> Option<String> {
    if room == target {
        return None;
    }
    let Some(below) = row_of(target) else {
        return Some(format!("`crate::{target}` is no room of the table of rows"));
    };
    let own = row_of(room)?;
    if below < own {
        Some(format!(
            "`{room}` uses `{target}`, which is in a row above it"
        ))
    } else if below == own && ROWS[own].0 == Neighbours::Apart {
        Some(format!(
            "`{room}` uses `{target}`, its neighbour; what crosses the row is a trait below it"
        ))
    } else {
        None
    }
}

// ---- the house itself ----------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_room_uses_only_what_its_row_allows() {
    let violations = examine(&root().join("src"));
    let list: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(violations.is_empty(), "\n{}", list.join("\n"));
}

#[test]
fn no_dependency_hides_under_another_name() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let renamed: Vec<&str> = manifest
        .lines()
        .filter(|line| line.contains("package =") && !line.trim_start().starts_with('#'))
        .collect();
    assert!(
        renamed.is_empty(),
        "renamed dependencies escape the rules: {renamed:?}"
    );
}

#[test]
fn every_room_stands_in_exactly_one_row() {
    let mut seen = BTreeSet::new();
    for room in ROWS.iter().flat_map(|(_, rooms)| *rooms) {
        assert!(seen.insert(room), "`{room}` stands in two rows");
    }
}

// ---- the scanner's own tests: a rule that cannot fail is no rule ------------------------------------

/// What [`examine_file`] says about one file of a made-up tree.
fn verdicts(inside: &str, text: &str) -> Vec<String> {
    examine_file(Path::new(inside), text)
        .into_iter()
        .map(|v| v.what)
        .collect()
}

#[test]
fn bad_samples_are_found() {
    let cases = [
        (
            "plain use of a row above",
            "relay/ring.rs",
            "use crate::ingest::Listener;",
        ),
        ("a neighbour", "push/mod.rs", "use crate::playback;"),
        (
            "relay and auth never meet",
            "auth/ring.rs",
            "use crate::relay::Relay;",
        ),
        (
            "nested group",
            "media/gop.rs",
            "use {std::fmt, crate::{reason::Reason, rtmp::url}};",
        ),
        (
            "group with self",
            "rtmp/url.rs",
            "use crate::{relay::{self, Relay}};",
        ),
        ("renamed", "relay/mod.rs", "use crate::api as elsewhere;"),
        (
            "path in an expression",
            "media/mod.rs",
            "fn f() { let x = crate::relay::Relay::new(); }",
        ),
        (
            "path in a type after ->",
            "rtmp/mod.rs",
            "fn f() -> crate::server::Server { g() }",
        ),
        (
            "path in a macro body",
            "rtmp/mod.rs",
            "macro_rules! m { () => { $crate::api::serve() } }",
        ),
        (
            "super from a file of the root",
            "metrics.rs",
            "use super::relay::Relay;",
        ),
        (
            "super twice from a room's file",
            "relay/ring.rs",
            "use super::super::api::Api;",
        ),
        (
            "super out of an inline module",
            "metrics.rs",
            "mod tests { use super::super::relay::Relay; }",
        ),
        (
            "re-export",
            "media/mod.rs",
            "pub(crate) use crate::rtmp::Framed;",
        ),
        (
            "the crate by its own name",
            "config.rs",
            "use linkmic::cli::Args;",
        ),
        (
            "the crate by its own name, absolute",
            "config.rs",
            "fn f() { ::linkmic::cli::run() }",
        ),
        ("glob of the root", "relay/mod.rs", "use crate::*;"),
        ("alias of the root", "relay/mod.rs", "use crate as house;"),
        (
            "glob of the root through super",
            "metrics.rs",
            "use super::*;",
        ),
        ("a room nobody knows", "attic/mod.rs", "fn f() {}"),
        (
            "a target nobody knows",
            "api/mod.rs",
            "use crate::attic::Box;",
        ),
        (
            "rml outside rtmp",
            "ingest/mod.rs",
            "use rml_rtmp::handshake::Handshake;",
        ),
        (
            "rml in an expression",
            "relay/mod.rs",
            "fn f() { rml_amf0::serialize(&v); }",
        ),
        (
            "gstreamer outside mixer",
            "api/mod.rs",
            "use gstreamer as media_framework;",
        ),
        (
            "gst outside mixer",
            "demo/mod.rs",
            "fn f() { gst::init(); }",
        ),
        (
            "a gst crate outside mixer",
            "push/mod.rs",
            "use gstreamer_app::AppSrc;",
        ),
        (
            "anyhow outside main",
            "cli.rs",
            "fn f() -> anyhow::Result<()> { Ok(()) }",
        ),
        ("unsafe", "rtmp/mod.rs", "fn f() { unsafe { g() } }"),
        (
            "a second unsafe",
            UNSAFE[0],
            "fn f() { unsafe { g() } } fn h() { unsafe { g() } }",
        ),
        (
            "a module from elsewhere",
            "rtmp/mod.rs",
            "#[path = \"../api/mod.rs\"] mod other;",
        ),
        (
            "after a lifetime",
            "media/mod.rs",
            "fn f<'a>(x: &'a str) { crate::relay::f(x) }",
        ),
        (
            "after a quote character",
            "media/mod.rs",
            "fn f() { g('\"'); crate::relay::f(\"\") }",
        ),
        (
            "after a raw string",
            "media/mod.rs",
            "fn f() { g(r#\"a\"b\"#); crate::relay::f() }",
        ),
        (
            "after a nested comment",
            "media/mod.rs",
            "/* a /* b */ c */ use crate::relay;",
        ),
        (
            "inside a test module",
            "media/mod.rs",
            "#[cfg(test)] mod tests { use crate::relay::Relay; }",
        ),
    ];
    for (name, file, text) in cases {
        assert!(!verdicts(file, text).is_empty(), "{name} went unseen");
    }
}

#[test]
fn good_samples_pass() {
    let cases = [
        (
            "a row below",
            "ingest/mod.rs",
            "use crate::{auth::Key, relay::{self, Relay}, rtmp};",
        ),
        (
            "own room",
            "relay/ring.rs",
            "use super::{Config, item::Item}; use crate::relay::policy;",
        ),
        (
            "neighbours that may",
            "server.rs",
            "use crate::config::Config;",
        ),
        (
            "inline module",
            "metrics.rs",
            "mod tests { use super::*; fn f() { super::g() } }",
        ),
        (
            "after an inline module",
            "metrics.rs",
            "mod a { mod b { use super::X; } use super::Y; } use self::a::Z;",
        ),
        (
            "comment",
            "media/mod.rs",
            "//! Used by `crate::relay`.\n/// unsafe gst::init\nfn f() {}",
        ),
        (
            "string",
            "media/mod.rs",
            "fn f() { g(\"use crate::relay; \\\" unsafe\") }",
        ),
        (
            "raw string",
            "media/mod.rs",
            "fn f() { g(r##\"\"# crate::relay unsafe\"##) }",
        ),
        (
            "byte string",
            "media/mod.rs",
            "fn f() { g(b\"crate::relay\", b'\"', br\"unsafe\") }",
        ),
        (
            "visibility",
            "media/mod.rs",
            "pub(crate) fn f(&self) {} pub(in crate::media) fn g() {}",
        ),
        ("the one unsafe", UNSAFE[1], "fn f() { unsafe { g() } }"),
        (
            "lint name",
            "lib.rs",
            "#![forbid(unsafe_code)] pub mod relay;",
        ),
        (
            "the right places",
            "rtmp/handshake.rs",
            "use rml_rtmp::handshake;",
        ),
        (
            "the right places, mixer",
            "mixer/pipeline.rs",
            "use gstreamer as gst; use gst::prelude::*;",
        ),
        (
            "anyhow in main",
            "main.rs",
            "fn main() -> anyhow::Result<()> { linkmic::cli::run() }",
        ),
        (
            "another crate's module of that name",
            "media/mod.rs",
            "use other::relay; fn f() { tokio::relay::f() }",
        ),
    ];
    for (name, file, text) in cases {
        assert_eq!(verdicts(file, text), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_file_that_grows_too_long_is_found() {
    assert_eq!(
        verdicts("media/mod.rs", &"\n".repeat(MAX_LINES)),
        Vec::<String>::new()
    );
    assert_eq!(
        verdicts("media/mod.rs", &"\n".repeat(MAX_LINES + 1)).len(),
        1
    );
}

#[test]
fn a_forbidden_import_in_a_tree_on_disk_is_found_with_its_place() {
    let tree = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(tree.path().join("relay")).expect("a directory");
    std::fs::write(tree.path().join("lib.rs"), "pub mod relay;\n").expect("lib.rs");
    std::fs::write(
        tree.path().join("relay/mod.rs"),
        "//! The hall.\n\nuse crate::api::Api;\n",
    )
    .expect("mod.rs");
    let found = examine(tree.path());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        found[0].to_string(),
        "relay/mod.rs:3: `relay` uses `api`, which is in a row above it"
    );
}

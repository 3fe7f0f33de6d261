//! Everything in deploy/, run where it can be run and held to its own words where it cannot: the unit under a real systemd, the
//! package by dpkg, the examples for proxies in front of a server, the container and the cluster by what reads their files.

mod cluster;
mod container;
#[cfg(feature = "mixer")]
mod machine;
#[cfg(feature = "mixer")]
mod package;
mod proxies;
#[cfg(feature = "mixer")]
mod service;
mod unit;

use std::path::{Path, PathBuf};

/// A path of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the repository.
fn shipped(path: &str) -> String {
    let path = repository(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The text with one piece replaced that must be in it: where an example is changed, the test has to be.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in\n{text}");
    text.replace(from, to)
}

//! `./run soak` itself, with a cargo that only looks like one: what its exit code says.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs it with programs of the test's own instead of cargo and dpkg-query, which has everything installed.
fn soak(cargo: &str, options: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, does) in [("cargo", cargo), ("dpkg-query", "printf installed")] {
        program(&folder, name, does);
    }
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", folder.path().display());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("bash");
    command.arg(root.join("run")).arg("soak").args(options);
    command.env("PATH", path).env_remove("LINKMIC_SOAK_REPORT");
    command.output().expect("bash")
}

fn program(folder: &TempDir, name: &str, does: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    let file = folder.path().join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{does}\n")).expect("written");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&file, executable).expect("executable");
}

/// Both reports, in the folder that it is told.
const WRITES: &str =
    "for kind in txt json; do echo new >\"$LINKMIC_SOAK_REPORT/report.$kind\"; done";

#[test]
fn a_soak_that_leaves_no_report_has_failed_also_where_an_old_one_lies() {
    for (what, cargo, code) in [
        ("it passes", WRITES, 0),
        ("no test of that name", "exit 0", 1),
        ("something is wrong", &format!("{WRITES}; exit 101"), 1),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let old = folder.path().join("report.json");
        std::fs::write(&old, "old").expect("written");
        let reports = folder.path().display().to_string();
        let ended = soak(cargo, &["--report", &reports]);
        assert_eq!(ended.status.code(), Some(code), "{what}: {ended:?}");
        let left = std::fs::read_to_string(&old).unwrap_or_default();
        assert_ne!(left, "old", "{what}");
    }
}

#[test]
fn options_are_read_before_anything_is_installed_or_built() {
    for (options, code) in [
        (&["--help"][..], 0),
        (&["--hours", "1"], 2),
        (&["--minutes"], 2),
    ] {
        let ended = soak("echo cargo ran", options);
        assert_eq!(ended.status.code(), Some(code), "{options:?}: {ended:?}");
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(!said.contains("cargo ran"), "{options:?}: {said}");
    }
}

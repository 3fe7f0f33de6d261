//! What only some machines give a test: where it is missing the test is left out, and the whole run's output says so.

use std::fmt::Display;
use std::io::Write;

/// Set where tests that only root can run must not be left out: networks and mounts of their own.
pub const ROOT: &str = "LINKMIC_NETWORK";
/// Set where tests that need a machine of their own must not be left out; all of them mix.
#[cfg(feature = "mixer")]
pub const MACHINE: &str = "LINKMIC_SYSTEMD";

/// What the test `what` needs, if it is there; `lacks` says what is not, where it is not.
///
/// # Panics
/// When it is missing and the variable `insists` is set.
pub fn given<T>(
    found: Result<T, impl Display>,
    insists: &str,
    what: &str,
    lacks: &str,
) -> Option<T> {
    let why = match found {
        Ok(found) => return Some(found),
        Err(why) => why.to_string(),
    };
    let insisted = std::env::var_os(insists).is_some_and(|value| !value.is_empty());
    assert!(!insisted, "{insists} is set, and {lacks} for {what}: {why}");
    // Not `println!`, which is shown of failed tests only.
    let line = format!("\nnot run: {what}: {lacks} ({})\n", why.trim());
    let _ = std::io::stderr().write_all(line.as_bytes());
    None
}

//! Secrets: each stands in the configuration, or in a file of its own that the configuration names.
//!
//! A file is how a service manager hands over what nobody else may read (systemd's credentials, a mounted secret of a
//! cluster). It is read whenever the configuration is, so that a reload takes a new one. Messages have its path and never
//! what is in it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ::config::{Value, ValueKind};

use super::read::absolute;
use super::reader::{Parsed, non_empty};
use crate::auth::Secret;

/// The only key of a table that stands where a secret is expected.
const FILE: &str = "file";
/// No secret is longer; a path that leads to something else by mistake is not read to its end.
const MAX_BYTES: u64 = 4096;

/// A string, or `{ file = "/path" }`: the text of that file without the white space around it.
pub(super) fn secret(value: &Value) -> Parsed<Secret> {
    if let ValueKind::Table(table) = &value.kind {
        let named = table.get(FILE).filter(|_| table.len() == 1);
        let path =
            named.ok_or("expected a string, or { file = \"/path\" } and nothing beside it")?;
        return kept(&absolute(path)?);
    }
    let text = non_empty(value)?;
    if text.trim() != text {
        return Err("begins or ends with white space".to_owned());
    }
    Ok(Secret::new(text))
}

fn kept(path: &Path) -> Parsed<Secret> {
    let shown = path.display();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("{shown} exceeds the limit of {MAX_BYTES} bytes"));
    }
    match text.trim() {
        "" => Err(format!("{shown} is empty")),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Env, TokenSource};

    const SECRET: &str = "0123456789abcdef";

    /// Every kind of place where a secret can stand.
    const EVERYWHERE: &str = r#"
        control.token = FILE
        [auth]
        push_keys = [{ id = "a", secret = FILE }]
        [[apps.live.push]]
        match = "*"
        url = "rtmp://cdn.example/live/{stream}"
        sign = { secret = FILE, expires_in = "1h" }
        [hooks]
        authorize = { url = "https://b/may", secret = FILE }
        webhooks = [{ url = "https://b/e", secret = FILE, events = ["publish"] }]
        [[compat.accounts]]
        appid = 1251000001
        api_key = FILE
        secret_id = "AKID"
        secret_key = FILE
        callback_url = "https://b/cb"
        callback_key = FILE
    "#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "test", &Env::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_secret_may_stand_in_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, format!("  {SECRET}\n")).unwrap();
        let file = format!("{{ file = \"{}\" }}", path.display());
        let by_file = parse(&EVERYWHERE.replace("FILE", &file)).unwrap();
        let in_place = parse(&EVERYWHERE.replace("FILE", &format!("\"{SECRET}\""))).unwrap();
        assert_eq!(by_file, in_place);
        assert!(!format!("{by_file:?}").contains(SECRET));
        let TokenSource::Given(token) = by_file.control.token else {
            panic!("a token that was given");
        };
        assert_eq!(token.expose(), SECRET);
    }

    #[test]
    fn the_environment_can_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, SECRET).unwrap();
        let keys = format!(
            "[{{ id = \"a\", secret = {{ file = \"{}\" }} }}]",
            path.display()
        );
        let env: Env = [
            ("LINKMIC__CONTROL__TOKEN__FILE", path.to_str().unwrap()),
            ("LINKMIC__AUTH__PUSH_KEYS", &keys),
        ]
        .into_iter()
        .collect();
        let config = Config::parse("", "test", &env).unwrap();
        assert_eq!(config.auth.push_keys[0].secret.expose(), SECRET);
        let TokenSource::Given(token) = config.control.token else {
            panic!("a token that was given");
        };
        assert_eq!(token.expose(), SECRET);
    }

    #[test]
    fn a_file_that_gives_no_secret_is_named_and_what_is_in_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("empty"), " \n").unwrap();
        std::fs::write(path("long"), SECRET.repeat(257)).unwrap();
        std::fs::write(path("bytes"), b"0123456789\xff\xfe").unwrap();
        for (value, message) in [
            (
                format!("{{ file = \"{}\" }}", path("none")),
                format!("cannot read {}: No such file", path("none")),
            ),
            (
                format!("{{ file = \"{}\" }}", path("empty")),
                format!("{} is empty", path("empty")),
            ),
            (
                format!("{{ file = \"{}\" }}", path("long")),
                "exceeds the limit of 4096 bytes".to_owned(),
            ),
            (
                format!("{{ file = \"{}\" }}", path("bytes")),
                format!(
                    "cannot read {}: stream did not contain valid",
                    path("bytes")
                ),
            ),
            (
                "{ file = \"secret\" }".to_owned(),
                "secret is not an absolute path".to_owned(),
            ),
            (
                "{ path = \"/secret\" }".to_owned(),
                "expected a string, or { file = \"/path\" } and nothing beside it".to_owned(),
            ),
            (
                "{ file = \"/secret\", mode = 1 }".to_owned(),
                "and nothing beside it".to_owned(),
            ),
            (
                "5".to_owned(),
                "expected a string, found a whole number".to_owned(),
            ),
        ] {
            let said = parse(&format!("control.token = {value}")).unwrap_err();
            assert!(
                said.starts_with("control.token: ") && said.contains(&message),
                "{value}: {said}"
            );
            assert!(!said.contains(SECRET), "{said}");
        }
    }
}

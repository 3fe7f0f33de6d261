//! `[compat]`: accounts, pictures, and what cannot be meant.

use super::*;
use crate::compat::{Picture, Shape};

const ACCOUNT: &str = "appid = 1\napi_key = \"0123456789abcdef\"\n";

fn account(more: &str) -> String {
    format!("[[compat.accounts]]\n{more}\n")
}

#[test]
fn an_account_is_read_with_what_is_left_out() {
    let text = format!(
        "[compat]\nlisten = \"127.0.0.1:8090\"\n\
         pictures = {{ 10 = \"/etc/logo.png\", 11 = \"https://cdn.example/a.png?sign=x\" }}\n{}{}",
        account(ACCOUNT),
        account(
            "appid = 2\nsecret_id = \"AKIDa\"\nsecret_key = \"0123456789abcdef\"\nstream_prefix = \"8888_\"\n\
             callback_url = \"http://backend/cb\"\ncallback_key = \"another-0123456789\""
        ),
    );
    let compat = parse(&text).unwrap().compat;
    assert_eq!(compat.listen.len(), 1);
    assert!(!compat.url_mixes, "off unless it is asked for");
    assert_eq!(compat.merge_stream, Shape::Own);
    assert_eq!(compat.pictures[&10], Picture::File("/etc/logo.png".into()));
    assert!(matches!(compat.pictures[&11], Picture::Url(_)));
    let [first, second] = &compat.accounts[..] else {
        panic!("{:?}", compat.accounts);
    };
    assert_eq!((first.appid, first.app.as_str()), (1, "live"));
    assert!(first.credentials.is_none() && first.stream_prefix.is_empty());
    assert_eq!(second.stream_prefix, "8888_");
    let key = second
        .callback
        .as_ref()
        .map(|callback| callback.key.expose());
    assert_eq!(key, Some("another-0123456789"));
    assert!(!format!("{compat:?}").contains("0123456789"));
}

#[test]
fn accounts_and_pictures_that_cannot_be_meant_are_mistakes() {
    for (text, expected) in [
        (
            account("appid = 1"),
            "compat.accounts[0].api_key: is missing, and so are secret_id and secret_key; nobody could sign",
        ),
        (
            account("appid = 0\napi_key = \"a\""),
            "compat.accounts[0].appid: 0 is not within 1 to 9999999999",
        ),
        (
            account("appid = 1\nsecret_id = \"a\""),
            "compat.accounts[0].secret_key: is missing; a secret_id needs its secret_key",
        ),
        (
            account("appid = 1\nsecret_id = \"a/b\"\nsecret_key = \"x\""),
            "compat.accounts[0].secret_id: has white space, a slash or a comma\n\
             compat.accounts[0].secret_id: is missing; a secret_key needs its secret_id",
        ),
        (
            account(&format!("{ACCOUNT}app = \"film\"")),
            "compat.accounts[0].app: no application \"film\" is configured; there are: live",
        ),
        (
            account(&format!("{ACCOUNT}stream_prefix = \"a b\"")),
            "compat.accounts[0].stream_prefix: \"a b\" is not the beginning of a stream's name: up to 128 of A-Z a-z 0-9 _ . -",
        ),
        (
            account(&format!("{ACCOUNT}callback_url = \"ftp://backend/cb\"")),
            "compat.accounts[0].callback_url: scheme \"ftp\" is neither http nor https",
        ),
        (
            account(
                "appid = 1\nsecret_id = \"a\"\nsecret_key = \"x\"\ncallback_url = \"http://backend/cb\"",
            ),
            "compat.accounts[0].callback_key: is missing, and so is api_key; one of them signs callbacks",
        ),
        (
            account(ACCOUNT) + &account(ACCOUNT),
            "compat.accounts[1].appid: the same as compat.accounts[0].appid",
        ),
        (
            "[compat]\nurl_mixes = \"yes\"\nmerge_stream = \"theirs\"".to_owned(),
            "compat.merge_stream: \"theirs\" is none of \"own\", \"hosted\"\n\
             compat.url_mixes: expected true or false, found a string",
        ),
        (
            "[compat]\nlisten = \"127.0.0.1:1\"".to_owned(),
            "compat.listen: no account is configured, so nobody could call; name them in [[compat.accounts]]",
        ),
        (
            format!(
                "[control]\nlisten = \"127.0.0.1:1\"\n[compat]\nlisten = \"127.0.0.1:1\"\n{}",
                account(ACCOUNT)
            ),
            "compat.listen: 127.0.0.1:1 is taken by control.listen",
        ),
        (
            "[compat]\npictures = { logo = \"/a.png\", 10 = \"a.png\", 11 = \"ftp://h/a.png\" }"
                .to_owned(),
            "compat.pictures.10: a.png is not an absolute path\n\
             compat.pictures.11: pictures are files, or fetched by http or https\n\
             compat.pictures.logo: not a picture's number, like 10",
        ),
    ] {
        assert_eq!(mistakes(&text, &none()).join("\n"), expected, "{text}");
    }
}

#[test]
fn what_others_can_reach_or_find_is_warned_of() {
    let text = format!(
        "[compat]\nlisten = \"0.0.0.0:8090\"\n{}",
        account("appid = 1\napi_key = \"short\"")
    );
    let config = parse(&text).unwrap();
    let paths: Vec<_> = config
        .warnings()
        .into_iter()
        .map(|remark| remark.path)
        .collect();
    for path in ["compat.listen", "compat.accounts[0].api_key"] {
        assert!(paths.iter().any(|found| found == path), "{paths:?}");
    }
}

//! `[hooks]`: what it may say, and what is a mistake.

use super::*;
use crate::hooks::{Kind, OnFailure, Style};

const WEBHOOK: &str = "[[hooks.webhooks]]\nsecret = \"0123456789abcdef\"\n";

#[test]
fn webhooks_and_the_authorize_hook_are_read() {
    let text = "[hooks]\nca_file = \"/etc/ca.pem\"\n\
        webhooks = [{ url = \"https://b/e?k=1\", secret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZg==\", events = [\"publish\", \"link\"] }]\n\
        authorize = { url = \"http://b/may\", style = \"srs\", timeout = \"500ms\", on_failure = \"allow\" }";
    let hooks = parse(text).unwrap().hooks;
    assert_eq!(hooks.webhooks[0].kinds, [Kind::Publish, Kind::Link]);
    assert_eq!(hooks.webhooks[0].address.to_string(), "https://b/e?***");
    let ask = hooks.authorize.unwrap();
    assert_eq!((ask.style, ask.on_failure), (Style::Srs, OnFailure::Allow));
    assert_eq!(ask.patience, Duration::from_millis(500));
    let short = parse("[hooks.authorize]\nurl = \"http://b/may\"").unwrap();
    let ask = short.hooks.authorize.unwrap();
    assert_eq!(
        (ask.style, ask.on_failure),
        (Style::Native, OnFailure::Deny)
    );
    assert_eq!(ask.patience, Duration::from_secs(2));
}

#[test]
fn mistakes_are_named_with_their_paths_and_without_secrets() {
    let webhook = |more: &str| format!("{WEBHOOK}{more}\n");
    for (text, mistake) in [
        (
            webhook("url = \"http://b/\"\nevents = [\"publish\", \"end\"]"),
            "hooks.webhooks[0].events: \"end\" is none of publish, unpublish, play, mix, input, push, link",
        ),
        (
            webhook("url = \"http://b/\"\nevents = []"),
            "hooks.webhooks[0].events: the list is empty; there would be nothing to tell",
        ),
        (
            webhook("url = \"http://b/\"\nevents = [\"mix\", \"mix\"]"),
            "hooks.webhooks[0].events: \"mix\" stands twice",
        ),
        (
            webhook("url = \"http://u:hunter2@b/\"\nevents = [\"mix\"]"),
            "hooks.webhooks[0].url: has a user name or password",
        ),
        (
            webhook("url = \"http://b/\"\nevents = [\"mix\"]").repeat(2),
            "hooks.webhooks[1].url: the same as hooks.webhooks[0].url; give one of them all events",
        ),
        (
            "[[hooks.webhooks]]\nurl = \"http://b/\"\nevents = \"mix\"\nsecret = \"whsec_hunter2!\"".to_owned(),
            "hooks.webhooks[0].secret: what stands behind whsec_ is no base64",
        ),
        (
            "[hooks.authorize]\nstyle = \"srs\"".to_owned(),
            "hooks.authorize.url: is missing",
        ),
        (
            "[hooks.authorize]\nurl = \"http://b/\"\ntimeout = \"1m\"".to_owned(),
            "hooks.authorize.timeout: 1m is not within 10ms to 8s",
        ),
    ] {
        assert_eq!(mistakes(&text, &none()), [mistake], "{text}");
    }
}

#[test]
fn letting_in_without_an_answer_questions_in_the_open_and_short_secrets_are_remarked() {
    let text = "[hooks]\nwebhooks = [{ url = \"http://b/\", secret = \"short\", events = \"mix\" }]\n\
        authorize = { url = \"http://b/\", on_failure = \"allow\" }";
    let remarks = parse(text).unwrap().warnings();
    let paths: Vec<_> = remarks.iter().map(|r| r.path.as_str()).collect();
    for path in [
        "hooks.authorize.on_failure",
        "hooks.authorize.url",
        "hooks.webhooks[0].secret",
    ] {
        assert!(paths.contains(&path), "{paths:?}");
    }
}

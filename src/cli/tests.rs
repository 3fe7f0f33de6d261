use super::*;

const KEYS: &str = r#"
    [auth]
    push_keys = [{ id = "main", secret = "f3313e36c611150119f5d04ff1225b3e" },
                 { id = "backup", secret = "e12c46f2612d5106e2034781ab261ca3" }]
"#;

struct Ran {
    result: Result<Outcome, Error>,
    out: String,
}

/// Runs a command line in which FILE stands for a file with `config`.
async fn run(config: &str, line: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("linkmic.toml");
    std::fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    let line = line
        .iter()
        .map(|&arg| if arg == "FILE" { file } else { arg });
    let cli = Cli::try_parse_from(std::iter::once("linkmic").chain(line)).unwrap();
    let mut out = Vec::new();
    let result = cli.run(&Env::default(), &mut out).await;
    let out = String::from_utf8(out).unwrap().replace(file, "FILE");
    Ran { result, out }
}

async fn signed(config: &str, more: &[&str]) -> Result<String, Error> {
    let line = [
        "url",
        "sign",
        "--config",
        "FILE",
        "--stream",
        "8888_streamA",
    ];
    let ran = run(config, &[&line, more].concat()).await;
    ran.result.map(|_| ran.out.trim_end().to_owned())
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[tokio::test]
async fn check_names_every_mistake_and_fails() {
    let ran = run(
        "[rtmp]\nlisten = \"here\"\n[auth]\npush = 1\n",
        &["check", "--config", "FILE"],
    )
    .await;
    assert_eq!(ran.result.unwrap(), Outcome::Negative);
    assert_eq!(
        ran.out,
        "mistake: auth.push: expected a string, found a whole number\n\
         mistake: rtmp.listen: \"here\" is not an address with port, like \"0.0.0.0:1935\" or \"[::]:1935\"\n\
         FILE: 2 mistakes\n"
    );
    let ran = run("[rtmp\n", &["check", "--config", "FILE"]).await;
    assert_eq!(ran.result.unwrap(), Outcome::Negative);
    assert!(
        ran.out
            .starts_with("mistake: FILE: TOML parse error at line 1"),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn check_passes_with_its_warnings() {
    let ran = run("", &["check", "--config", "FILE"]).await;
    assert_eq!(ran.result.unwrap(), Outcome::Done);
    assert!(
        ran.out.starts_with("warning: auth.push_keys: no push key"),
        "{}",
        ran.out
    );
    assert!(ran.out.ends_with("\nFILE: ok, 1 warning\n"), "{}", ran.out);
    let ran = run(KEYS, &["check", "--config", "FILE"]).await;
    assert_eq!(ran.out, "FILE: ok, no warnings\n");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_ends_other_commands_with_code_2() {
    let missing = ["check", "--config", "/nonexistent/linkmic.toml"];
    let error = run("", &missing).await.result.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error
            .to_string()
            .contains("cannot read /nonexistent/linkmic.toml"),
        "{error}"
    );
    let error = run("colour = 1", &["serve", "--config", "FILE"]).await;
    let error = error.result.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().contains("\ncolour: unknown key"),
        "{error}"
    );
}

#[tokio::test]
async fn a_signed_url_opens_what_it_was_signed_for() {
    let push = signed(KEYS, &["--action", "push"]).await.unwrap();
    assert!(
        push.starts_with("rtmp://127.0.0.1:1935/live/8888_streamA?txSecret="),
        "{push}"
    );
    let ran = run(KEYS, &["url", "verify", "--config", "FILE", &push]).await;
    assert_eq!(ran.result.unwrap(), Outcome::Done);
    assert_eq!(
        ran.out,
        "publish: granted: publish, signed with key \"main\"\n\
         play: granted: play the source feed, class low_latency, signed with key \"main\"\n"
    );

    let peers = format!("{KEYS}\npeer_keys = [{{ id = \"p\", secret = \"0123456789abcdef\" }}]");
    let peer = signed(
        &peers,
        &["--action", "peer", "--base", "rtmp://edge.example:1940/"],
    )
    .await;
    let peer = peer.unwrap();
    assert!(
        peer.starts_with("rtmp://edge.example:1940/live/8888_streamA?"),
        "{peer}"
    );
    let ran = run(&peers, &["url", "verify", "--config", "FILE", &peer]).await;
    assert_eq!(
        ran.out,
        "publish: refused (signature_wrong): the URL is signed with a peer key, which does not open publishing\n\
         play: granted: play the source feed, class low_latency, signed with key \"p\"\n"
    );

    let view = signed(KEYS, &["--action", "view"]).await.unwrap();
    assert_eq!(view, "rtmp://127.0.0.1:1935/live/8888_streamA");
    let ran = run(
        KEYS,
        &[
            "url", "verify", "--config", "FILE", &view, "--action", "play",
        ],
    )
    .await;
    assert_eq!(
        ran.out,
        "play: granted: play the program feed, class viewer, no signature needed\n"
    );
    let line = [
        "url", "verify", "--config", "FILE", &view, "--action", "publish",
    ];
    let ran = run(KEYS, &line).await;
    assert_eq!(ran.result.unwrap(), Outcome::Negative);
}

#[tokio::test]
async fn verify_says_why_not() {
    // The vendor's printed sample, long expired.
    let old = "rtmp://h/live/8888_streamA?bizid=8888&txSecret=3bc85763bddab40be60c838174f53e03&txTime=593B719C";
    let ran = run(KEYS, &["url", "verify", "--config", "FILE", old]).await;
    assert_eq!(ran.result.unwrap(), Outcome::Negative);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 2);
    for (line, verb) in lines.iter().zip(["publish", "play"]) {
        let front = format!("{verb}: refused (signature_expired): txTime expired ");
        assert!(
            line.starts_with(&front) && line.ends_with(" s ago"),
            "{line}"
        );
    }
    let elsewhere = ["url", "verify", "--config", "FILE", "rtmp://h/film/a"];
    let ran = run(KEYS, &elsewhere).await;
    assert_eq!(ran.result.unwrap(), Outcome::Negative);
    assert_eq!(
        ran.out,
        "refused (unknown_app): no application \"film\" is configured; there are: live\n"
    );
    let ran = run(
        KEYS,
        &["url", "verify", "--config", "FILE", "live/a?txSecret=x"],
    )
    .await;
    let error = ran.result.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(!error.to_string().contains("txSecret"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_signed_is_said() {
    for (config, more, expected) in [
        (
            "",
            &["--action", "push"][..],
            "no push key is configured to sign with",
        ),
        (
            KEYS,
            &["--action", "push", "--key", "x"],
            "no push key has the id \"x\"; there are: main, backup",
        ),
        (
            KEYS,
            &["--action", "push", "--app", "film"],
            "no application \"film\" is configured; there are: live",
        ),
        (
            KEYS,
            &["--action", "push", "--base", "http://h"],
            "--base does not begin with rtmp:// or rtmps://",
        ),
        (
            KEYS,
            &["--action", "push", "--base", "rtmp://h/live"],
            "--base is to be scheme, host and port only; --app and --stream give the rest",
        ),
    ] {
        let error = signed(config, more).await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.exit_code()),
            (expected, 2)
        );
    }
}

#[test]
fn the_local_address_follows_the_listener() {
    for (listen, expected) in [
        ("0.0.0.0:1940", "127.0.0.1:1940"),
        ("[::]:1940", "[::1]:1940"),
        ("192.0.2.7:1935", "192.0.2.7:1935"),
    ] {
        let mut config = Config::defaults(&Env::default());
        config.rtmp.listen = vec![listen.parse().unwrap()];
        assert_eq!(local_address(&config).to_string(), expected);
    }
}

#[test]
fn bench_commands_are_read_and_mistakes_in_them_refused() {
    let parse =
        |line: &str| Cli::try_parse_from(["linkmic", "bench"].into_iter().chain(line.split(' ')));
    for line in [
        "run rtmp://127.0.0.1/live/a",
        "run rtmp://127.0.0.1/live/a --streams 2 --players 10 --rate 50 --pid 1,2 --duration 5s",
        "publish rtmp://127.0.0.1/live/a --file clip.flv",
        "publish rtmp://127.0.0.1/live/a --fps 60 --gop 120 --kbps 6000 --sign-key x",
        "play tcp://127.0.0.1:19350 --players 10 --sample 2 --threads 2 --warmup 500ms",
        "floor --players 10 --merge-window 33ms --audio-at-once",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
    for line in [
        "run",
        "play rtmp://127.0.0.1/live/a --players 0",
        "play rtmp://127.0.0.1/live/a --rate 0",
        "publish rtmp://127.0.0.1/live/a --fps 0",
        "publish rtmp://127.0.0.1/live/a --file clip.flv --kbps 100",
        "floor --merge-window 33",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[tokio::test]
async fn a_bench_of_nothing_says_what_is_wrong_without_the_signature() {
    let ran = run("", &["bench", "publish", "tcp://127.0.0.1:9"]).await;
    assert!(
        ran.result
            .unwrap_err()
            .to_string()
            .contains("nobody can publish")
    );
    let ran = run(
        "",
        &["bench", "play", "http://127.0.0.1/live/a?txSecret=abc"],
    )
    .await;
    let error = ran.result.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(!error.to_string().contains("abc"), "{error}");
    let line = [
        "linkmic",
        "bench",
        "run",
        "rtmp://h/live/a?txSecret=abc",
        "--sign-key",
        "def",
    ];
    let shown = format!("{:?}", Cli::try_parse_from(line).unwrap());
    assert!(!shown.contains("abc") && !shown.contains("def"), "{shown}");
}

#[tokio::test]
async fn check_opens_the_certificate_and_its_key_and_says_what_is_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(at(&format!("{name}.pem")), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(at(&format!("{name}.key")), key).unwrap();
    };
    make("one");
    make("other");
    std::fs::write(at("text"), "neither").unwrap();
    // Not readable even by root, who may read any file.
    std::fs::create_dir(at("folder")).unwrap();
    for (certificate, key, mistake) in [
        ("one.pem", "one.key", None),
        (
            "none.pem",
            "one.key",
            Some("rtmps.certificate: cannot read the certificate"),
        ),
        (
            "folder",
            "one.key",
            Some("rtmps.certificate: cannot read the certificate"),
        ),
        (
            "text",
            "one.key",
            Some("rtmps.certificate: there is no certificate in"),
        ),
        (
            "one.key",
            "one.key",
            Some("rtmps.certificate: there is no certificate in"),
        ),
        (
            "one.pem",
            "none.key",
            Some("rtmps.key: cannot read the private key"),
        ),
        (
            "one.pem",
            "folder",
            Some("rtmps.key: cannot read the private key"),
        ),
        (
            "one.pem",
            "text",
            Some("rtmps.key: cannot read the private key"),
        ),
        (
            "one.pem",
            "one.pem",
            Some("rtmps.key: cannot read the private key"),
        ),
        ("one.pem", "other.key", Some("rtmps.key: the private key")),
    ] {
        let name = format!("{certificate} with {key}");
        let text = format!(
            "{KEYS}\n[rtmps]\nlisten = \"127.0.0.1:1936\"\ncertificate = \"{}\"\nkey = \"{}\"",
            at(certificate),
            at(key)
        );
        let ran = run(&text, &["check", "--config", "FILE"]).await;
        let Some(mistake) = mistake else {
            assert_eq!(ran.out, "FILE: ok, no warnings\n", "{name}");
            assert_eq!(ran.result.unwrap(), Outcome::Done, "{name}");
            continue;
        };
        assert_eq!(ran.result.unwrap(), Outcome::Negative, "{name}");
        assert!(
            ran.out.starts_with(&format!("mistake: {mistake}")),
            "{name}: {}",
            ran.out
        );
        assert!(
            ran.out.ends_with("FILE: 1 mistake\n"),
            "{name}: {}",
            ran.out
        );
        let told = if mistake.starts_with("rtmps.key") {
            key
        } else {
            certificate
        };
        assert!(ran.out.contains(&at(told)), "{name}: {}", ran.out);
        assert!(!ran.out.contains("BEGIN"), "{name}: {}", ran.out);
    }
    for (file, mistake) in [
        ("one.pem", None),
        ("none.pem", Some("cannot read the certificate authorities")),
        ("folder", Some("cannot read the certificate authorities")),
        ("one.key", Some("there is no certificate in")),
    ] {
        let text = format!("{KEYS}\n[push]\nca_file = \"{}\"", at(file));
        let out = run(&text, &["check", "--config", "FILE"]).await.out;
        match mistake {
            None => assert_eq!(out, "FILE: ok, no warnings\n"),
            Some(mistake) => {
                let told = format!("mistake: push.ca_file: {mistake} ");
                assert!(out.starts_with(&told) && out.contains(&at(file)), "{out}");
            }
        }
    }
}

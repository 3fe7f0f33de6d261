//! A start that fails: one line that says what and where, and the exit code by which a service manager knows whether trying again helps.

use std::path::Path;

use tokio::net::TcpListener;

#[cfg(feature = "mixer")]
use super::run::plugins_without;
use super::run::{Place, finished, read_only, small_disk, texts, under};

/// What a start says that ends by itself: its exit code, and the one line that is no log.
async fn refused(starter: &[&str], place: &Place, variables: Vec<(&str, String)>) -> (i32, String) {
    let config = place.config();
    let mut command = under(starter, &["serve", "--config", &config]);
    command.envs(variables);
    let output = finished(command).await;
    let (_, errors) = texts(&output);
    let lines: Vec<_> = errors
        .lines()
        .filter(|line| !line.starts_with('{'))
        .collect();
    let [line] = lines[..] else {
        panic!("not one line:\n{errors}");
    };
    assert!(line.starts_with("linkmic: "), "{errors}");
    (output.status.code().expect("no signal"), line.to_owned())
}

fn assert_says(said: &(i32, String), code: i32, words: &[&str]) {
    assert_eq!(said.0, code, "{said:?}");
    for words in words {
        assert!(said.1.contains(words), "{words:?} is not in {said:?}");
    }
}

#[tokio::test]
async fn a_bad_configuration_ends_the_start_with_its_mistakes_and_2() {
    let place = Place::new("", "[limits]\nconnections = \"many\"", |text| text);
    let config = place.config();
    let output = finished(under(&[], &["serve", "--config", &config])).await;
    let (_, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(2));
    // A headline, then a line for each mistake.
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(
        lines[0].contains("the configuration cannot be used"),
        "{errors}"
    );
    assert!(lines[1].starts_with("limits.connections: "), "{errors}");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let listen = |text: String| text.replacen("127.0.0.1:0", &address, 1);
    let said = refused(&[], &Place::new("", "", listen), Vec::new()).await;
    assert_says(
        &said,
        1,
        &["rtmp.listen", &address, "Address already in use"],
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named_with_its_file() {
    let place = |certificate: &Path| {
        let more = format!(
            "[rtmps]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{0}\"\nkey = \"{0}\"",
            certificate.display()
        );
        Place::new("", &more, |text| text)
    };
    let said = refused(&[], &place(Path::new("/nowhere/cert.pem")), Vec::new()).await;
    assert_says(&said, 1, &["rtmps: ", "/nowhere/cert.pem", "No such file"]);
    // It is there, and no certificate.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cert.pem");
    std::fs::write(&file, "nothing of the kind").expect("a file");
    let said = refused(&[], &place(&file), Vec::new()).await;
    assert_says(&said, 1, &["rtmps: ", "cert.pem"]);
    // Root may read anything; a directory nobody can.
    let said = refused(&[], &place(folder.path()), Vec::new()).await;
    assert_says(&said, 1, &["rtmps: ", &folder.path().display().to_string()]);
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_named() {
    let place = Place::plain();
    let state = place.path("state");
    std::fs::create_dir(&state).expect("a folder");
    let path = state.display().to_string();
    if let Some(starter) = read_only(&state) {
        let starter: Vec<_> = starter.iter().map(String::as_str).collect();
        let said = refused(&starter, &place, Vec::new()).await;
        assert_says(&said, 1, &[&path]);
        let lower = said.1.to_lowercase();
        assert!(
            lower.contains("read-only") || lower.contains("cannot be written"),
            "{said:?}"
        );
    }
    std::fs::remove_dir(&state).expect("it was there");
    std::fs::write(&state, "").expect("a file");
    let said = refused(&[], &place, Vec::new()).await;
    assert_says(&said, 1, &[&path]);
}

#[tokio::test]
async fn a_disk_without_room_for_the_state_is_named() {
    let place = Place::plain();
    let state = place.path("state");
    std::fs::create_dir(&state).expect("a folder");
    // Two pages: the lock's file fits, the database does not.
    if let Some(starter) = small_disk(&state, 8) {
        let starter: Vec<_> = starter.iter().map(String::as_str).collect();
        let said = refused(&starter, &place, Vec::new()).await;
        assert_says(&said, 1, &[&state.display().to_string(), "full"]);
    }
}

#[cfg(feature = "mixer")]
#[tokio::test]
async fn a_plugin_that_is_missing_is_named_with_its_package() {
    let place = Place::plain();
    let variables = plugins_without(&["x264"], place.folder.path());
    let said = refused(&[], &place, variables).await;
    assert_says(
        &said,
        1,
        &[
            "x264enc is missing",
            "apt-get install gstreamer1.0-plugins-ugly",
        ],
    );
}

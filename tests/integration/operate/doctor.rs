//! `linkmic doctor`: on a machine that is well, and for each thing that can be made to be wrong.

use std::process::Output;

use serde_json::Value;
use tokio::net::TcpListener;

#[cfg(feature = "mixer")]
use super::run::plugins_without;
use super::run::{Place, command, finished, read_only, small_disk, texts, under};

fn findings(output: &Output) -> Vec<Value> {
    let (said, errors) = texts(output);
    let report: Value =
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}{errors}"));
    let findings = report["findings"].as_array().expect("a list").clone();
    // The numbers and the exit code say the same.
    for state in ["ok", "warn", "bad"] {
        let count = findings.iter().filter(|one| one["state"] == state).count();
        assert_eq!(report[state], count, "{report:#}");
    }
    let bad = findings.iter().any(|one| one["state"] == "bad");
    assert_eq!(output.status.code(), Some(i32::from(bad)), "{report:#}");
    findings
}

/// What is said of the thing whose name begins so.
fn of<'a>(findings: &'a [Value], area: &str, name: &str) -> &'a Value {
    let is_it = |one: &&Value| {
        let named = one["name"]
            .as_str()
            .is_some_and(|text| text.starts_with(name));
        one["area"] == area && named
    };
    let found = findings.iter().find(is_it);
    found.unwrap_or_else(|| panic!("nothing of {area} {name}: {findings:#?}"))
}

async fn examine(starter: &[&str], place: &Place) -> Vec<Value> {
    let config = place.config();
    let doctor = under(starter, &["doctor", "--json", "--config", &config]);
    findings(&finished(doctor).await)
}

fn text<'a>(finding: &'a Value, field: &str) -> &'a str {
    finding[field].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_machine_on_which_the_server_runs_has_nothing_that_is_bad() {
    let place = Place::plain();
    std::fs::create_dir(place.path("state")).expect("a folder");
    let findings = examine(&[], &place).await;
    // What the clock of this machine is like is not ours to say.
    let bad = findings
        .iter()
        .filter(|one| one["state"] == "bad" && one["area"] != "clock");
    assert_eq!(bad.collect::<Vec<_>>(), [&Value::Null; 0], "{findings:#?}");
    for (area, name) in [
        ("config", ""),
        ("limits", "open files"),
        ("limits", "threads"),
        ("limits", "locked memory"),
        ("clock", "synchronised"),
        ("ports", "rtmp.listen 127.0.0.1:0"),
        ("ports", "control.listen"),
        ("kernel", "net.core.somaxconn"),
        ("kernel", "net.core.wmem_max"),
        ("kernel", "net.ipv4.ip_local_port_range"),
        ("kernel", "scheduler"),
        ("disk", "state.dir"),
        ("disk", "room"),
    ] {
        of(&findings, area, name);
    }
    let disk = of(&findings, "disk", "state.dir");
    assert!(text(disk, "found").contains("keeps a line in"), "{disk}");
    #[cfg(feature = "mixer")]
    {
        let x264 = of(&findings, "plugins", "x264");
        assert_eq!(
            (text(x264, "state"), text(x264, "found")),
            ("ok", "x264enc encodes")
        );
        for name in ["nvenc", "vaapi", "qsv"] {
            assert_ne!(text(of(&findings, "plugins", name), "state"), "bad");
        }
    }
    // Nothing is left behind.
    let left = std::fs::read_dir(place.path("state"))
        .expect("a folder")
        .count();
    assert_eq!(left, 0);
    // And for people: a line each, advice below it.
    let (said, _) = texts(&finished(command(&["doctor", "--config", &place.config()])).await);
    assert!(
        said.lines()
            .any(|line| line.starts_with("ok    ports    rtmp.listen 127.0.0.1:0: free")),
        "{said}"
    );
    assert!(said.trim_end().ends_with("bad"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_free_or_ours_or_bad_with_the_name_of_who_has_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("bound");
    let listen = |text: String| {
        text.replacen(
            "listen = \"127.0.0.1:0\"",
            &format!("listen = \"{address}\""),
            1,
        )
    };
    let findings = examine(&[], &Place::new("", "", listen)).await;
    let port = of(&findings, "ports", &format!("rtmp.listen {address}"));
    assert_eq!(text(port, "state"), "bad");
    let own = format!("process {}", std::process::id());
    assert!(
        text(port, "found").starts_with("taken by ") && text(port, "found").ends_with(&own),
        "{port}"
    );
    assert!(text(port, "advice").contains("another address"), "{port}");
    drop(taken);

    let server = Place::plain().serve().await;
    let listen = |text: String| {
        text.replacen(
            "listen = \"127.0.0.1:0\"",
            &format!("listen = \"{}\"", server.urls.rtmp()),
            1,
        )
    };
    let findings = examine(&[], &Place::new("", "", listen)).await;
    let port = of(&findings, "ports", "rtmp.listen");
    assert_eq!(text(port, "state"), "ok", "{port}");
    let id = server.child.id().expect("it runs");
    assert_eq!(
        text(port, "found"),
        format!("taken by a linkmic that runs, process {id}")
    );
}

#[tokio::test]
async fn too_few_open_files_are_bad_and_fewer_than_connections_a_warning() {
    // Those need 1,334.
    let place = Place::new("", "[limits]\nconnections = 1000", |text| text);
    for (files, state) in [("512", "bad"), ("1100", "warn"), ("2048", "ok")] {
        let limit = format!("--nofile={files}:{files}");
        let findings = examine(&["prlimit", &limit], &place).await;
        let finding = of(&findings, "limits", "open files");
        assert_eq!(text(finding, "state"), state, "{finding}");
        assert_eq!(finding["advice"].is_string(), state != "ok", "{finding}");
    }
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_or_has_no_room_is_bad() {
    let place = Place::plain();
    let state = place.path("state");
    // Where a directory is to be, there is a file.
    std::fs::write(&state, "").expect("a file");
    let findings = examine(&[], &place).await;
    let disk = of(&findings, "disk", "state.dir");
    assert_eq!(text(disk, "state"), "bad", "{disk}");
    std::fs::remove_file(&state).expect("it was there");
    std::fs::create_dir(&state).expect("a folder");
    for (starter, name, words) in [
        (read_only(&state), "state.dir", "Read-only file system"),
        (small_disk(&state, 256), "room", "0 MiB free"),
    ] {
        let Some(starter) = starter else { continue };
        let starter: Vec<_> = starter.iter().map(String::as_str).collect();
        let findings = examine(&starter, &place).await;
        let disk = of(&findings, "disk", name);
        assert_eq!(text(disk, "state"), "bad", "{disk}");
        assert!(text(disk, "found").contains(words), "{disk}");
        assert!(disk["advice"].is_string(), "{disk}");
    }
}

#[tokio::test]
async fn mistakes_of_the_configuration_and_files_that_it_names_are_bad() {
    let place = Place::new(
        "",
        "[rtmps]\nlisten = \"127.0.0.1:0\"\ncertificate = \"/nowhere.pem\"\nkey = \"/nowhere.key\"",
        |text| text,
    );
    let findings = examine(&[], &place).await;
    let finding = of(&findings, "config", "rtmps.certificate");
    assert_eq!(text(finding, "state"), "bad", "{finding}");
    let place = Place::new("", "[limits]\nconnections = \"many\"", |text| text);
    let findings = examine(&[], &place).await;
    let finding = of(&findings, "config", "limits.connections");
    assert_eq!(text(finding, "state"), "bad", "{finding}");
}

#[cfg(feature = "mixer")]
#[tokio::test]
async fn a_plugin_that_is_missing_is_bad_and_its_package_is_named() {
    let place = Place::plain();
    let mut doctor = command(&["doctor", "--json", "--config", &place.config()]);
    doctor.envs(plugins_without(&["x264"], place.folder.path()));
    let findings = findings(&finished(doctor).await);
    let plugin = of(&findings, "plugins", "gstreamer1.0-plugins-ugly");
    assert_eq!(text(plugin, "state"), "bad");
    assert!(
        text(plugin, "found").contains("x264enc is missing"),
        "{plugin}"
    );
    assert!(
        text(plugin, "found").contains("apt-get install gstreamer1.0-plugins-ugly"),
        "{plugin}"
    );
    assert_eq!(text(of(&findings, "plugins", "x264"), "state"), "bad");
    assert_eq!(
        text(of(&findings, "plugins", "gstreamer1.0-libav"), "state"),
        "ok"
    );
}

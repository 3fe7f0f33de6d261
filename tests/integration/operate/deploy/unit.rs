//! The units, by what systemd-analyze reads in them: no systemd has to run for that.

use std::time::Duration;

use linkmic::probe::process::output;

use super::{replaced, repository, shipped};

const PATIENCE: Duration = Duration::from_secs(30);

/// What the unit may score at most, of 10: it has 1.3, what systemd calls "ok" ends at 2, and an ordinary service has 9.
const MOST_EXPOSURE: f64 = 1.4;
/// By the names of the unit's sockets: what the binary calls its listeners.
const LISTENERS: [&str; 6] = ["rtmp", "rtmps", "http", "https", "control", "compat"];

#[tokio::test]
async fn the_service_is_as_confined_as_it_says() {
    let unit = repository("deploy/systemd/linkmic.service");
    let unit = unit.display().to_string();
    let words = ["security", "--offline=true", "--no-pager", &unit];
    let said = output("systemd-analyze", &words, PATIENCE).await;
    let said = String::from_utf8(said.expect("systemd-analyze")).expect("text");
    let (_, score) = said
        .split_once("Overall exposure level for linkmic.service: ")
        .unwrap_or_else(|| panic!("no score in\n{said}"));
    let score = score.split(' ').next().and_then(|text| text.parse().ok());
    let score: f64 = score.expect("a number");
    println!("exposure {score}");
    assert!(score <= MOST_EXPOSURE, "{said}");
}

#[tokio::test]
async fn systemd_understands_every_line_of_every_unit() {
    // Its program is installed elsewhere on this machine.
    let folder = tempfile::tempdir().expect("a folder");
    let binary = env!("CARGO_BIN_EXE_linkmic");
    let mut units = Vec::new();
    let mut add = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        units.push(path.display().to_string());
    };
    let service = shipped("deploy/systemd/linkmic.service");
    add(
        "linkmic.service",
        &replaced(&service, "/usr/bin/linkmic", binary),
    );
    let instances = shipped("deploy/systemd/linkmic@.service");
    add(
        "linkmic@.service",
        &replaced(&instances, "/usr/bin/linkmic", binary),
    );
    for name in LISTENERS {
        let file = format!("linkmic-{name}.socket");
        let text = shipped(&format!("deploy/systemd/{file}"));
        // Without the right name the binary would not know what it was given.
        for line in [
            format!("\nFileDescriptorName={name}\n"),
            "\nService=linkmic.service\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{file} has no line {line:?}");
        }
        add(&file, &text);
    }
    let shipped: Vec<_> = std::fs::read_dir(repository("deploy/systemd"))
        .expect("a folder")
        .filter_map(|entry| entry.expect("a file").file_name().into_string().ok())
        .filter(|name| name.ends_with(".socket"))
        .collect();
    assert_eq!(shipped.len(), LISTENERS.len(), "{shipped:?}");
    let words: Vec<&str> = ["verify", "--man=no"]
        .into_iter()
        .chain(units.iter().map(String::as_str))
        .collect();
    // It complains on standard error and may succeed all the same.
    let said = std::process::Command::new("systemd-analyze")
        .args(&words)
        .output()
        .expect("systemd-analyze");
    let complaints = String::from_utf8_lossy(&said.stderr);
    let ours: Vec<_> = complaints
        .lines()
        .filter(|line| line.contains("linkmic"))
        .collect();
    assert!(said.status.success() && ours.is_empty(), "{complaints}");
}

#[test]
fn instances_that_take_over_are_confined_like_the_service() {
    let lines = |file: &str| -> Vec<String> {
        let text = shipped(&format!("deploy/systemd/{file}"));
        let lines = text.lines().filter(|line| !line.is_empty());
        let lines = lines.filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let (service, instance) = (lines("linkmic.service"), lines("linkmic@.service"));
    let sockets = LISTENERS.map(|name| format!("linkmic-{name}.socket"));
    let sockets = sockets.join(" ");
    // Together with them linkmic.service would come back beside the instance.
    let (apart, instance): (Vec<_>, Vec<_>) = instance
        .into_iter()
        .partition(|line| line.contains(".socket"));
    assert_eq!(
        apart,
        [format!("Conflicts={sockets}"), format!("After={sockets}")]
    );
    assert_eq!(service.len(), instance.len());
    let differ = service.iter().zip(&instance).filter(|(a, b)| a != b);
    let differ: Vec<_> = differ.map(|(_, instance)| instance.as_str()).collect();
    assert_eq!(
        differ,
        [
            "Description=linkmic, RTMP edge and mixing server (%i)",
            "ExecStart=/usr/bin/linkmic serve --config /etc/linkmic/linkmic.toml --take-over",
        ]
    );
}

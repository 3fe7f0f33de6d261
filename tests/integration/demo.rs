//! `linkmic demo --once` as a process: what people run first has to work, and has to fail when it does not.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The whole play on a busy machine.
const PLAY: Duration = Duration::from_secs(300);

async fn demo(path: Option<&str>) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_linkmic"));
    command
        .args(["demo", "--once", "--out"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = tokio::time::timeout(PLAY, command.output())
        .await
        .expect("it ends by itself")
        .expect("it starts");
    if output.status.success() {
        for file in ["mix.png", "program.flv"] {
            let bytes = std::fs::metadata(folder.path().join(file)).map_or(0, |m| m.len());
            assert!(bytes > 1000, "{file} has {bytes} bytes");
        }
    }
    output
}

#[tokio::test]
async fn the_demo_sees_every_step_work() {
    let output = demo(None).await;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(
        output.status.success(),
        "{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!text.contains('✘'), "a failed step and yet success");
    assert!(!text.contains('\x1b'), "colours outside a terminal");
    for step in [
        "publishing",
        "peers",
        "viewer",
        "push",
        "mix",
        "sound",
        "latency of the mix",
        "CDN",
        "picture",
        "recording",
        "end of the mix",
    ] {
        assert!(text.contains(&format!("✔ {step}:")), "no step {step:?}");
    }
}

#[tokio::test]
async fn without_its_programs_the_demo_says_what_is_missing_and_fails() {
    let output = demo(Some("/nonexistent")).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("✘ publishing") && text.contains("apt-get install ffmpeg"),
        "{text}"
    );
}

#[tokio::test]
async fn a_demo_that_stays_up_ends_well_at_ctrl_c() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_linkmic"))
        .args(["demo", "--out"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let ended = tokio::time::timeout(PLAY, async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains("Ctrl-C ends it") {
                break;
            }
        }
        let id = demo.id().expect("it stays up").to_string();
        let kill = Command::new("kill").args(["-INT", &id]).status();
        assert!(kill.await.expect("kill").success());
        demo.wait().await.expect("its status")
    });
    let status = ended.await.expect("it plays and ends");
    assert!(status.success(), "{status}");
}

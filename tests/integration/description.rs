//! The API against its own description: schemathesis (`tests/requirements.txt`) reads what the server serves, sends what
//! that allows and what it does not, and judges every answer by it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use linkmic::probe::http::Client;
use tokio::process::Command;
use tokio::time::timeout;

use crate::edge::client;
use crate::edge::house::{House, TOKEN};

/// Cases for each endpoint, besides those at the edges of each field.
const CASES: &str = "15";
/// Longer than this takes even a machine that is busy; it is killed then.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_answers_as_its_description_says() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/python");
    assert!(
        tools.join("schemathesis").exists(),
        "schemathesis is missing; ./run test installs it"
    );
    let house = House::open().await;
    // Something to be shown: somebody who publishes, and somebody who plays.
    let url = house.urls.push("8888_streamA");
    let _publisher = client::Client::publish(&url).await.expect("granted");
    let url = house.urls.peer("8888_streamA");
    let _player = client::Client::play(&url).await.expect("granted");

    let address = house.control.address();
    let folder = tempfile::tempdir().expect("a folder");
    let run = Command::new("python3")
        .args([
            "-c",
            "from schemathesis.cli import schemathesis; schemathesis()",
            "run",
        ])
        .arg(format!("http://{address}/api/v1/openapi.json"))
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        // What a schema allows may still make no sense: a stream that nobody publishes, two fields that exclude each other.
        .args([
            "--checks",
            "all",
            "--exclude-checks",
            "positive_data_acceptance",
        ])
        // Its answer has no end.
        .args(["--exclude-path", "/api/v1/events"])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", CASES, "--generation-deterministic"])
        .args(["--no-color", "--continue-on-failure"])
        .args(["--warnings", "off", "--request-timeout", "20"])
        // Without the mixer they say so with 501, and nothing else.
        .args(match cfg!(feature = "mixer") {
            true => &[][..],
            false => &["--exclude-tag", "mixes"],
        })
        .current_dir(folder.path())
        .env("PYTHONPATH", &tools)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3");
    let ended = timeout(PATIENCE, run.wait_with_output()).await;
    let ended = ended.expect("within its time").expect("it ends");
    let said = String::from_utf8_lossy(&ended.stdout);
    println!("{said}");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{errors}");

    // And it is still the same server.
    let open = Client::new(address, None);
    assert_eq!(open.get("/readyz").await.expect("an answer").status, 200);
    let refused = open.get("/api/v1/streams").await.expect("an answer");
    assert_eq!(refused.status, 401);
}

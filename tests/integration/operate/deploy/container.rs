//! The container's files: no image is built here, for want of an engine. The Dockerfile is read by hadolint, what it copies is tried by
//! cargo, the plugins that it keeps by a mix, and the files beside it by who reads them.

use std::path::Path;
use std::time::Duration;

use linkmic::config::{Config, Env};
use linkmic::probe::process::output;
use serde_json::Value;

use super::{replaced, repository, shipped};

const PATIENCE: Duration = Duration::from_secs(60);
const DOCKERFILE: &str = "deploy/docker/Dockerfile";
/// Where ./run test puts programs and libraries from PyPI, hadolint among them.
const TOOLS: &str = "target/test-tools/python";
const HADOLINT: &str = "target/test-tools/python/bin/hadolint";

/// The words of every `COPY` of the stage that builds.
fn copied() -> Vec<String> {
    let text = shipped(DOCKERFILE);
    let build = text.split("\nFROM ").nth(1).expect("a stage that builds");
    let copies = build.lines().filter_map(|line| line.strip_prefix("COPY "));
    copies
        .flat_map(|words| {
            let words: Vec<_> = words.split(' ').collect();
            // The last one says where to.
            let files = &words[..words.len() - 1];
            files
                .iter()
                .map(|word| word.to_string())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test]
async fn hadolint_has_nothing_to_say_about_the_dockerfile() {
    let tool = repository(HADOLINT).display().to_string();
    let file = repository(DOCKERFILE).display().to_string();
    let said = output(&tool, &[&file], PATIENCE).await;
    said.unwrap_or_else(|e| panic!("{e}; ./run test installs {HADOLINT}"));
}

#[tokio::test]
async fn the_image_is_built_of_files_that_are_enough_and_not_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = copied();
    let ignored = shipped("deploy/docker/Dockerfile.dockerignore");
    assert!(ignored.lines().any(|line| line == "*"));
    for file in files.iter().map(String::as_str).chain(["config"]) {
        let kept = format!("!{file}");
        assert!(
            ignored.lines().any(|line| line == kept),
            "{kept} is missing"
        );
    }
    for file in &files {
        let copy = std::process::Command::new("cp")
            .arg("-r")
            .args([&repository(file), folder.path()])
            .output()
            .expect("cp");
        assert!(copy.status.success(), "{copy:?}");
    }
    // Cargo refuses a manifest that names a target which is not there, and a lock file that it would have to change.
    let manifest = folder.path().join("Cargo.toml").display().to_string();
    let words = "fetch --locked --offline --target";
    let mut words: Vec<&str> = words.split(' ').collect();
    // What other systems need is not there offline.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    words.extend([&platform, "--manifest-path", &manifest]);
    let known = output("cargo", &words, PATIENCE).await;
    known.unwrap_or_else(|e| panic!("{e}"));
    // What the sources take in at compile time must be among them too.
    for source in rust_files(&folder.path().join("src")) {
        let text = std::fs::read_to_string(&source).expect("a source");
        let live = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_test = source.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part == "tests" || part == "tests.rs"
        });
        for piece in live.split("include_str!(\"").skip(1).filter(|_| !is_test) {
            let name = piece.split('"').next().expect("a name");
            let path = source.parent().expect("a folder").join(name);
            assert!(path.exists(), "{} takes in {name}", source.display());
        }
    }
}

fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn configurations_for_containers_and_clusters_are_valid() {
    for file in [
        "deploy/compose/linkmic.toml",
        "deploy/kubernetes/base/linkmic.toml",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut text = shipped(file);
        let secrets = match file {
            "deploy/compose/linkmic.toml" => "/run/secrets",
            _ => "/run/secrets/linkmic",
        };
        for (name, secret) in [
            ("token", "control-0123456789abcdef"),
            ("push", "push-0123456789abcdef"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, secret).expect("written");
            text = replaced(
                &text,
                &format!("\"{secrets}/{name}\""),
                &format!("\"{}\"", path.display()),
            );
        }
        let config = Config::parse(&text, file, &Env::default());
        let config = config.unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(config.auth.push_keys.len(), 1, "{file}");
    }
}

#[tokio::test]
async fn prometheus_takes_the_configuration_beside_the_container() {
    // What it names is mounted in the container; here it lies elsewhere.
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("token"), "control-0123456789abcdef").expect("written");
    let text = shipped("deploy/compose/prometheus.yml");
    let text = replaced(&text, "/run/secrets/token", &at("token"));
    let rules = repository("dashboards/rules").display().to_string();
    let text = replaced(&text, "/etc/prometheus/rules", &rules);
    std::fs::write(at("prometheus.yml"), text).expect("written");
    let file = at("prometheus.yml");
    let said = output("promtool", &["check", "config", &file], PATIENCE).await;
    let said = String::from_utf8(said.unwrap_or_else(|e| panic!("{e}"))).expect("text");
    // A pattern that finds nothing is no mistake to Prometheus.
    let there = std::fs::read_dir(&rules).map_or(0, |files| {
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        names.filter(|name| name != "tests.yml").count()
    });
    let found = said.matches("rules found").count();
    assert_eq!(found, there, "{said}");
}

/// compose.yaml, as any reader of YAML sees it.
async fn compose() -> Value {
    let read = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let file = repository("deploy/compose/compose.yaml");
    let tools = format!("PYTHONPATH={}", repository(TOOLS).display());
    let file = file.display().to_string();
    let read = output("env", &[&tools, "python3", "-c", read, &file], PATIENCE).await;
    serde_json::from_slice(&read.unwrap_or_else(|e| panic!("{e}"))).expect("JSON")
}

/// The items of a list, as texts.
fn texts(list: &Value) -> Vec<&str> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn compose_mounts_what_is_there_and_declares_what_it_uses() {
    let compose = compose().await;
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        for mount in texts(&service["volumes"]) {
            let source = mount.split(':').next().expect("a source");
            if source.starts_with('.') {
                // What others put there comes with them.
                let there = repository("deploy/compose").join(source);
                let later =
                    source.starts_with("../../dashboards") && !repository("dashboards").exists();
                assert!(there.exists() || later, "{name}: {source}");
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name}: {source}");
            }
        }
        for secret in texts(&service["secrets"]) {
            assert!(
                compose["secrets"][secret]["file"].is_string(),
                "{name}: {secret}"
            );
        }
        for other in texts(&service["depends_on"]) {
            assert!(services.contains_key(other), "{name}: {other}");
        }
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
    }
    let own = &services["linkmic"];
    assert_eq!(own["read_only"], true);
    let build =
        repository("deploy/compose").join(own["build"]["context"].as_str().expect("a folder"));
    let file = own["build"]["dockerfile"].as_str().expect("a file");
    assert!(build.join(file).exists(), "{file}");
    // The API is for this host alone, however the container listens.
    let api = texts(&own["ports"])
        .into_iter()
        .find(|port| port.ends_with(":1985"));
    assert_eq!(api, Some("127.0.0.1:1985:1985"));
    // Prometheus asks where that is.
    assert!(shipped("deploy/compose/prometheus.yml").contains("\"linkmic:1985\""));
}

/// The plugins that the image keeps, alone: a folder with links to them.
#[cfg(feature = "mixer")]
fn kept_plugins(folder: &Path) {
    let text = shipped(DOCKERFILE);
    let (_, list) = text.split_once("ARG PLUGINS=\"").expect("a list");
    let (list, _) = list.split_once('"').expect("its end");
    let machine = std::env::consts::ARCH;
    for plugin in list.split(' ') {
        let file = format!("libgst{plugin}.so");
        let installed = format!("/usr/lib/{machine}-linux-gnu/gstreamer-1.0/{file}");
        assert!(
            Path::new(&installed).exists(),
            "there is no plugin {plugin}: {installed}"
        );
        std::os::unix::fs::symlink(installed, folder.join(file)).expect("a link");
    }
}

#[cfg(feature = "mixer")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plugins_that_the_image_keeps_are_enough_for_a_mix() {
    use linkmic::probe::publisher::Show;
    use linkmic::probe::{Colour, Size};
    use serde_json::json;

    use crate::abuse::binary::Binary;
    use crate::studio;

    let _place = studio::place().await;
    let folder = tempfile::tempdir().expect("a folder");
    kept_plugins(folder.path());
    let plugins = format!("GST_PLUGIN_SYSTEM_PATH_1_0={}", folder.path().display());
    let registry = format!(
        "GST_REGISTRY={}",
        folder.path().join("registry.bin").display()
    );
    // A still picture is decoded too.
    let still = folder.path().join("still.png");
    let still = still.display().to_string();
    let make = format!("-v error -f lavfi -i color=red:s=64x64 -frames:v 1 {still}");
    let make: Vec<&str> = make.split(' ').collect();
    output("ffmpeg", &make, PATIENCE).await.expect("a picture");
    let pictures = format!("[mixer]\npictures = {{ still = \"{still}\" }}");
    let mut server = Binary::serve_under(&["env", &plugins, &registry], &pictures).await;
    let show = |colour, tone| Show {
        size: Size::new(320, 480),
        ..Show::sub(colour, tone)
    };
    let mut anchors = Vec::new();
    for (name, show) in [
        ("a", show(Colour::BLUE, 400.0)),
        ("b", show(Colour::RED, 600.0)),
    ] {
        anchors.push(studio::publish(&server.urls, &server.control, name, &show).await);
    }
    let mix = json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 200, "y": 300, "width": 100, "height": 150},
            {"picture": {"file": "still"}, "layer": 3, "x": 10, "y": 10, "width": 64, "height": 64},
        ],
        "output": {"stream": "a"},
    });
    let put = server.control.put("/api/v1/mixes/m", &mix).await;
    studio::succeeded(put.expect("an answer"));
    let mixed = linkmic::probe::process::poll("a mix of both", PATIENCE, || async {
        let mix = server.control.get("/api/v1/mixes/m").await.ok()?.json();
        (mix["stats"]["frames_out"].as_i64()? > 20).then_some(())
    });
    mixed
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", server.said()));
    let said = server.said();
    assert!(
        !said.contains("not installed") && !said.contains("apt-get"),
        "{said}"
    );
    server.end().await;
    for anchor in anchors {
        anchor.stop().await;
    }
}

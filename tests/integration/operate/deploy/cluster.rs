//! The manifests for Kubernetes: rendered by kubectl, held to the schemas of the oldest and the newest version that the schemas are
//! known of, and to each other. No cluster runs here.

use std::process::Stdio;
use std::time::Duration;

use linkmic::config::{Config, Env};
use serde_json::Value;

use super::{repository, shipped};

/// Where ./run test puts the schemas; the versions of Kubernetes that they are of.
const SCHEMAS: &str = "target/test-tools/python/kubernetes_validate/kubernetes-json-schema";
const VERSIONS: [&str; 2] = ["v1.25.0-local-strict", "v1.37.0-local-strict"];
const BASE: &str = "deploy/kubernetes/base";

/// Every document of the base, once the schemas have nothing against it.
fn rendered() -> Vec<Value> {
    let rendered = std::process::Command::new("kubectl")
        .arg("kustomize")
        .arg(repository(BASE))
        .output()
        .expect("kubectl; Debian: kubernetes-client");
    assert!(rendered.status.success(), "{rendered:?}");
    judged(&rendered.stdout).unwrap_or_else(|complaints| panic!("{complaints}"))
}

/// The documents in a text of YAML, or what the schemas have against them.
fn judged(text: &[u8]) -> Result<Vec<Value>, String> {
    let schemas = VERSIONS.map(|version| repository(SCHEMAS).join(version));
    let mut judge = std::process::Command::new("python3")
        .arg(repository("tests/integration/operate/deploy/manifests.py"))
        .args(schemas)
        .env("PYTHONPATH", repository("target/test-tools/python"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = judge.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, text).expect("it reads");
    drop(stdin);
    let judged = judge.wait_with_output().expect("it ends");
    if !judged.status.success() {
        return Err(String::from_utf8_lossy(&judged.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&judged.stdout).expect("a list"))
}

/// The only document of a kind with a name.
fn one<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = all
        .iter()
        .filter(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    let one = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "more than one {kind} {name}");
    one
}

/// Are all of `wanted`'s labels among `labels`?
fn selects(wanted: &Value, labels: &Value) -> bool {
    let wanted = wanted.as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn manifests_render_and_fit_the_schemas_of_kubernetes_1_25_and_1_37() {
    let all = rendered();
    let kinds: Vec<_> = all.iter().filter_map(|one| one["kind"].as_str()).collect();
    for kind in [
        "StatefulSet",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
        "ConfigMap",
    ] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    // The judge sees what is wrong.
    let text = shipped(&format!("{BASE}/stateful-set.yaml"));
    for (right, wrong, complaint) in [
        ("replicas: 1", "replicas: one", "spec/replicas"),
        (
            "readOnlyRootFilesystem",
            "readOnlyRootFileSystem",
            "readOnlyRootFileSystem",
        ),
    ] {
        let text = super::replaced(&text, right, wrong);
        let said = judged(text.as_bytes()).expect_err(wrong);
        assert!(said.contains(complaint), "{wrong}: {said}");
    }
}

#[test]
fn manifests_speak_of_the_same_pod_ports_and_secrets() {
    let all = rendered();
    let set = &one(&all, "StatefulSet", "linkmic")["spec"];
    let pod = &set["template"];
    let labels = &pod["metadata"]["labels"];
    let container = &pod["spec"]["containers"][0];
    let ports: Vec<_> = container["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| port["name"].as_str().expect("a name"))
        .collect();

    // Who selects pods selects these, and names ports that they have.
    assert!(selects(&set["selector"]["matchLabels"], labels));
    let budget = &one(&all, "PodDisruptionBudget", "linkmic")["spec"];
    assert!(selects(&budget["selector"]["matchLabels"], labels));
    let policy = &one(&all, "NetworkPolicy", "linkmic")["spec"];
    assert!(selects(&policy["podSelector"]["matchLabels"], labels));
    for rule in policy["ingress"].as_array().expect("rules") {
        for port in rule["ports"].as_array().expect("ports") {
            let name = port["port"].as_str().expect("a name");
            assert!(ports.contains(&name), "{name}");
        }
    }
    for name in ["linkmic", "linkmic-control"] {
        let service = &one(&all, "Service", name)["spec"];
        assert!(selects(&service["selector"], labels));
        for port in service["ports"].as_array().expect("ports") {
            let target = port["targetPort"].as_str().expect("a name");
            assert!(ports.contains(&target), "{name}: {target}");
        }
    }
    assert_eq!(set["serviceName"], "linkmic-control");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], "http", "{probe}");
        let path = if probe == "readinessProbe" {
            "/readyz"
        } else {
            "/healthz"
        };
        assert_eq!(get["path"], path, "{probe}");
    }

    // Prometheus finds exactly the service with the port and the token.
    let monitor = &one(&all, "ServiceMonitor", "linkmic")["spec"];
    let watched: Vec<_> = all
        .iter()
        .filter(|one| one["kind"] == "Service")
        .filter(|one| {
            selects(
                &monitor["selector"]["matchLabels"],
                &one["metadata"]["labels"],
            )
        })
        .collect();
    assert_eq!(watched.len(), 1, "{watched:?}");
    assert_eq!(
        monitor["endpoints"][0]["port"],
        watched[0]["spec"]["ports"][0]["name"]
    );
    let token = &monitor["endpoints"][0]["authorization"]["credentials"];
    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    let volume = |name: &str| {
        let found = volumes.iter().find(|volume| volume["name"] == name);
        found.unwrap_or_else(|| panic!("no volume {name}"))
    };
    assert_eq!(token["name"], volume("secrets")["secret"]["secretName"]);
    assert_eq!(token["key"], "token");

    // What is mounted is there, and the configuration is the one that was generated.
    let claims = set["volumeClaimTemplates"].as_array().expect("claims");
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let name = mount["name"].as_str().expect("a name");
        let claimed = claims.iter().any(|claim| claim["metadata"]["name"] == name);
        if !claimed {
            volume(name);
        }
    }
    let generated = volume("config")["configMap"]["name"].as_str();
    let config = one(&all, "ConfigMap", generated.expect("a name"));
    let config = config["data"]["linkmic.toml"].as_str().expect("a text");

    // As Pod Security's "restricted" wants it, and with time to drain.
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    let seccomp = &pod["spec"]["securityContext"]["seccompProfile"]["type"];
    assert_eq!(seccomp, "RuntimeDefault");
    assert!(container["lifecycle"]["preStop"].is_object());
    assert!(!config.contains("[drain]"), "another deadline than:");
    let drained = Config::defaults(&Env::default()).drain.deadline + Duration::from_secs(5);
    let grace = &pod["spec"]["terminationGracePeriodSeconds"];
    let grace = Duration::from_secs(grace.as_u64().expect("seconds"));
    assert!(grace > drained, "{grace:?} to drain for {drained:?}");
    let image = shipped("deploy/docker/Dockerfile");
    let user = &pod["spec"]["securityContext"]["runAsUser"];
    assert!(image.contains(&format!("\nUSER {user}:{user}\n")), "{user}");
}

//! The unit under a real systemd: what it forbids, and that a mix runs all the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linkmic::config::{Config, Env};
use linkmic::net::slice;
use linkmic::probe::http;
use linkmic::probe::player::Watch;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Region, Size};
use serde_json::json;
use tokio::net::TcpStream;

use super::machine::{self, Machine};
use super::package::package;
use crate::edge::SOON;
use crate::edge::house::{PUSH_KEY, TOKEN, Urls};
use crate::studio;

/// Where systemd puts the credentials of the service.
const CREDENTIALS: &str = "/run/credentials/linkmic.service";

/// Installs the package and gives the service its key and its token as credentials, which only root could read.
async fn confined(machine: &Machine) -> (Urls, http::Client) {
    // It waits for its configuration, and is not started by the package already.
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
    machine.shell("chmod 755 /usr/sbin/policy-rc.d").await;
    machine.install(package().await).await;
    machine.write("/etc/linkmic/secrets/push", PUSH_KEY);
    machine.write("/etc/linkmic/secrets/token", TOKEN);
    machine.shell("chmod -R go= /etc/linkmic/secrets").await;
    machine.write(
        "/etc/systemd/system/linkmic.service.d/credentials.conf",
        "[Service]\n\
         LoadCredential=push:/etc/linkmic/secrets/push\n\
         LoadCredential=token:/etc/linkmic/secrets/token\n",
    );
    let text = |push: &str, token: &str| {
        format!(
            "[control]\nlisten = \"0.0.0.0:1985\"\ntoken = {token}\n\
             [auth]\npush_keys = [{{ id = \"main\", secret = {push} }}]\n"
        )
    };
    let file = |name: &str| format!("{{ file = \"{CREDENTIALS}/{name}\" }}");
    machine.write(
        "/etc/linkmic/linkmic.toml",
        &text(&file("push"), &file("token")),
    );
    machine
        .shell("systemctl daemon-reload; systemctl start linkmic")
        .await;
    machine.ready(8080).await;
    let known = text(&format!("\"{PUSH_KEY}\""), &format!("\"{TOKEN}\""));
    let known = Config::parse(&known, "test", &Env::default()).expect("a configuration");
    let at = |port: u16| {
        let address = format!("{}:{port}", machine.address());
        address.parse().expect("an address")
    };
    (
        Urls::new(at(1935), &known),
        http::Client::new(at(1985), Some(TOKEN)),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_runs_under_all_restrictions_of_the_unit() {
    let _place = studio::place().await;
    let Some(machine) = machine::for_test("a mix under the unit's restrictions").await else {
        return;
    };
    // As hardened hosts have it.
    machine.shell("mount -o remount,noexec /tmp").await;
    let (urls, api) = confined(&machine).await;
    let service = machine.service().await;

    let main = Show {
        size: Size::new(400, 640),
        video_kbps: 500,
        ..Show::main(Colour::BLUE, 400.0)
    };
    let sub = Show {
        size: Size::new(320, 480),
        ..Show::sub(Colour::RED, 600.0)
    };
    let mut anchors = Vec::new();
    for (name, show) in [("a", &main), ("b", &sub)] {
        anchors.push(studio::publish(&urls, &api, name, show).await);
    }
    let mix = json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 300, "y": 480, "width": 100, "height": 150},
        ],
        "output": {"stream": "a", "width": 400, "height": 640, "fps": 20, "video_kbps": 800},
    });
    studio::succeeded(api.put("/api/v1/mixes/m", &mix).await.expect("an answer"));
    let place = Region {
        x: 300,
        y: 480,
        width: 100,
        height: 150,
    };
    let watch = Watch {
        size: main.size,
        regions: vec![main.size.whole(), place],
    };
    let mut player = Player::start(&urls.plain("a"), watch)
        .await
        .expect("ffmpeg");
    player
        .until(
            "60 pictures with both in them, and both heard",
            SOON,
            |seen| {
                let both = seen.sightings.iter().filter(|sighting| {
                    let shows = |at: usize, colour: &str| {
                        let reading = &sighting.readings[at];
                        reading.colour.name() == Some(colour) && reading.counter.is_some()
                    };
                    shows(0, "blue") && shows(1, "red")
                });
                (both.count() >= 60 && seen.hears(400.0) && seen.hears(600.0)).then_some(())
            },
        )
        .await
        .unwrap_or_else(|e| panic!("{e}"));

    // All of it is in force.
    let status = machine.shell(&format!("cat /proc/{service}/status")).await;
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
    ] {
        assert!(status.lines().any(|l| l == line), "no {line} in\n{status}");
    }
    // Even root may do no more where it is: these are mounts.
    machine.write("/home/seen", "by users alone");
    for (words, may) in [
        ("touch /var/lib/linkmic/x && rm /var/lib/linkmic/x", true),
        ("touch /usr/x || touch /etc/x || touch /var/x", false),
        ("test -e /home/seen", false),
        ("test -e /dev/kmsg", false),
    ] {
        let inside = format!("nsenter -t {service} -m --wd=/ sh -c '{words}'");
        let did = machine.run(&inside).await;
        assert_eq!(did.is_ok(), may, "{words}: {did:?}");
    }
    let secrets = "/etc/linkmic/secrets/* /run/credentials/linkmic.service/* /var/lib/linkmic/*";
    let by_others = format!(
        "setpriv --reuid=nobody --regid=nogroup --clear-groups sh -c 'cat {secrets}' 2>/dev/null || echo closed"
    );
    assert_eq!(machine.shell(&by_others).await, "closed");

    // What it asks of the scheduler it gets: threads that mix step back, and slices are what any thread here gets that asks.
    let of_each = format!(
        "for task in /proc/{service}/task/*; do awk '{{ print $19 }}' $task/stat; awk '/^se.slice/ {{ print $3 }}' $task/sched; done"
    );
    let scheduled = machine.shell(&of_each).await;
    let has = |wanted: &str| scheduled.lines().any(|line| line == wanted);
    assert!(has("4"), "nobody is nice in\n{scheduled}");
    for asked in [slice::short as fn(), slice::long as fn()] {
        if let Some(slice) = slice_of_one_that(asked) {
            assert!(has(&slice), "nobody has a slice of {slice} in\n{scheduled}");
        }
    }
    // And orc runs the machine code that it makes: from a file of its own, mapped twice.
    let maps = machine.shell(&format!("cat /proc/{service}/maps")).await;
    let is_code_of_orc = |line: &str| line.contains(" r-xs ") && line.contains("linkmic/orcexec");
    assert!(maps.lines().any(is_code_of_orc), "{maps}");
    assert!(!maps.contains(" rwx"), "{maps}");
    for anchor in anchors {
        anchor.stop().await;
    }
}

/// The slice of a thread that asked for it without restrictions; `None` where the kernel does not tell.
fn slice_of_one_that(asks: fn()) -> Option<String> {
    let asked = std::thread::spawn(move || {
        asks();
        std::fs::read_to_string("/proc/thread-self/sched").ok()
    });
    let told = asked.join().expect("it ends")?;
    let line = told.lines().find(|line| line.starts_with("se.slice"))?;
    line.split_whitespace().last().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_holds_its_listeners_restarts_what_hangs_and_keeps_what_must_be_changed() {
    let Some(machine) = machine::for_test("sockets, watchdog and restarts").await else {
        return;
    };
    let (urls, api) = confined(&machine).await;

    // While the service restarts, whoever connects waits, and is not refused.
    machine
        .shell("systemctl stop linkmic; systemctl start linkmic-rtmp.socket linkmic-http.socket; systemctl start linkmic")
        .await;
    machine.ready(8080).await;
    let first = machine.service().await;
    let over = Arc::new(AtomicBool::new(false));
    let doors = [1935, 8080].map(|port| SocketAddr::new(urls.rtmp().ip(), port));
    let clients = doors.map(|door| {
        let over = over.clone();
        tokio::spawn(async move {
            let mut connected = 0;
            while !over.load(Ordering::Relaxed) {
                let client = TcpStream::connect(door).await;
                client.unwrap_or_else(|e| panic!("{door} after {connected}: {e}"));
                connected += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            connected
        })
    });
    for _ in 0..3 {
        machine.shell("systemctl restart linkmic").await;
    }
    machine.ready(8080).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        let connected = client.await.expect("never refused");
        println!("{connected} connections");
        assert!(connected > 20, "{connected} connections");
    }
    let second = machine.service().await;
    assert_ne!(second, first);
    // To the doctor that is as it should be.
    let doctor = "linkmic doctor --json --config /etc/linkmic/linkmic.toml || true";
    let doctor: serde_json::Value =
        serde_json::from_str(&machine.shell(doctor).await).expect("a report");
    let findings = doctor["findings"].as_array().expect("a list");
    for (listener, unit) in [("rtmp.listen", "rtmp"), ("http.listen", "http")] {
        let about = |one: &&serde_json::Value| {
            let name = one["name"].as_str().unwrap_or_default();
            one["area"] == "ports" && name.starts_with(listener)
        };
        let port = findings.iter().find(about).expect("the listener");
        assert_eq!(port["state"], "ok", "{port}");
        let held =
            format!("held by systemd for linkmic-{unit}.socket, which hands it to the service");
        assert_eq!(port["found"], held, "{port}");
    }

    // One that does not run any more is found out, and the next one knows what there was to do.
    let mix = json!({
        "app": "live",
        "inputs": [{"stream": "a", "layer": 1}, {"stream": "b", "layer": 2}],
        "output": {"stream": "a"},
    });
    studio::succeeded(api.put("/api/v1/mixes/m", &mix).await.expect("an answer"));
    machine.write(
        "/etc/systemd/system/linkmic.service.d/watchdog.conf",
        "[Service]\nWatchdogSec=5\n",
    );
    machine
        .shell("systemctl daemon-reload; systemctl restart linkmic")
        .await;
    let third = machine.service().await;
    machine.shell(&format!("kill -STOP {third}")).await;
    machine
        .wait_for(&format!(
            "test $(systemctl show -P MainPID linkmic) -ne {third} && systemctl is-active linkmic"
        ))
        .await;
    machine.ready(8080).await;
    // By the watchdog, and on a machine that is busy perhaps more than once.
    let restarts = machine.shell("systemctl show -P NRestarts linkmic").await;
    assert!(restarts.parse::<u32>().is_ok_and(|n| n >= 1), "{restarts}");
    let log = machine.log().await;
    assert!(log.contains("Watchdog timeout"), "{log}");
    let kept = api.get("/api/v1/mixes/m").await.expect("an answer");
    assert_eq!(kept.status, 200, "{}", kept.body);

    // A configuration that cannot be used is no reason to try again and again.
    machine.write("/etc/linkmic/linkmic.toml", "nonsense = true\n");
    machine.shell("systemctl restart linkmic || true").await;
    machine.wait_for("systemctl is-failed linkmic").await;
    let status = machine
        .shell("systemctl show -P ExecMainStatus linkmic")
        .await;
    assert_eq!(status, "2");
    let log = machine.log().await;
    assert!(log.contains("nonsense: unknown key"), "{log}");
}

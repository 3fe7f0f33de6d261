//! A server under load, seen through Prometheus: every expression that we ship gives numbers, and an alert goes off when it has to.

use linkmic::metrics::{Kind, Metrics, Values};
use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Size};
use serde_json::json;

use super::papers::expressions;
use super::prometheus::Prometheus;
use crate::edge::SOON;
use crate::edge::house::House;
use crate::studio::{Studio, succeeded};

/// What a machine that is busy with other tests may truly set off.
const OF_A_BUSY_MACHINE: [&str; 9] = [
    "LinkmicProcessorBusy",
    "LinkmicMixFramesSkipped",
    "LinkmicMixLate",
    "LinkmicMixSoundApart",
    "LinkmicMixesFull",
    "LinkmicViewersSkip",
    "LinkmicViewersLag",
    "LinkmicPushStalled",
    "LinkmicPushBehind",
];

/// Parts of an expression that choose series: a name, with labels or without.
fn selectors(expression: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find(is_part) {
        rest = &rest[at..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        let is_series = name.contains("linkmic_") || name.starts_with("process_") || name == "up";
        if !is_series {
            continue;
        }
        let labels = match rest
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
        {
            Some((labels, after)) => {
                rest = after;
                format!("{{{labels}}}")
            }
            None => String::new(),
        };
        found.push(format!("{name}{labels}"));
    }
    found
}

#[test]
fn selectors_are_found_with_their_labels() {
    let expression = "sum by (job) (rate(linkmic_a_total{x=\"b|c\"}[5m])) > 0 and instance:linkmic_b:ratio > up{job=~\"linkmic_.*\"}";
    assert_eq!(
        selectors(expression),
        [
            "linkmic_a_total{x=\"b|c\"}",
            "instance:linkmic_b:ratio",
            "up{job=~\"linkmic_.*\"}"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expression_that_we_ship_gives_numbers_under_load_and_a_dead_target_sets_off_its_alert()
 {
    let studio = Studio::open_with("[metrics]\nper_stream = true").await;
    let cdn = House::open().await;
    // From before the first client on, so that what it counts is seen to rise.
    let prometheus = Prometheus::over(studio.api.address()).await;

    let main = Show::main(Colour::BLUE, 400.0);
    let sub = Show::sub(Colour::RED, 700.0);
    let _a = studio.publish("a", &main).await;
    let _b = studio.publish("b", &sub).await;
    let scene = json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 10, "y": 10, "width": 160, "height": 240},
        ],
        "output": {"stream": "a", "width": 320, "height": 568, "fps": 20, "video_kbps": 500},
    });
    studio.put("/api/v1/mixes/m", &scene).await;
    let target =
        json!({"app": "live", "stream": "a", "feed": "program", "url": cdn.urls.push("a")});
    studio.put("/api/v1/pushes/cdn", &target).await;
    let output = Size::new(320, 568);
    let mut watching = Vec::new();
    for (url, size) in [
        (studio.urls.plain("a"), output),
        (studio.urls.peer("b"), sub.size),
        (studio.urls.plain("b"), sub.size),
    ] {
        let player = Player::start(&url, Watch::whole(size)).await;
        watching.push(player.expect("ffmpeg"));
    }

    // Dashboards, and the rules that record.
    let rules = prometheus.until_judged().await;
    let recorded = rules.iter().filter(|rule| rule["type"] == "recording");
    let recorded: Vec<_> = recorded
        .map(|rule| rule["name"].as_str().expect("a name").to_owned())
        .collect();
    assert!(recorded.len() > 10, "{recorded:?}");
    for name in &recorded {
        prometheus.until_some(name).await;
    }
    let expressions = expressions();
    assert!(expressions.len() > 80, "{}", expressions.len());
    for expression in &expressions {
        match expression.is_event {
            true => drop(prometheus.query(&expression.text).await),
            false => {
                prometheus
                    .until_some_of(&expression.place, &expression.text)
                    .await
            }
        }
    }
    println!(
        "{} expressions of dashboards, {} rules",
        expressions.len(),
        rules.len()
    );

    // What they are made of is there, with those labels, and is what the code knows.
    let page = studio.api.get("/metrics").await.expect("a page").body;
    let metrics = Metrics::new();
    for family in metrics.catalogue() {
        let kind = format!("# TYPE {} {}\n", family.name, family.kind.as_str());
        assert!(page.contains(&kind), "{kind}");
        for (label, values) in &family.labels {
            let Values::Words(words) = values else {
                continue;
            };
            let choice = words.join("|");
            let end = match family.kind {
                Kind::Histogram => "_count",
                Kind::Counter | Kind::Gauge => "",
            };
            let others = format!("{}{end}{{{label}!~\"{choice}\"}}", family.name);
            let others = prometheus.query(&others).await;
            assert!(others.is_empty(), "{others:?}");
        }
    }
    let queries = rules
        .iter()
        .map(|rule| rule["query"].as_str().expect("a query"));
    for selector in queries.flat_map(selectors) {
        prometheus.until_some(&selector).await;
    }

    // What is told of a stream is true.
    let fps = "rate(linkmic_stream_ingest_frames_total{app=\"live\",stream=\"b\"}[5s])";
    let asked = f64::from(sub.fps);
    let in_time = poll("the frame rate that was asked for", SOON, || async {
        let rate = prometheus.query(fps).await.first()?.1;
        (0.5 * asked..1.5 * asked).contains(&rate).then_some(())
    });
    if let Err(late) = in_time.await {
        panic!("{late}: {:?} of {asked}", prometheus.query(fps).await);
    }
    for (of, wanted) in [
        ("up{stream=\"b\"}", 1.0),
        ("up{stream=\"a\"}", 1.0),
        (
            "key_frame_interval_seconds{stream=\"b\"}",
            f64::from(sub.gop_seconds),
        ),
        ("left_out", 0.0),
    ] {
        let told = prometheus.query(&format!("linkmic_stream_{of}")).await;
        assert_eq!(told.len(), 1, "{of}: {told:?}");
        assert!((told[0].1 - wanted).abs() < 0.05, "{of}: {told:?}");
    }
    let readers = prometheus
        .query("sum by (stream) (linkmic_stream_readers{stream=\"b\"})")
        .await;
    // A peer and a viewer, besides the mix.
    assert!(readers[0].1 >= 2.0, "{readers:?}");

    // All is well, and says so.
    let alerts = rules.iter().filter(|rule| rule["type"] == "alerting");
    for alert in alerts {
        let name = alert["name"].as_str().expect("a name");
        if !OF_A_BUSY_MACHINE.contains(&name) {
            prometheus.until_alert(name, "inactive", SOON).await;
        }
    }

    // Nobody listens at port 1.
    let dead = json!({"app": "live", "stream": "a", "feed": "program", "url": "rtmp://127.0.0.1:1/live/a"});
    studio.put("/api/v1/pushes/dead", &dead).await;
    let name = "LinkmicPushTargetDown";
    let firing = prometheus.until_alert(name, "firing", SOON).await;
    let alert = &firing["alerts"][0];
    assert_eq!(alert["labels"]["severity"], "page", "{alert}");
    let told = alert["annotations"]["summary"].as_str().expect("a summary");
    assert_eq!(
        told,
        format!(
            "{} does not reach all of its CDN targets",
            studio.api.address()
        )
    );
    assert_eq!(alert["value"], "1e+00", "{alert}");
    succeeded(
        studio
            .api
            .delete("/api/v1/pushes/dead")
            .await
            .expect("an answer"),
    );
    prometheus.until_alert(name, "inactive", SOON).await;
}

//! What there is to see of one stream: real publishers that send badly are told in sentences, a snapshot is their picture, a
//! capture is what they sent, and what happened to a name outlives its stream.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use linkmic::auth::Purpose;
use linkmic::probe::picture::{self, Region};
use linkmic::probe::process::{Process, output, poll};
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Publisher, Size};
use serde_json::{Value, json};

use super::disk::Disk;
use crate::abuse::binary::Binary;
use crate::abuse::healthy::{self, Healthy};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::{Hour, TOKEN};
use crate::home::{Home, Life};
use crate::mix::script::{Reel, Script};
use crate::studio::publish;

/// A key frame each 8 s has to come twice.
const LONG: Duration = Duration::from_secs(45);

/// ffmpeg's own picture and tone in real time, coded as `how` says.
fn ffmpeg(url: &str, how: &str) -> Process {
    let text = format!(
        "-hide_banner -nostats -loglevel error -re -f lavfi -i testsrc=size=160x120:rate=25 \
         -re -f lavfi -i sine=frequency=440:sample_rate=48000 -map 0:v -map 1:a \
         -c:v libx264 -preset ultrafast -threads 1 -pix_fmt yuv420p -sc_threshold 0 {how} \
         -c:a aac -b:a 64k -f flv {url}"
    );
    let arguments: Vec<&str> = text.split_whitespace().collect();
    Process::spawn("ffmpeg", &arguments).expect("ffmpeg")
}

/// Waits until the diagnosis of a stream has that finding with all of these words in its sentence.
async fn told(life: &Life, name: &str, code: &str, words: &[&str]) -> Value {
    let path = format!("/api/v1/streams/live/{name}/diagnose");
    let seen = poll(code, LONG, || async {
        let shown = life.api.get(&path).await.ok()?.json();
        let found = shown["findings"].as_array()?;
        let mut of_it = found.iter().filter(|found| found["code"] == code);
        let told = of_it.next()?["message"].as_str()?;
        words
            .iter()
            .all(|w| told.contains(w))
            .then(|| shown.clone())
    });
    match seen.await {
        Ok(shown) => {
            println!("{name}: {} {:#}", shown["grade"], shown["findings"]);
            shown
        }
        Err(late) => panic!("{name}, {words:?}: {late}: {:?}", life.api.get(&path).await),
    }
}

/// How many stalls a diagnosis tells of, and how long one is, in seconds.
fn stalls_told(shown: &Value) -> (u32, f64) {
    let found = shown["findings"].as_array().expect("findings");
    let mut of_it = found.iter().filter(|f| f["code"] == "uplink_stalled");
    let told = of_it.next().and_then(|f| f["message"].as_str());
    let told = told.and_then(|t| t.strip_prefix("the uplink stalled "));
    let (count, rest) = told.and_then(|t| t.split_once(" × ")).expect("several");
    let (typical, _) = rest.split_once(" s ").expect("seconds");
    (count.parse().expect("a count"), typical.parse().expect("s"))
}

fn severity<'a>(shown: &'a Value, code: &str) -> &'a Value {
    let found = shown["findings"].as_array().expect("findings");
    let of_it = found.iter().find(|found| found["code"] == code);
    &of_it.expect("it was there")["severity"]
}

/// Sound is 600 ms ahead; for 8 s pictures have 3,000 bytes more, which are 600 kbit/s.
async fn shifted() -> Script {
    let reel = Reel::sub(25, 440.0, 60).script().await;
    reel.each(|cue| {
        if !cue.is_picture() {
            cue.says += 600;
        } else if cue.at < 8_000 && !cue.tag.is_header() {
            let more = cue.tag.body.len() + 3_000;
            cue.tag.body.resize(more, 0);
        }
    })
}

#[tokio::test]
async fn each_way_to_send_badly_is_told_in_a_sentence_with_its_numbers() {
    let home = Home::found("").await;
    let life = home.begin().await;
    let sender = shifted().await.start(life.urls.push("shifted"));
    let url = |name: &str| life.urls.push(name);
    // Of 25 pictures 14 reach the encoder, which goes on to announce 25.
    let select =
        "-vf select='lt(mod(n\\,25)\\,14)' -fps_mode passthrough -tune zerolatency -g 14 -b:v 200k";
    let _lame = ffmpeg(&url("lame"), select);
    let _long = ffmpeg(
        &url("long"),
        "-tune zerolatency -g 200 -keyint_min 200 -b:v 200k",
    );
    let b_frames =
        "-bf 2 -b_strategy 0 -g 50 -b:v 1000k -maxrate 1000k -minrate 1000k -bufsize 1000k";
    let _ahead = ffmpeg(&url("b-frames"), b_frames);
    let stalled =
        Publisher::start(&url("stalled"), &Show::sub(Colour::RED, 700.0)).expect("ffmpeg");

    let slow = async {
        life.until("it is on air", "/api/v1/streams/live/b-frames", |shown| {
            shown["publisher"]["health"]["fps"].is_number()
        })
        .await;
        // Reads nothing from here on.
        let url = life.urls.plain("b-frames");
        let _reader = Client::play_narrow(&url, 4 << 10).await.expect("granted");
        let words = [
            "the slowest subscriber of the class viewer is ",
            " s behind (rtmp 127.0.0.1:",
        ];
        told(&life, "b-frames", "slow_subscriber", &words).await
    };
    let stalls = async {
        let up = "/api/v1/streams/live/stalled";
        life.until("it is on air", up, |s| {
            s["publisher"]["health"]["fps"].is_number()
        })
        .await;
        for _ in 0..3 {
            stalled
                .stall(Duration::from_millis(1_200))
                .await
                .expect("signals");
            // What came of it is there before the next begins.
            let before = life.get(up).await["publisher"]["messages"].as_u64();
            life.until("it goes on", up, |s| {
                s["publisher"]["messages"].as_u64() > before.map(|n| n + 30)
            })
            .await;
        }
        told(
            &life,
            "stalled",
            "uplink_stalled",
            &["the uplink stalled ", " × ", " s in the last minute"],
        )
        .await
    };
    let (slow, stalls, lame, _, reordered, ahead, fallen) = tokio::join!(
        slow,
        stalls,
        told(
            &life,
            "lame",
            "low_fps",
            &[
                "sends 14.",
                " pictures a second of the 25.0 that it announced"
            ]
        ),
        told(
            &life,
            "long",
            "long_gop",
            &["a key frame comes every 8.0 s"]
        ),
        told(
            &life,
            "b-frames",
            "b_frames",
            &["sends B-frames (6", "% of its pictures)"]
        ),
        told(
            &life,
            "shifted",
            "audio_ahead",
            &["audio is ", " ms ahead of the pictures"]
        ),
        told(
            &life,
            "shifted",
            "bitrate_fallen",
            &["the bitrate has fallen to "]
        ),
    );
    assert_eq!(severity(&slow, "slow_subscriber"), "warning");
    assert_eq!(severity(&stalls, "uplink_stalled"), "serious");
    let (count, typical) = stalls_told(&stalls);
    // A machine that is busy may add to them.
    assert!(count >= 3 && typical >= 1.1, "{count} × {typical} s");
    assert_eq!(severity(&lame, "low_fps"), "serious");
    assert_eq!(
        (&lame["grade"], &lame["publisher"]["declared_fps"]),
        (&json!("poor"), &json!(25.0))
    );
    // It is told of a GOP that still runs, too.
    let path = "/api/v1/streams/live/long/diagnose";
    let whole = poll("a GOP from one key frame to the next", LONG, || async {
        let shown = life.api.get(path).await.ok()?.json();
        (shown["publisher"]["gop_ms"] == 8_000).then_some(())
    });
    whole.await.unwrap_or_else(|e| panic!("{e}"));
    // Four frames of 40 ms: the deepest that x264 goes by itself with two in a row.
    assert_eq!(severity(&reordered, "b_frames"), "warning");
    let ms = ahead["publisher"]["audio_ahead_ms"]
        .as_i64()
        .expect("known");
    assert!((540..=660).contains(&ms), "{ms}");
    assert_eq!(severity(&fallen, "bitrate_fallen"), "warning");
    let health = &life.get("/api/v1/streams/live/lame").await["publisher"]["health"];
    assert_eq!(
        (&health["grade"], &health["worst"]),
        (&json!("poor"), &json!("low_fps"))
    );
    let metrics = life.api.get("/metrics").await.expect("metrics").body;
    let poor = metrics.lines().find_map(|line| {
        let count = line.strip_prefix("linkmic_relay_publisher_grades{grade=\"poor\"} ")?;
        count.parse::<u32>().ok()
    });
    assert!(poor >= Some(1), "{poor:?}");
    drop(sender);
}

/// What ffmpeg makes of a picture at that path, and its size.
async fn picture(life: &Life, path: &str, folder: &Path) -> (Vec<u8>, Size) {
    let url = format!("http://{}{path}", life.api.address());
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let probe = [
        "-v",
        "error",
        "-headers",
        &token,
        "-f",
        "jpeg_pipe",
        "-show_entries",
        "stream=codec_name,width,height",
        "-of",
        "csv=p=0",
        "-i",
        &url,
    ];
    let told = output("ffprobe", &probe, SOON).await.expect("ffprobe");
    let told = String::from_utf8(told).expect("text");
    let mut parts = told.trim().split(',');
    assert_eq!(parts.next(), Some("mjpeg"), "{told}");
    let mut side = || parts.next().and_then(|n| n.parse().ok()).expect("a side");
    let size = Size::new(side(), side());
    let raw = folder.join("picture.yuv").display().to_string();
    let decode = [
        "-v",
        "error",
        "-y",
        "-headers",
        &token,
        "-f",
        "jpeg_pipe",
        "-i",
        &url,
        "-vf",
        "scale=in_range=full:out_range=tv:in_color_matrix=bt601:out_color_matrix=bt601",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
        &raw,
    ];
    output("ffmpeg", &decode, SOON).await.expect("ffmpeg");
    (std::fs::read(raw).expect("decoded"), size)
}

#[tokio::test]
async fn a_snapshot_is_the_picture_of_its_feed_and_latencies_are_told_hop_by_hop() {
    let home = Home::found("").await;
    let life = home.begin().await;
    let main = Show {
        size: Size::new(400, 640),
        ..Show::main(Colour::BLUE, 400.0)
    };
    let sub = Show::sub(Colour::RED, 700.0);
    let a = publish(&life.urls, &life.api, "a", &main).await;
    let _b = publish(&life.urls, &life.api, "b", &sub).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = "/api/v1/streams/live/a/snapshot.jpg";
    let (frame, size) = picture(&life, path, folder.path()).await;
    assert_eq!(size, main.size);
    let seen = picture::read(&frame, size, size.whole());
    assert_eq!(seen.colour.name(), Some("blue"), "{seen:?}");
    // It is one of the pictures that were sent, and the next one is a whole number of GOPs later: one a second.
    let first = u64::from(seen.counter.expect("a number"));
    assert!(first < a.frames(), "{first}");
    let next = poll("another key frame", SOON, || async {
        let (frame, size) = picture(&life, path, folder.path()).await;
        let counter = picture::read(&frame, size, size.whole()).counter?;
        (u64::from(counter) != first).then_some(u64::from(counter))
    });
    let next = next.await.expect("it is seen");
    assert_eq!(
        (next - first) % u64::from(main.fps),
        0,
        "{first} and {next}"
    );

    let (frame, size) = picture(&life, &format!("{path}?width=200"), folder.path()).await;
    assert_eq!(size, Size::new(200, 320));
    assert_eq!(
        picture::read(&frame, size, size.whole()).colour.name(),
        Some("blue")
    );

    let place = Region {
        x: 300,
        y: 480,
        width: 100,
        height: 150,
    };
    let scene = json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": place.x, "y": place.y, "width": place.width, "height": place.height},
        ],
        "output": {"stream": "a"},
    });
    life.put("/api/v1/mixes/show", &scene).await;
    life.until("the mix is on air", "/api/v1/streams/live/a", |shown| {
        shown["mixed"] == true
    })
    .await;
    let mixed = poll("the sub in the program's snapshot", SOON, || async {
        let (frame, size) = picture(&life, &format!("{path}?feed=program"), folder.path()).await;
        let seen = picture::read(&frame, size, place);
        (seen.colour.name() == Some("red")).then_some(())
    });
    mixed.await.expect("it is seen");
    let (frame, size) = picture(&life, &format!("{path}?feed=source"), folder.path()).await;
    let seen = picture::read(&frame, size, place);
    assert_eq!(seen.colour.name(), Some("blue"), "the source has no sub");

    let _peer = Client::play(&life.urls.peer("a")).await.expect("granted");
    let hops = life
        .until("every hop", "/api/v1/streams/live/a/latency", |hops| {
            hops["mixes"][0]["added_ms"]["count"].as_u64() >= Some(40)
                && hops["ingest"]["handling_ms"]["count"].as_u64() >= Some(3)
                && hops["readers"]["low_latency"]["lag_ms"].is_object()
        })
        .await;
    println!("{hops:#}");
    let mix = &hops["mixes"][0];
    assert_eq!(
        (&mix["mix"], &mix["role"]),
        (&json!("show"), &json!("output"))
    );
    for hop in ["decode_ms", "hold_ms", "beat_ms", "encode_ms", "added_ms"] {
        let of = |word: &str| mix[hop][word].as_f64().expect(hop);
        assert!(
            of("min") <= of("median") && of("median") <= of("max"),
            "{mix}"
        );
    }
    // The stages add up: none is longer than the whole.
    let worst = |hop: &str| mix[hop]["max"].as_f64().expect(hop);
    assert!(worst("encode_ms") > 0.0 && worst("encode_ms") <= worst("added_ms"));
    assert_eq!(hops["publisher"]["arrival_jitter_ms"]["min"], 0.0);
    let sub = life.get("/api/v1/streams/live/b/latency").await;
    assert_eq!(sub["mixes"][0]["role"], "input");
}

#[tokio::test]
async fn a_capture_is_what_was_sent_with_a_line_for_each_message() {
    let home = Home::found("").await;
    let life = home.begin().await;
    let show = Show::sub(Colour::GREEN, 500.0);
    let _publisher = publish(&life.urls, &life.api, "a", &show).await;
    let wish = json!({"seconds": 4, "what": "publisher"});
    let begun = life.api.post("/api/v1/streams/live/a/capture", &wish).await;
    let begun = begun.expect("an answer").json();
    let own = format!("/api/v1/captures/{}", begun["id"].as_str().expect("an id"));
    let done = life
        .until("its end", &own, |shown| shown["state"] == "done")
        .await;
    assert_eq!(
        (&done["end"], &done["stream"]),
        (&json!("time"), &json!("a"))
    );

    let timing = life.api.get(done["timing"].as_str().expect("a path")).await;
    let timing = timing.expect("an answer").body;
    let lines: Vec<Value> = timing
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(done["messages"], lines.len());
    let headers = lines.iter().take_while(|line| line["arrived_us"].is_null());
    assert_eq!(
        headers.filter(|line| line["header"] == true).count(),
        3,
        "metadata and two headers"
    );

    // ffprobe reads the file from the server: each message is a packet of that time, size and kind.
    let url = format!(
        "http://{}{}",
        life.api.address(),
        done["media"].as_str().expect("a path")
    );
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let probe = [
        "-v",
        "error",
        "-headers",
        &token,
        "-f",
        "flv",
        "-show_entries",
        "packet=codec_type,dts,size,flags",
        "-of",
        "json",
        "-i",
        &url,
    ];
    let packets = output("ffprobe", &probe, SOON).await.expect("ffprobe");
    let packets: Value = serde_json::from_slice(&packets).expect("JSON");
    let packets = packets["packets"].as_array().expect("packets");
    let media: Vec<&Value> = lines
        .iter()
        .filter(|line| line["header"] == false)
        .collect();
    assert_eq!(packets.len(), media.len());
    for (packet, line) in packets.iter().zip(&media) {
        assert_eq!(packet["codec_type"], line["type"], "{packet} {line}");
        assert_eq!(packet["dts"], line["dts_ms"], "{packet} {line}");
        // FLV's bytes in front of an access unit: 5 for AVC, 2 for AAC.
        let front = if line["type"] == "video" { 5 } else { 2 };
        let size = packet["size"].as_str().and_then(|n| n.parse::<u64>().ok());
        assert_eq!(
            size,
            line["size"].as_u64().map(|n| n - front),
            "{packet} {line}"
        );
        if line["type"] == "video" {
            let is_key = packet["flags"].as_str().is_some_and(|f| f.starts_with('K'));
            assert_eq!(line["key"], is_key, "{packet} {line}");
        }
    }
    // Four seconds of pictures, which came in that time.
    let pictures: Vec<_> = media
        .iter()
        .filter(|line| line["type"] == "video")
        .collect();
    let of = |n: usize, what: &str| pictures[n][what].as_i64().expect(what);
    let last = pictures.len() - 1;
    let (media_ms, wall_ms) = (
        of(last, "dts_ms") - of(0, "dts_ms"),
        (of(last, "arrived_us") - of(0, "arrived_us")) / 1_000,
    );
    assert!((media_ms - wall_ms).abs() < 1_000, "{media_ms} {wall_ms}");
    assert!((2_000..=4_000).contains(&wall_ms), "{wall_ms}");
    // Every one of them, from the first to the last.
    let frame_ms = 1_000 / i64::from(show.fps);
    for n in 1..=last {
        let step = of(n, "dts_ms") - of(n - 1, "dts_ms");
        assert!((step - frame_ms).abs() <= 1, "{step} ms before {n}");
    }
    // And they decode, from the first key frame on.
    let count = [
        "-v",
        "error",
        "-headers",
        &token,
        "-f",
        "flv",
        "-count_frames",
        "-select_streams",
        "v",
        "-show_entries",
        "stream=nb_read_frames",
        "-of",
        "csv=p=0",
        "-i",
        &url,
    ];
    let decoded = output("ffprobe", &count, SOON).await;
    let decoded = String::from_utf8(decoded.expect("ffprobe")).expect("text");
    let decoded: usize = decoded
        .trim()
        .trim_end_matches(',')
        .parse()
        .expect("a number");
    assert!(
        decoded + 15 >= pictures.len(),
        "{decoded} of {}",
        pictures.len()
    );

    let gone = life.api.delete(&own).await.expect("an answer");
    assert_eq!(gone.status, 200);
    let kept = std::fs::read_dir(home.state().join("captures")).expect("the folder");
    assert_eq!(kept.count(), 0);
    assert_eq!(life.get("/api/v1/captures").await, json!({"captures": []}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_that_fills_the_disk_ends_and_says_why_and_players_miss_nothing() {
    let Some(disk) = Disk::in_memory("a capture on a full disk").await else {
        return;
    };
    let [env, state] = disk.state();
    let server = Binary::serve_under(&[&env, &state], "").await;
    let healthy = Healthy::start_with(&server.urls, 2).await;
    let path = format!("/api/v1/streams/live/{}/capture", healthy::NAME);
    let wish = json!({"seconds": 60, "what": "publisher"});
    let begun = server.control.post(&path, &wish).await.expect("an answer");
    assert_eq!(begun.status, 201);
    disk.fill();
    let own = begun.json()["id"]
        .as_str()
        .map(|id| format!("/api/v1/captures/{id}"));
    let own = own.expect("an id");
    let done = poll("its end", SOON, || async {
        let shown = server.control.get(&own).await.ok()?.json();
        (shown["state"] == "done").then_some(shown)
    });
    let done = done.await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (&done["end"], done["ended"].is_string()),
        (&json!("disk"), true),
        "{done}"
    );
    healthy.assert_nothing_missed().await;
    assert_eq!(
        server.control.delete(&own).await.expect("an answer").status,
        200
    );
}

#[tokio::test]
async fn what_happened_to_a_name_is_remembered_after_its_stream_is_gone() {
    let home = Home::found("").await;
    let life = home.begin().await;
    let late = life.urls.query(Purpose::Push, "a", Hour::Last);
    for _ in 0..2 {
        let no = Client::publish(&life.urls.with("a", &late)).await;
        assert!(no.is_err(), "an old signature opens nothing");
    }
    let publisher = publish(&life.urls, &life.api, "a", &Show::sub(Colour::RED, 700.0)).await;
    let wrong = Client::play(&life.urls.with("a", "txSecret=00&txTime=7fffffff")).await;
    assert!(wrong.is_err(), "a wrong signature opens nothing");
    // Another query: whoever comes with the same one from the same address takes over.
    let other = format!("{}&x=1", life.urls.push("a"));
    let busy = Client::publish(&other).await;
    assert!(busy.is_err(), "the name is taken");
    let path = "/api/v1/streams/live/a";
    let _player = Client::play(&life.urls.plain("a")).await.expect("granted");
    let readers = life
        .until("the player", &format!("{path}/readers"), |shown| {
            shown["readers"][0]["id"].is_number()
        })
        .await;
    let id = &readers["readers"][0]["id"];
    let dropped = life.api.delete(&format!("{path}/readers/{id}")).await;
    assert_eq!(dropped.expect("an answer").status, 202);
    life.until(
        "its end among the events",
        &format!("{path}/events"),
        |shown| {
            shown["events"][0]["type"] == "player_closed"
                && shown["events"][0]["reason"] == "dropped"
        },
    )
    .await;
    publisher.kill().await;
    let gone = poll("the stream's end", SOON, || async {
        let answer = life.api.get(path).await.ok()?;
        (answer.status == 404 || answer.json()["publisher"].is_null()).then_some(())
    });
    gone.await.expect("it ends");
    let events = life
        .until(
            "its end among the events",
            &format!("{path}/events"),
            |shown| shown["events"][0]["type"] == "unpublish",
        )
        .await;
    println!("{events:#}");
    let events = events["events"].as_array().expect("events");
    let mut of_kind: HashMap<&str, &Value> = HashMap::new();
    for event in events {
        let kind = event["type"].as_str().expect("a type");
        let newest = *of_kind.entry(kind).or_insert(event);
        assert!(
            newest["time"].as_str() >= event["time"].as_str(),
            "newest first"
        );
    }
    let refused: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "publish_refused")
        .map(|event| {
            (
                event["reason"].as_str().expect("a reason"),
                event["count"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        refused,
        [("name_busy", Some(1)), ("signature_expired", Some(2))]
    );
    assert_eq!(of_kind["play_refused"]["reason"], "signature_wrong");
    let address = of_kind["publish_refused"]["address"].as_str();
    assert!(
        address.is_some_and(|a| a.starts_with("127.0.0.1:")),
        "{address:?}"
    );
    let end = of_kind["unpublish"];
    assert!(
        end["data"]["bytes"].as_u64() > Some(0) && end["reason"].is_string(),
        "{end}"
    );
    assert_eq!(of_kind["publish"]["data"]["epoch"], end["data"]["epoch"]);
    let text = format!("{events:?}");
    let secret = late.split(['=', '&']).max_by_key(|part| part.len());
    assert!(
        !text.contains(secret.expect("a signature")),
        "no signature is kept"
    );
    let shown = life.get(&format!("{path}/diagnose")).await;
    assert_eq!(
        (&shown["grade"], &shown["findings"][0]["code"]),
        (&json!("poor"), &json!("not_published"))
    );
}

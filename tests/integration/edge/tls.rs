//! RTMPS and HTTPS: real clients inside TLS, certificates that change while it runs, and who does not speak it.

use std::fs;

use linkmic::probe::flv::Tag;
use linkmic::probe::process::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SOON;
use super::clip::{clip, frames, run_of};
use super::download::Download;
use super::house::House;
use super::http_flv::{LITTLE_LAG, narrow, record, skips_to_key_frames};
use super::programs::{Player, Publisher, decode, recorded};
use super::tunnel::{Pair, inside_tls, shown};

/// A server with RTMPS and HTTPS.
struct Secure {
    house: House,
    pair: Pair,
}

impl Secure {
    async fn open(more: &str) -> Self {
        let pair = Pair::new();
        let secure = |text: String| {
            text.replace("[http]\n", "[http]\ntls_listen = \"127.0.0.1:0\"\n") + &pair.section()
        };
        let house = House::open_edited("", more, secure).await;
        Self { house, pair }
    }

    /// An RTMP URL of the house, through TLS.
    fn rtmps(&self, url: &str) -> String {
        let (plain, secure) = (self.house.urls.rtmp(), self.house.server.rtmps_addr());
        let secure = secure.expect("it listens");
        url.replacen(&format!("rtmp://{plain}"), &format!("rtmps://{secure}"), 1)
    }

    fn https_flv(&self, name: &str) -> String {
        let port = self.house.server.https_addr().expect("it listens").port();
        format!("https://localhost:{port}/live/{name}.flv")
    }

    /// What openssl is shown.
    async fn shown(&self, option: &str) -> Option<String> {
        shown(self.house.server.rtmps_addr().expect("it listens"), option).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_gstreamer_and_curl_get_every_byte_through_tls() {
    let secure = Secure::open("").await;
    let clip = clip().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(format!("{name}.flv"));
    let url = secure.rtmps(&secure.house.urls.plain("exact"));
    let https = secure.https_flv("exact");
    let gstreamer = format!(
        "-q rtmp2src location={url} tls-validation-flags=0 ! filesink location={}",
        file("gstreamer").display()
    );
    let gstreamer: Vec<&str> = gstreamer.split_whitespace().collect();
    let trusting = format!("--cacert {} {https}", secure.pair.certificate().display());
    let mut players = [
        ("ffmpeg", Player::Ffmpeg.start(&url, &file("ffmpeg"))),
        (
            "gstreamer",
            Process::spawn("gst-launch-1.0", &gstreamer).expect("it starts"),
        ),
        (
            "ffmpeg-https",
            record("ffmpeg", &https, &file("ffmpeg-https")),
        ),
        ("curl", record("curl", &trusting, &file("curl"))),
    ];
    secure.house.wait_for_viewers(players.len()).await;
    let push = secure.rtmps(&secure.house.urls.push("exact"));
    let mut publisher = Publisher::Ffmpeg.start(clip.path(), &push);
    publisher.success(SOON).await.expect("published");
    for (name, process) in &mut players {
        process
            .success(SOON)
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let file = file(name);
        decode(&file).await;
        let tags = recorded(&file);
        for kind in [Tag::VIDEO, Tag::AUDIO] {
            let (sent, got) = (clip.frames(kind), frames(&tags, kind));
            run_of(&got, &sent)
                .unwrap_or_else(|| panic!("{name}: kind {kind} is not what was sent"));
            assert!(
                got.len() >= sent.len() / 4 * 3,
                "{name}: {} of kind {kind}",
                got.len()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_changed_under_running_connections() {
    let secure = Secure::open("").await;
    let first = secure.pair.on_disk();
    assert_eq!(secure.shown("-tls1_3").await.as_ref(), Some(&first));
    assert_eq!(secure.shown("-tls1_2").await.as_ref(), Some(&first));
    assert_eq!(secure.shown("-tls1_1").await, None, "too old to be safe");

    let clip = clip().await;
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("through.flv");
    let url = secure.rtmps(&secure.house.urls.plain("through"));
    let mut player = Player::Ffmpeg.start(&url, &recording);
    secure.house.wait_for_viewers(1).await;
    let push = secure.rtmps(&secure.house.urls.push("through"));
    let mut publisher = Publisher::Ffmpeg.start(clip.path(), &push);
    let certificates = secure
        .house
        .server
        .certificates()
        .expect("there are")
        .clone();
    for _ in 0..10 {
        secure.pair.renew();
        certificates.reload().expect("a good pair");
        assert_eq!(secure.shown("-tls1_3").await, Some(secure.pair.on_disk()));
    }
    let last = secure.pair.on_disk();
    fs::write(secure.pair.certificate(), "nothing").expect("written");
    certificates.reload().expect_err("a bad file");
    assert_eq!(secure.shown("-tls1_3").await, Some(last));
    publisher.success(SOON).await.expect("nothing noticed");
    player.success(SOON).await.expect("nothing noticed");
    let (tags, sent) = (recorded(&recording), clip.frames(Tag::VIDEO));
    assert!(run_of(&frames(&tags, Tag::VIDEO), &sent).is_some(), "a gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_inside_tls_skips_to_key_frames_too() {
    let secure = Secure::open(LITTLE_LAG).await;
    let https = secure.house.server.https_addr().expect("it listens");
    let tls = inside_tls(&secure.pair.trusting(), narrow(https).await)
        .await
        .expect("it opens");
    skips_to_key_frames(&secure.house, tls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_served_inside_tls() {
    let secure = Secure::open("").await;
    let https = secure.house.server.https_addr().expect("it listens");
    let tcp = TcpStream::connect(https).await.expect("it listens");
    let mut tls = inside_tls(&secure.pair.trusting(), tcp)
        .await
        .expect("it opens");
    tls.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Download::answer(tls).await;
    assert_eq!(answer.status, 200);
    // Without a goodbye this would be an error: the end could be a cut.
    assert_eq!(answer.rest().await, b"{\"status\":\"ok\"}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_no_tls_or_nothing_is_closed() {
    let secure = Secure::open("[limits]\nhandshake = \"300ms\"").await;
    let doors = [
        secure.house.server.rtmps_addr(),
        secure.house.server.https_addr(),
    ];
    for door in doors.map(|door| door.expect("it listens")) {
        for (name, words) in [
            ("silence", b"".as_slice()),
            ("half a hello", &[22, 3, 1, 2, 0, 1]),
            ("RTMP", &[3; 1537]),
            ("HTTP", b"GET /healthz HTTP/1.1\r\n\r\n"),
        ] {
            let mut socket = TcpStream::connect(door).await.expect("it listens");
            socket.write_all(words).await.expect("sent");
            let mut heard = Vec::new();
            // What was not read of it may turn the close into a reset.
            let _ = tokio::time::timeout(SOON, socket.read_to_end(&mut heard))
                .await
                .expect("it closes");
            // An alert at most: 21 is its record type.
            assert!(
                heard.first().is_none_or(|&kind| kind == 21),
                "{name}: {heard:?}"
            );
        }
    }
    let metrics = secure.house.ask("/metrics").await.body;
    for line in [
        "linkmic_ingest_disconnects_total{reason=\"timeout\"} 2",
        "linkmic_ingest_disconnects_total{reason=\"protocol\"} 2",
        "linkmic_ingest_connections 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
}

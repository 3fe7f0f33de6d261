//! HTTP-FLV: the same streams, rules and ends as over RTMP, judged by ffmpeg, curl and a client of our own.

use std::net::SocketAddr;

use linkmic::auth::Purpose;
use linkmic::probe::flv::Tag;
use linkmic::probe::process::{self, Process, poll};
use linkmic::rtmp::kind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::SOON;
use super::client::Client;
use super::clip::{clip, frames, number_of, numbered, run_of};
use super::download::Download;
use super::house::{BURST, Hour, House, PLAY_KEY};
use super::programs::{Publisher, decode, recorded};

/// Starts a player that records to the end of the stream.
pub fn record(program: &str, url: &str, file: &std::path::Path) -> Process {
    let file = file.display().to_string();
    let text = match program {
        "ffmpeg" => format!(
            "-hide_banner -nostats -y -i {url} -c copy -copyts -flvflags no_duration_filesize -f flv {file}"
        ),
        "curl, HTTP/1.0" => format!("-sS --fail --http1.0 -o {file} {url}"),
        _ => format!("-sS --fail -o {file} {url}"),
    };
    let arguments: Vec<&str> = text.split_whitespace().collect();
    let program = program.split(',').next().expect("a program");
    let mut process = Process::spawn(program, &arguments).unwrap_or_else(|e| panic!("{e}"));
    drop(process.stdin());
    process
}

/// A publisher that has sent the clip's headers.
async fn publisher(house: &House, name: &str) -> Client {
    let url = house.urls.push(name);
    let mut publisher = Client::publish(&url).await.expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    publisher
}

async fn send(publisher: &mut Client, numbers: std::ops::RangeInclusive<u32>) {
    for n in numbers {
        publisher
            .send(kind::VIDEO, n * 40, numbered(n, n.is_multiple_of(25), 200))
            .await;
    }
}

/// Numbers and times of the pictures.
fn pictures(tags: &[Tag]) -> Vec<(u32, u32)> {
    let video = tags.iter().filter(|t| t.kind == Tag::VIDEO);
    video
        .filter_map(|t| Some((number_of(&t.body)?, t.time)))
        .collect()
}

fn has(number: u32) -> impl Fn(&[Tag]) -> Option<()> {
    move |tags| {
        pictures(tags)
            .iter()
            .any(|(n, _)| *n == number)
            .then_some(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_and_curl_record_byte_for_byte_what_was_published_and_its_end() {
    let house = House::open_with("", BURST).await;
    let clip = clip().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut players = Vec::new();
    for program in ["ffmpeg", "curl", "curl, HTTP/1.0"] {
        let file = folder
            .path()
            .join(format!("{program}.flv").replace([',', ' ', '/'], ""));
        players.push((
            program,
            record(program, &house.http_flv("exact"), &file),
            file,
        ));
    }
    house.wait_for_viewers(players.len()).await;
    let mut publisher = Publisher::Ffmpeg.start(clip.path(), &house.urls.push("exact"));
    publisher.success(SOON).await.expect("published");
    for (program, process, file) in &mut players {
        // curl fails when the last chunk is missing.
        process
            .success(SOON)
            .await
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        decode(file).await;
        let tags = recorded(file);
        for kind in [Tag::VIDEO, Tag::AUDIO] {
            let (sent, got) = (clip.frames(kind), frames(&tags, kind));
            let at = run_of(&got, &sent)
                .unwrap_or_else(|| panic!("{program}: kind {kind} is not what was sent"));
            assert!(
                got.len() >= sent.len() / 4 * 3,
                "{program}: {} from {at}",
                got.len()
            );
        }
        let first = tags.iter().find(|t| t.is_media() && t.kind == Tag::VIDEO);
        assert!(first.expect("video").is_key_frame(), "{program}");
        for header in clip.headers() {
            let same = tags
                .iter()
                .any(|t| t.kind == header.kind && t.body == header.body);
            assert!(same, "{program}: configuration of kind {}", header.kind);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_viewer_begins_with_metadata_headers_and_the_gop_at_the_live_edge() {
    let house = House::open().await;
    let server = house.server.http_addr();
    let mut publisher = publisher(&house, "late").await;
    send(&mut publisher, 0..=40).await;
    let mut first = Download::get(server, "/live/late.flv").await;
    first.until(has(40)).await;

    let mut late = Download::get(server, "/live/late.flv").await;
    assert_eq!(late.status, 200, "{}", late.head);
    for (field, value) in [
        ("content-type", "video/x-flv"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", "*"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(late.field(field), Some(value), "{}", late.head);
    }
    late.until(has(40)).await;
    let (_, tags) = late.tags();
    let headers: Vec<bool> = tags.iter().map(Tag::is_header).collect();
    assert_eq!(headers[..3], [true, true, false], "headers, then media");
    // 16 pictures, 1 ms apart, of which the last keeps its own time.
    let expected: Vec<_> = (25..=40).map(|n| (n, 40 * 40 - (40 - n))).collect();
    assert_eq!(pictures(&tags), expected);

    // HTTP/1.0 knows no chunks: the body ends with the connection.
    let mut old = Download::ask(server, "GET /live/late.flv HTTP/1.0").await;
    assert_eq!((old.status, old.field("transfer-encoding")), (200, None));
    old.until(has(40)).await;
    assert_eq!(old.tags().1, tags);

    send(&mut publisher, 41..=45).await;
    publisher.unpublish().await;
    for download in [&mut late, &mut old, &mut first] {
        download.end().await;
        has(45)(&download.tags().1).expect("all of it, then the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_signature_opens_the_source_feed_as_over_rtmp() {
    let house = House::open().await;
    let mut publisher = publisher(&house, "peer").await;
    send(&mut publisher, 0..=40).await;
    let query = house.urls.query(Purpose::Peer, "peer", Hour::Next);
    let server = house.server.http_addr();
    // What has been sent is there when somebody has it.
    let mut first = Download::get(server, "/live/peer.flv").await;
    first.until(has(40)).await;
    let mut peer = Download::get(server, &format!("/live/peer.flv?{query}")).await;
    peer.until(has(40)).await;
    house.wait_for_peers(1).await;
    // Squeezed to the live edge, 1 ms apart: the low latency class.
    let expected: Vec<_> = (25..=40).map(|n| (n, 1600 - (40 - n))).collect();
    assert_eq!(pictures(&peer.tags().1), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_play_hears_why() {
    let play_keys = format!(
        "play_keys = [{{ id = \"viewers\", secret = \"{PLAY_KEY}\", valid_for = \"1s\" }}]"
    );
    let house = House::open_with(&play_keys, "[limits]\nwait = \"200ms\"").await;
    let server = house.server.http_addr();
    let mut publisher = publisher(&house, "a").await;
    send(&mut publisher, 0..=1).await;
    let good = house.urls.query(Purpose::View, "a", Hour::Next);
    let stale = house.urls.query(Purpose::View, "a", Hour::Last);
    let absent = house.urls.query(Purpose::View, "absent", Hour::Next);
    let path = |name: &str, query: &str| format!("/live/{name}.flv?{query}");
    for (line, status, code) in [
        (format!("GET {}", path("a", "")), 403, "signature_missing"),
        (
            format!("GET {}", path("a", &stale)),
            403,
            "signature_expired",
        ),
        (format!("GET {}", path("b", &good)), 403, "signature_wrong"),
        (format!("GET {}", path("absent", &absent)), 404, "not_found"),
        (format!("GET /other/a.flv?{good}"), 404, "unknown_app"),
        (format!("GET {}", path("a%20b", &good)), 400, "bad_name"),
        (format!("POST {}", path("a", &good)), 405, "protocol"),
    ] {
        let mut answer = Download::ask(server, &format!("{line} HTTP/1.1")).await;
        let body = answer.end().await;
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            (answer.status, body["code"].as_str()),
            (status, Some(code)),
            "{line}: {body}"
        );
        assert!(!body["message"].as_str().expect("a message").is_empty());
        assert_eq!(
            answer.field("access-control-allow-origin"),
            Some("*"),
            "pages may read why"
        );
        let length = answer.field("content-length").expect("a length");
        assert_eq!(length.parse(), Ok(body.to_string().len()), "{line}");
    }
    for (target, status) in [
        (path("a", &good), 200),
        (path("a", ""), 403),
        (path("absent", &absent), 404),
    ] {
        let mut answer = Download::ask(server, &format!("HEAD {target} HTTP/1.1")).await;
        assert_eq!(answer.status, status, "HEAD {target}");
        // Nothing behind the head, whatever it says of a length.
        assert_eq!(answer.rest().await, b"", "HEAD {target}");
    }
    house.wait_for_viewers(0).await;
    let mut viewer = Download::get(server, &path("a", &good)).await;
    viewer.until(has(1)).await;

    let preflight = Download::ask(server, "OPTIONS /live/a.flv HTTP/1.1").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.field("access-control-allow-methods"),
        Some("GET, HEAD, OPTIONS")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_told_with_503_and_an_endless_head_is_cut() {
    let more = "[limits]\nwaiting_per_name = 1\n[classes.viewer]\nreaders_per_name = 1";
    let house = House::open_with("", more).await;
    let server = house.server.http_addr();
    let waiting =
        tokio::spawn(async move { Download::get(server, "/live/absent.flv").await.status });
    house.wait_for_viewers(1).await;
    let mut second = Download::get(server, "/live/absent.flv").await;
    assert_eq!(second.status, 503, "{}", second.head);
    assert!(String::from_utf8_lossy(&second.end().await).contains("limit_reached"));
    waiting.abort();
    let _ = waiting.await;

    // A client that leaves the waiting room makes room.
    house.wait_for_viewers(0).await;
    let mut publisher = publisher(&house, "a").await;
    send(&mut publisher, 0..=1).await;
    let mut viewer = Download::get(server, "/live/a.flv").await;
    viewer.until(has(1)).await;
    assert_eq!(Download::get(server, "/live/a.flv").await.status, 503);
    assert_eq!(
        Download::ask(server, "HEAD /live/a.flv HTTP/1.1")
            .await
            .status,
        503
    );

    let endless = format!("GET /live/a.flv HTTP/1.1\r\nX: {}", "x".repeat(20_000));
    assert_eq!(Download::ask(server, &endless).await.status, 431);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_still_served_beside_streams_and_connections_are_not_kept() {
    let house = House::open().await;
    let server = house.server.http_addr();
    for path in ["/healthz", "/readyz"] {
        let mut answer = Download::get(server, path).await;
        // The next request of this connection might be for a stream.
        assert_eq!(
            (answer.status, answer.field("connection")),
            (200, Some("close"))
        );
        answer.end().await;
    }
    for path in ["/", "/live/a/b.flv", "/a.flv", "/api/v1/streams"] {
        assert_eq!(Download::get(server, path).await.status, 404, "{path}");
    }
    // In pieces, so that the head is read more than once.
    let mut socket = TcpStream::connect(server).await.expect("it listens");
    for piece in ["GE", "T /healthz HT", "TP/1.1\r\nHost: x\r", "\n\r\n"] {
        socket.write_all(piece.as_bytes()).await.expect("sent");
        tokio::task::yield_now().await;
    }
    assert_eq!(Download::answer(socket).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_is_noticed_while_nothing_is_published() {
    let house = House::open().await;
    let server = house.server.http_addr();
    let mut publisher = publisher(&house, "quiet").await;
    send(&mut publisher, 0..=1).await;
    let mut leaving = Vec::new();
    for _ in 0..2 {
        let mut viewer = Download::get(server, "/live/quiet.flv").await;
        viewer.until(has(1)).await;
        leaving.push(viewer);
    }
    house.wait_for_viewers(2).await;
    let mut half = leaving.pop().expect("two");
    drop(leaving);
    house.wait_for_viewers(1).await;
    // What it says after its request goes nowhere; the end of what it says is its leaving.
    half.socket
        .write_all(b"GET /healthz HTTP/1.1\r\n\r\n")
        .await
        .expect("sent");
    send(&mut publisher, 2..=2).await;
    half.until(has(2)).await;
    half.socket.shutdown().await.expect("half closed");
    house.wait_for_viewers(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flv_header_tells_the_tracks_there_are() {
    let house = House::open_with("", BURST).await;
    let server = house.server.http_addr();
    let [video, audio] = clip().await.headers();
    for (name, headers, announced, expected) in [
        (
            "both",
            vec![video, audio],
            vec!["videocodecid", "audiocodecid"],
            5,
        ),
        ("video", vec![video], vec!["videocodecid"], 1),
        ("audio", vec![audio], vec!["audiocodecid"], 4),
        // Nothing was said, and the other track may come yet.
        ("unknown", vec![video], vec![], 5),
    ] {
        let mut publisher = Client::publish(&house.urls.push(name))
            .await
            .expect("granted");
        if !announced.is_empty() {
            publisher.send(kind::DATA, 0, on_metadata(&announced)).await;
        }
        for header in headers {
            publisher.send_tag(header, 0).await;
        }
        if name == "audio" {
            publisher.send(kind::AUDIO, 0, vec![0xaf, 1, 1, 2, 3]).await;
        } else {
            send(&mut publisher, 0..=0).await;
        }
        let path = format!("/live/{name}.flv");
        // The first may come before the metadata; it says when all is there.
        let media = |tags: &[Tag]| tags.iter().any(Tag::is_media).then_some(());
        Download::get(server, &path).await.until(media).await;
        let mut viewer = Download::get(server, &path).await;
        viewer.until(media).await;
        assert_eq!(viewer.tags().0, expected, "{name}");
    }
}

/// `@setDataFrame`, `onMetaData`, and an ECMA array of numbers, as ffmpeg sends them.
fn on_metadata(keys: &[&str]) -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let mut out = [
        vec![2],
        string("@setDataFrame"),
        vec![2],
        string("onMetaData"),
        vec![8],
    ]
    .concat();
    out.extend((keys.len() as u32).to_be_bytes());
    for key in keys {
        out.extend(string(key));
        out.push(0);
        out.extend(7.0f64.to_be_bytes());
    }
    out.extend([0, 0, 9]);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_down_ends_the_answer_whole() {
    let house = House::open().await;
    let mut publisher = publisher(&house, "a").await;
    send(&mut publisher, 0..=1).await;
    let mut viewer = Download::get(house.server.http_addr(), "/live/a.flv").await;
    viewer.until(has(1)).await;
    let (server, _) = (house.server.shutdown(), publisher);
    let ((), _) = tokio::join!(server, viewer.end());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffprobe_sees_both_tracks_and_curl_the_headers() {
    let house = House::open().await;
    let clip = clip().await;
    let mut publisher = publisher(&house, "probed").await;
    let sending = tokio::spawn(async move {
        publisher.send_in_real_time(clip.tags.iter(), 0).await;
        publisher
    });
    let url = house.http_flv("probed");
    let arguments =
        format!("-v error -show_entries stream=codec_name -of csv=p=0 -read_intervals %+1 {url}");
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let seen = process::output("ffprobe", &arguments, SOON)
        .await
        .expect("ffprobe");
    let seen = String::from_utf8(seen).expect("text");
    // Metadata whose time is not 0, as late joiners get it, this program lists as a track of text.
    let tracks = seen.split_whitespace().filter(|codec| *codec != "text");
    let mut codecs: Vec<_> = tracks.collect();
    codecs.sort_unstable();
    assert_eq!(codecs, ["aac", "h264"]);
    let head = process::output("curl", &["-sS", "--head", &url], SOON)
        .await
        .expect("curl");
    let head = String::from_utf8(head).expect("text");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("video/x-flv"),
        "{head}"
    );
    sending.await.expect("sent").unpublish().await;
}

/// Whoever takes less than the stream has is skipped ahead, and never gets half a tag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_skips_whole_tags_to_a_key_frame() {
    let house = House::open_with("", LITTLE_LAG).await;
    let server = house.server.http_addr();
    skips_to_key_frames(&house, narrow(server).await).await;
}

/// So little that a reader is soon behind.
pub const LITTLE_LAG: &str = "[classes.viewer]\nmax_lag = \"500ms\"";

/// A connection that holds little of what the reader has not read.
pub async fn narrow(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .set_recv_buffer_size(16 << 10)
        .expect("a small buffer");
    socket.connect(server).await.expect("it listens")
}

/// Plays over `connection`, which does not read while 16 s of a stream are published.
pub async fn skips_to_key_frames<S: AsyncRead + AsyncWrite + Unpin>(
    house: &House,
    mut connection: S,
) {
    let mut publisher = publisher(house, "slow").await;
    // 20 KB a picture: 4 Mbit/s if it were in real time.
    let body = |n: u32| numbered(n, n.is_multiple_of(25), 20_000);
    publisher.send(kind::VIDEO, 0, body(0)).await;
    let request = b"GET /live/slow.flv HTTP/1.1\r\n\r\n";
    connection.write_all(request).await.expect("sent");
    let mut viewer = Download::answer(connection).await;
    viewer.until(has(0)).await;
    for n in 1..=400 {
        publisher.send(kind::VIDEO, n * 40, body(n)).await;
    }
    // 2 headers and 401 pictures.
    let line = "linkmic_ingest_messages_total 403";
    let taken = poll(line, SOON, || async {
        let metrics = house.ask("/metrics").await.body;
        metrics.lines().any(|l| l == line).then_some(())
    });
    taken.await.expect("the server has all");
    viewer.until(has(400)).await;
    let got = pictures(&viewer.tags().1);
    assert!(got.len() < 400, "nothing was skipped");
    for pair in got.windows(2) {
        let [(before, _), (next, _)] = [pair[0], pair[1]];
        let follows = next == before + 1 || next.is_multiple_of(25);
        assert!(follows, "went on at {next} after {before}");
    }
    // Nothing stays behind in a reader that has caught up: each picture comes without the next one.
    for n in 401..=410 {
        publisher.send(kind::VIDEO, n * 40, body(n)).await;
        viewer.until(has(n)).await;
    }
    publisher.unpublish().await;
    viewer.end().await;
}

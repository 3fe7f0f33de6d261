//! Behind load balancers: whose address counts, who is believed, and HAProxy itself. And listeners, more than one.

use std::net::SocketAddr;

use linkmic::probe::nginx::free_addr;
use linkmic::probe::process::{Process, poll};
use linkmic::rtmp::kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::SOON;
use super::client::Client;
use super::clip::{clip, numbered};
use super::download::Download;
use super::house::{Hour, House};
use super::programs::Publisher;
use linkmic::auth::Purpose;

/// A server whose public listeners expect headers from loopback, or from elsewhere only.
async fn house(trusted: &str) -> House {
    let access =
        format!("[access]\ntrusted_proxies = [\"{trusted}\"]\n[limits]\nhandshake = \"1s\"");
    House::open_edited("", &access, |text| {
        let expecting = |text: String, section: &str| {
            text.replace(section, &format!("{section}proxy_protocol = true\n"))
        };
        expecting(expecting(text, "[rtmp]\n"), "[http]\n")
    })
    .await
}

/// A proxy that says `header` first.
async fn forward(to: SocketAddr, header: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.expect("it listens");
                server.write_all(header).await.expect("sent");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    here
}

/// The URL to publish `name`, by way of `door`.
fn push_through(house: &House, door: SocketAddr, name: &str) -> String {
    let query = house.urls.query(Purpose::Push, name, Hour::Next);
    format!("rtmp://{door}/live/{name}?{query}")
}

/// The publisher's address, as the API tells it.
async fn publisher_address(house: &House, name: &str) -> String {
    let stream = house.ask(&format!("/api/v1/streams/live/{name}")).await;
    let address = stream.json()["publisher"]["address"].clone();
    address.as_str().expect("an address").to_owned()
}

const TEXT: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 4242 1935\r\n";
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x10\x92\x07\x8f";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_announced_address_is_the_clients_everywhere() {
    let house = house("127.0.0.1").await;
    for (name, header, expected) in [
        ("text", TEXT, "203.0.113.7:4242"),
        ("binary", BINARY, "[2001:db8::7]:4242"),
    ] {
        let door = forward(house.urls.rtmp(), header).await;
        let url = push_through(&house, door, name);
        let _publisher = Client::publish(&url).await.expect("granted");
        assert_eq!(publisher_address(&house, name).await, expected);
    }
    // A proxy that speaks for itself has its own.
    let door = forward(house.urls.rtmp(), LOCAL).await;
    let url = push_through(&house, door, "local");
    let _publisher = Client::publish(&url).await.expect("granted");
    let address = publisher_address(&house, "local").await;
    assert!(address.starts_with("127.0.0.1:"), "{address}");

    let door = forward(house.server.http_addr(), TEXT).await;
    assert_eq!(Download::get(door, "/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_count_the_clients_behind_a_proxy_apart() {
    let more = "[access]\ntrusted_proxies = \"127.0.0.0/8\"\n[limits]\nwaiting_per_address = 1\nwait = \"10s\"";
    let house = House::open_edited("", more, |text| {
        text.replace("[http]\n", "[http]\nproxy_protocol = true\n")
    })
    .await;
    let server = house.server.http_addr();
    let one = forward(server, TEXT).await;
    let other = forward(server, BINARY).await;
    let mut waiting = Vec::new();
    for (n, door) in [one, other].into_iter().enumerate() {
        let target = format!("/live/absent{n}.flv");
        waiting.push(tokio::spawn(async move {
            Download::get(door, &target).await.status
        }));
        house.wait_for_viewers(n + 1).await;
    }
    let refused = Download::get(one, "/live/absent2.flv").await;
    assert_eq!(refused.status, 503, "a second one from 203.0.113.7");
    for task in waiting {
        assert!(!task.is_finished());
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_in_without_a_header_or_with_one_from_elsewhere() {
    let house_of_loopback = house("127.0.0.0/8").await;
    let house_of_others = house("10.0.0.0/8").await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".as_slice();
    let handshake = [3; 1537].as_slice();
    for (name, house, header, is_answered) in [
        ("a header", &house_of_loopback, TEXT, true),
        ("no header", &house_of_loopback, b"".as_slice(), false),
        (
            "half a header",
            &house_of_loopback,
            b"PROXY TCP4 203.0.",
            false,
        ),
        ("an untrusted header", &house_of_others, TEXT, false),
        ("nothing, from elsewhere", &house_of_others, b"", false),
    ] {
        for (door, words) in [
            (house.urls.rtmp(), handshake),
            (house.server.http_addr(), request),
            (house.server.http_addr(), b"".as_slice()),
        ] {
            let mut socket = TcpStream::connect(door).await.expect("it listens");
            let words = [header, words].concat();
            socket.write_all(&words).await.expect("sent");
            let mut heard = Vec::new();
            let closed = tokio::time::timeout(SOON, socket.read_to_end(&mut heard)).await;
            // What was not read of it may turn the close into a reset.
            let _ = closed.expect("it closes");
            let spoke = words.len() > header.len();
            assert_eq!(!heard.is_empty(), is_answered && spoke, "{name}: {heard:?}");
        }
    }
    // Whoever is trusted and says too little is told from who is not trusted, whatever it says; silence is silence.
    for (house, expected) in [
        (
            &house_of_loopback,
            // RTMP without a header, and behind half of one.
            [("proxy_header", 2), ("proxy_untrusted", 0), ("protocol", 0)],
        ),
        (
            &house_of_others,
            [("proxy_header", 0), ("proxy_untrusted", 2), ("protocol", 0)],
        ),
    ] {
        for (reason, count) in expected {
            let line = format!("linkmic_ingest_disconnects_total{{reason=\"{reason}\"}} {count}");
            let counted = poll(&line, SOON, || async {
                let metrics = house.ask("/metrics").await.body;
                metrics.lines().any(|l| l == line).then_some(())
            });
            if let Err(e) = counted.await {
                panic!("{e}\n{}", house.ask("/metrics").await.body);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_announces_publishers_and_viewers_in_both_versions() {
    let house = house("127.0.0.0/8").await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut doors = Vec::new();
    let mut text = "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n".to_owned();
    for (at, (to, how)) in [
        (house.urls.rtmp(), "send-proxy"),
        (
            house.urls.rtmp(),
            "send-proxy-v2 check check-send-proxy inter 100ms",
        ),
        (house.server.http_addr(), "send-proxy"),
    ]
    .into_iter()
    .enumerate()
    {
        let door = free_addr().await.expect("a port");
        text += &format!("listen l{at}\n  bind {door}\n  server s {to} {how}\n");
        doors.push(door);
    }
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, text).expect("written");
    let file = file.display().to_string();
    let mut haproxy = Process::spawn("haproxy", &["-db", "-f", &file]).expect("it starts");
    for door in &doors {
        let listens = poll("haproxy listening", SOON, || async {
            TcpStream::connect(door).await.ok()
        });
        listens
            .await
            .unwrap_or_else(|e| panic!("{e}: {}", haproxy.said()));
    }
    for (name, door) in [("v1", doors[0]), ("v2", doors[1])] {
        let url = push_through(&house, door, name);
        let mut publisher = Client::publish(&url).await.expect("granted");
        // Not haproxy's connection to us, but the client's to haproxy.
        let expected = publisher.local_addr().to_string();
        assert_eq!(publisher_address(&house, name).await, expected);
        for header in clip().await.headers() {
            publisher.send_tag(header, 0).await;
        }
        publisher.send(kind::VIDEO, 0, numbered(0, true, 100)).await;
        let mut viewer = Download::get(doors[2], &format!("/live/{name}.flv")).await;
        viewer
            .until(|tags| tags.iter().any(|t| t.is_key_frame()).then_some(()))
            .await;
    }
    assert!(haproxy.ended().is_none(), "{}", haproxy.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_listeners_of_both_families_serve_the_same_streams() {
    let house = House::open_edited("", "", |text| {
        text.replacen(
            "\"127.0.0.1:0\"",
            "[\"127.0.0.1:0\", \"[::1]:0\", \"[::]:0\"]",
            1,
        )
    })
    .await;
    let [four, six, any] = *house.server.rtmp_addrs() else {
        panic!("three listeners");
    };
    let clip = clip().await;
    let mut players = Vec::new();
    for address in [four, six, SocketAddr::from(([127, 0, 0, 1], any.port()))] {
        let url = format!("rtmp://{address}/live/both");
        let arguments = ["-v", "error", "-i", &url, "-c", "copy", "-f", "null", "-"];
        players.push((
            address,
            Process::spawn("ffmpeg", &arguments).expect("it starts"),
        ));
    }
    house.wait_for_viewers(players.len()).await;
    let mut publisher = Publisher::Ffmpeg.start(clip.path(), &push_through(&house, six, "both"));
    let published = poll("a publisher", SOON, || async {
        let stream = house.ask("/api/v1/streams/live/both").await.json();
        let address = stream["publisher"]["address"].as_str().map(str::to_owned);
        address.filter(|address| address.starts_with("[::1]:"))
    });
    published.await.expect("from ::1");
    publisher.success(SOON).await.expect("published");
    for (address, player) in &mut players {
        player
            .success(SOON)
            .await
            .unwrap_or_else(|e| panic!("{address}: {e}"));
    }
    // Whoever comes over IPv4 to a listener of both families has an IPv4 address.
    let through_any = SocketAddr::from(([127, 0, 0, 1], any.port()));
    let url = push_through(&house, through_any, "mapped");
    let publisher = Client::publish(&url).await.expect("granted");
    let expected = publisher.local_addr().to_string();
    assert_eq!(publisher_address(&house, "mapped").await, expected);
}

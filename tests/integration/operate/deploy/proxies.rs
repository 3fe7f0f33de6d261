//! The examples for nginx and HAProxy, as they are shipped but for addresses and certificates, between real clients and a server.

use std::net::SocketAddr;
use std::path::Path;

use linkmic::probe::nginx::free_addr;
use linkmic::probe::process::{Process, output, poll};
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Publisher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{replaced, shipped};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::House;
use crate::edge::programs::{decode, recorded};
use crate::edge::tunnel::Pair;

/// Where clients reach a proxy.
struct Doors {
    rtmp: SocketAddr,
    rtmps: SocketAddr,
    https: SocketAddr,
}

impl Doors {
    async fn free() -> Self {
        let mut free = Vec::new();
        for _ in 0..3 {
            free.push(free_addr().await.expect("a port"));
        }
        Self {
            rtmp: free[0],
            rtmps: free[1],
            https: free[2],
        }
    }

    /// Waits until the proxy listens.
    async fn open(&self, proxy: &Process) {
        for door in [self.rtmp, self.rtmps, self.https] {
            let listens = poll("the proxy to listen", SOON, || async {
                TcpStream::connect(door).await.ok()
            });
            listens
                .await
                .unwrap_or_else(|e| panic!("{e}: {}", proxy.said()));
        }
    }
}

/// A server that takes its clients' addresses from a proxy on this machine.
async fn house() -> House {
    let access = "[access]\ntrusted_proxies = [\"127.0.0.1\"]";
    House::open_edited("", access, |text| {
        let text = text.replace("[rtmp]\n", "[rtmp]\nproxy_protocol = true\n");
        text.replace("[http]\n", "[http]\nproxy_protocol = true\n")
    })
    .await
}

/// The address from which a client is connected to `door`.
async fn client_of(door: SocketAddr) -> String {
    let filter = format!("dst {}:{}", door.ip(), door.port());
    let words = ["-H", "-t", "-n", "state", "established", &filter];
    let said = output("ss", &words, SOON).await.expect("ss");
    let said = String::from_utf8(said).expect("text");
    let mut clients = said
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    let client = clients.next().unwrap_or_else(|| panic!("nobody at {door}"));
    assert_eq!(clients.next(), None, "more than one at {door}:\n{said}");
    client.to_owned()
}

/// Publishes over RTMP, plays over RTMPS and HTTPS, all of it through the proxy; the API shows the publisher's own address.
async fn publishes_and_plays(house: &House, doors: &Doors, pair: &Pair, folder: &Path) {
    let own = house.urls.rtmp().to_string();
    let through = |url: &str| url.replace(&own, &doors.rtmp.to_string());
    let push = through(&house.urls.push("a"));
    let show = Show::sub(Colour::RED, 600.0);
    let mut publisher = Publisher::start(&push, &show).expect("ffmpeg");
    let address = poll("a publisher", SOON, || async {
        let stream = house.ask("/api/v1/streams/live/a").await.json();
        let is_live = stream["publisher"]["video"].is_object();
        let address = stream["publisher"]["address"].as_str()?.to_owned();
        is_live.then_some(address)
    });
    let address = address
        .await
        .unwrap_or_else(|e| panic!("{e}: {:?}", publisher.check()));
    assert_eq!(address, client_of(doors.rtmp).await);

    let plain = through(&house.urls.plain("a"));
    let rtmps = replaced(
        &plain,
        &format!("rtmp://{}", doors.rtmp),
        &format!("rtmps://{}", doors.rtmps),
    );
    let https = format!("https://localhost:{}/live/a.flv", doors.https.port());
    let trusted = pair.certificate().display().to_string();
    let file = |name: &str| folder.join(name).display().to_string();
    let none: &[&str] = &[];
    for (name, url, more) in [
        ("rtmp.flv", &plain, none),
        ("rtmps.flv", &rtmps, none),
        ("https.flv", &https, &["-ca_file", &trusted]),
    ] {
        let file = file(name);
        let words = ["-v", "error", "-y"];
        let rest = ["-i", url, "-t", "2", "-c", "copy", "-f", "flv", &file];
        let words: Vec<&str> = [&words[..], more, &rest].concat();
        let mut player = Process::spawn("ffmpeg", &words).expect("ffmpeg");
        player
            .success(SOON)
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        decode(Path::new(&file)).await;
        let frames = recorded(Path::new(&file)).len();
        assert!(frames > 20, "{name}: {frames} frames");
    }
    publisher.check().expect("still publishing");
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_as_in_the_example_ends_tls_and_tells_the_clients_address() {
    let (house, doors, pair) = (house().await, Doors::free().await, Pair::new());
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut text = shipped("deploy/nginx/stream.conf");
    for (from, to) in [
        (
            "server 127.0.0.1:11935;",
            format!("server {};", house.urls.rtmp()),
        ),
        (
            "server 127.0.0.1:18080;",
            format!("server {};", house.server.http_addr()),
        ),
        ("listen 1935 ", format!("listen {} ", doors.rtmp)),
        ("listen 1936 ", format!("listen {} ", doors.rtmps)),
        ("listen 8443 ", format!("listen {} ", doors.https)),
        (
            "/etc/nginx/linkmic/cert.pem",
            pair.certificate().display().to_string(),
        ),
        (
            "/etc/nginx/linkmic/key.pem",
            pair.key().display().to_string(),
        ),
    ] {
        text = replaced(&text, from, &to);
    }
    std::fs::write(at("stream.conf"), text).expect("written");
    // What Debian's own nginx.conf has around it, as far as it matters.
    let around = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off;\nmaster_process off;\npid {};\nerror_log stderr;\nevents {{}}\ninclude {};\n",
        at("pid"),
        at("stream.conf")
    );
    std::fs::write(at("nginx.conf"), around).expect("written");
    let prefix = folder.path().display().to_string();
    let file = at("nginx.conf");
    let words = ["-p", &prefix, "-c", &file, "-e", "stderr"];
    let nginx = Process::spawn("nginx", &words).expect("nginx");
    doors.open(&nginx).await;
    publishes_and_plays(&house, &doors, &pair, folder.path()).await;
}

/// The example for HAProxy with two servers, each by where it takes RTMP and where HTTP.
fn haproxy(
    servers: [(SocketAddr, SocketAddr); 2],
    doors: &Doors,
    pair: &Pair,
    folder: &Path,
) -> Process {
    let at = |name: &str| folder.join(name).display().to_string();
    let read = |path: &Path| std::fs::read_to_string(path).expect("a PEM file");
    let both = read(&pair.certificate()) + &read(&pair.key());
    std::fs::write(at("linkmic.pem"), both).expect("written");
    let mut text = shipped("deploy/haproxy/haproxy.cfg");
    for (host, (rtmp, http)) in ["10.0.0.11", "10.0.0.12"].into_iter().zip(servers) {
        let port = format!("{rtmp} port {}", http.port());
        text = replaced(&text, &format!("{host}:1935 port 8080"), &port);
        text = replaced(&text, &format!("{host}:8080"), &http.to_string());
    }
    for (from, to) in [
        // The machine may not allow the descriptors for more.
        ("maxconn 20000", "maxconn 100".to_owned()),
        ("bind :1935\n", format!("bind {}\n", doors.rtmp)),
        ("bind :1936 ", format!("bind {} ", doors.rtmps)),
        ("bind :8443 ", format!("bind {} ", doors.https)),
        ("/etc/haproxy/linkmic.pem", at("linkmic.pem")),
    ] {
        text = replaced(&text, from, &to);
    }
    std::fs::write(at("haproxy.cfg"), text).expect("written");
    Process::spawn("haproxy", &["-db", "-f", &at("haproxy.cfg")]).expect("haproxy")
}

fn both_ports(house: &House) -> (SocketAddr, SocketAddr) {
    (house.urls.rtmp(), house.server.http_addr())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_as_in_the_example_ends_tls_and_tells_the_clients_address() {
    let (house, spare) = (house().await, house().await);
    let (doors, pair) = (Doors::free().await, Pair::new());
    let folder = tempfile::tempdir().expect("a folder");
    let servers = [both_ports(&house), both_ports(&spare)];
    let haproxy = haproxy(servers, &doors, &pair, folder.path());
    doors.open(&haproxy).await;
    publishes_and_plays(&house, &doors, &pair, folder.path()).await;
}

/// Answers every request with 503, as a server does that is not ready.
async fn unready() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut asked = [0; 1024];
            let _ = client.read(&mut asked).await;
            let _ = client.write_all(b"HTTP/1.0 503 draining\r\n\r\n").await;
        }
    });
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_as_in_the_example_sends_new_clients_to_the_server_that_is_ready() {
    let (house, spare) = (house().await, house().await);
    let (doors, pair) = (Doors::free().await, Pair::new());
    let folder = tempfile::tempdir().expect("a folder");
    // The first one takes connections, and says that it wants none.
    let servers = [(house.urls.rtmp(), unready().await), both_ports(&spare)];
    let haproxy = haproxy(servers, &doors, &pair, folder.path());
    doors.open(&haproxy).await;
    let mut tries = 0;
    let arrived = poll("a publisher at the second server", SOON, || {
        tries += 1;
        let name = format!("try-{tries}");
        let url = spare.urls.push(&name);
        let url = url.replace(&spare.urls.rtmp().to_string(), &doors.rtmp.to_string());
        let spare = &spare;
        async move {
            // The first ones come before HAProxy has asked twice.
            let publisher = Client::publish(&url).await.ok()?;
            let stream = spare.ask(&format!("/api/v1/streams/live/{name}")).await;
            let address = stream.json()["publisher"]["address"].clone();
            (address == publisher.local_addr().to_string()).then_some(())
        }
    });
    arrived
        .await
        .unwrap_or_else(|e| panic!("{e}: {}", haproxy.said()));
}

//! SIGHUP to the real binary while streams run: nobody notices, whatever the file says, and certificates change for
//! those who come after.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use linkmic::probe::flv::Tag;
use linkmic::probe::process::poll;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::SOON;
use super::client::{Client, No};
use super::clip::number_of;
use super::download::Download;
use super::live::{GOP, Live, Sent, Watcher};
use super::tunnel::{Pair, Tunnel, inside_tls, shown};
use crate::abuse::binary::Binary;

const KBIT_350: usize = 350_000;
const RELOADS: usize = 100;
/// A busy machine may be slow; nobody is to skip for it here.
const PATIENT: &str =
    "[classes.low_latency]\nmax_lag = \"10s\"\n[classes.viewer]\nmax_lag = \"20s\"\n";
/// From where nobody may publish in any of the good files, and in the first one already.
const DENIED: &str = "127.0.0.9";

/// A player over HTTP that reads until the picture that it is told.
struct Page {
    last: Arc<AtomicU32>,
    task: JoinHandle<Vec<u32>>,
}

impl Page {
    async fn open(server: SocketAddr, name: &str) -> Self {
        let mut download = Download::get(server, &format!("/live/{name}.flv")).await;
        assert_eq!(download.status, 200);
        let last = Arc::new(AtomicU32::new(u32::MAX));
        let until = last.clone();
        let task = tokio::spawn(async move {
            download
                .until(|tags| {
                    let pictures = tags.iter().filter(|t| t.kind == Tag::VIDEO);
                    let numbers = pictures.filter_map(|t| number_of(&t.body));
                    let numbers: Vec<u32> = numbers.collect();
                    let newest = *numbers.last()?;
                    (newest >= until.load(Ordering::Relaxed)).then_some(numbers)
                })
                .await
        });
        Self { last, task }
    }

    async fn numbers(self, last: u32) -> Vec<u32> {
        self.last.store(last, Ordering::Relaxed);
        self.task.await.expect("it plays to the end")
    }
}

/// All connections of a stream as the API tells them: whoever was replaced would have another address or number.
async fn connections(server: &Binary, name: &str) -> (Value, Vec<(Value, Value)>) {
    let path = format!("/api/v1/streams/live/{name}");
    let stream = server.control.get(&path).await.expect("an answer").json();
    let readers = server.control.get(&format!("{path}/readers")).await;
    let readers = readers.expect("an answer").json();
    let readers = readers["readers"].as_array().expect("a list").iter();
    let readers = readers.map(|r| (r["id"].clone(), r["address"].clone()));
    (stream["publisher"]["address"].clone(), readers.collect())
}

fn newest(sent: &Sent) -> u32 {
    sent.lock().expect("no panic").len() as u32 - 1
}

/// Every picture from the reader's first to `last`, and no end.
async fn assert_all_seen(name: &str, reader: &Watcher, last: u32) {
    let what = format!("{name}: picture {last}");
    let seen = poll(&what, SOON, || async {
        reader.look(|got| {
            let newest = got.pictures.last().map(|p| p.number);
            (newest >= Some(last) || got.ended.is_some()).then_some(())
        })
    });
    seen.await.unwrap_or_else(|e| panic!("{e}"));
    reader.look(|got| {
        assert_eq!(got.ended, None, "{name}");
        let numbers: Vec<u32> = got.pictures.iter().map(|p| p.number).collect();
        assert_unbroken(name, &numbers, last);
    });
}

fn assert_unbroken(name: &str, numbers: &[u32], last: u32) {
    assert!(numbers[0] < GOP, "{name} was there from the beginning");
    for pair in numbers.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "{name}");
    }
    assert!(numbers.last() >= Some(&last), "{name}");
}

/// Another good file in each round: keys come and go, lists, limits and what applications may have changes, and what
/// waits for a restart as well.
fn another(round: usize, section: &str) -> (String, String) {
    let key = |set: &str, id: usize| {
        format!("{set} = [{{ id = \"r{id}\", secret = \"{set}-{id:06}-0123456789\" }}]\n")
    };
    let mut auth = String::new();
    if round % 2 == 1 {
        auth += &key("peer_keys", round);
    }
    if round % 3 == 1 {
        auth += &key("play_keys", round);
    }
    let more = format!(
        "{section}{PATIENT}[access]\npublish = {{ deny = [\"{DENIED}\", \"10.0.0.{round}\"] }}\n\
         play = {{ deny = [\"10.1.0.{round}\"] }}\n\
         [apps.live]\nmax_kbps = {}\npublish_idle = \"{}s\"\n\
         [limits]\npublishers = {}\nconnections = {}\nmemory = \"{}MiB\"\nwait = \"{}s\"\n",
        5_000 + round,
        10 + round,
        500 + round,
        600 + round,
        700 + round,
        1 + round,
    );
    (auth, more)
}

/// Half of the reloads are asked for through the API, the others by signal; mistakes come both ways.
fn by_api(round: usize) -> bool {
    (round / 10 + round) % 2 == 1
}

/// Nothing of a refused file holds: who was denied is denied, and who was not is not.
async fn assert_nothing_changed(server: &Binary) {
    let denied = DENIED.parse().expect("an address");
    let refused = Client::publish_from(denied, &server.urls.push("probe")).await;
    let No { description, .. } = refused.err().expect("as in the last good file");
    assert!(
        description.starts_with("your address may not publish here"),
        "{description}"
    );
    let granted = Client::publish(&server.urls.push("probe")).await;
    granted.expect("as in the last good file").unpublish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_are_noticed_by_no_connection() {
    let pair = Pair::new();
    let section = pair.section();
    let access = format!("[access]\npublish = {{ deny = [\"{DENIED}\"] }}\n");
    let server = Binary::serve(&format!("{section}{PATIENT}{access}")).await;
    let rtmp = server.urls.rtmp();
    let tunnel = Tunnel::to(server.rtmps.expect("it listens"), pair.trusting()).await;
    let plain = Live::start(&server.urls.push("plain"), KBIT_350).await;
    let push = tunnel.through(&server.urls.push("secure"), rtmp);
    let secure = Live::start(&push, KBIT_350).await;
    let mut readers = Vec::new();
    for (stream, live) in [("plain", &plain), ("secure", &secure)] {
        let (viewer, peer) = (server.urls.plain(stream), server.urls.peer(stream));
        for (class, url) in [("viewer", viewer), ("peer", peer)] {
            for (door, url) in [("RTMPS", tunnel.through(&url, rtmp)), ("RTMP", url)] {
                let reader = Watcher::start(&url, &live.sent).await;
                readers.push((format!("{stream}, {class}, {door}"), reader, live));
            }
        }
    }
    let page = Page::open(server.http, "plain").await;
    for (name, reader, _) in &readers {
        poll(name, SOON, || async {
            reader.look(|got| (got.pictures.len() > GOP as usize).then_some(()))
        })
        .await
        .expect("it plays");
    }
    let before = [
        connections(&server, "plain").await,
        connections(&server, "secure").await,
    ];
    assert_eq!((before[0].1.len(), before[1].1.len()), (5, 4));

    let (mut good, mut bad) = (0, 0);
    for round in 0..RELOADS {
        let (auth, more) = another(round, &section);
        match round % 20 {
            // A mistake in a file that would let everybody in but those who are there, and end idle ones at once.
            9 => {
                let mistaken = "[access]\npublish = { deny = [\"127.0.0.1\"] }\n\
                    [apps.live]\npublish_idle = \"1ms\"\n[limits]\npublishers = \"x\"\n";
                let mistaken = format!("{section}{PATIENT}{mistaken}");
                if by_api(round) {
                    let answer = server.reload_by_api("", &mistaken).await;
                    assert_eq!(answer.status, 422, "{}", answer.body);
                    let rejected = &answer.json()["rejected"];
                    assert_eq!(rejected[0]["key"], "limits.publishers", "{rejected}");
                } else {
                    let line = server.reload("", &mistaken).await;
                    assert!(line.contains("not reloaded, nothing changed"), "{line}");
                    assert!(line.contains("limits.publishers: "), "{line}");
                }
                assert_nothing_changed(&server).await;
                bad += 1;
            }
            // No mistake in the file, but the certificate is none.
            19 => {
                let was = fs::read(pair.certificate()).expect("a certificate");
                fs::write(pair.certificate(), "nothing").expect("written");
                let more = more.replace(DENIED, "127.0.0.1");
                if by_api(round) {
                    let answer = server.reload_by_api(&auth, &more).await;
                    assert_eq!(answer.status, 422, "{}", answer.body);
                    let rejected = &answer.json()["rejected"];
                    assert_eq!(rejected[0]["key"], "rtmps.certificate", "{rejected}");
                } else {
                    let line = server.reload(&auth, &more).await;
                    let expected = "not reloaded, nothing changed: rtmps";
                    assert!(line.contains(expected), "{line}");
                }
                assert_nothing_changed(&server).await;
                fs::write(pair.certificate(), was).expect("written");
                bad += 1;
            }
            at => {
                if at == 0 {
                    pair.renew();
                }
                if by_api(round) {
                    let answer = server.reload_by_api(&auth, &more).await;
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    let answer = answer.json();
                    let has = |list: &str, key: &str| {
                        let list = answer[list].as_array().expect("a list");
                        list.iter().any(|own| own == key)
                    };
                    assert!(has("applied", "limits.publishers"), "{answer}");
                    assert!(has("applied", "apps.live.publish_idle"), "{answer}");
                    assert!(has("needs_restart", "limits.wait"), "{answer}");
                    assert!(!has("needs_restart", "limits.publishers"), "{answer}");
                } else {
                    let line = server.reload(&auth, &more).await;
                    assert!(line.contains("configuration reloaded"), "{line}");
                    assert!(line.contains("limits.publishers"), "{line}");
                }
                good += 1;
            }
        }
    }
    assert_eq!((good, bad), (90, 10));

    // Another GOP, so that whatever a reload did has had its time.
    for (name, reader, live) in &readers {
        let last = newest(&live.sent) + GOP;
        assert_all_seen(name, reader, last).await;
    }
    let last = newest(&plain.sent);
    assert_unbroken("plain, viewer, HTTP", &page.numbers(last).await, last);
    let after = [
        connections(&server, "plain").await,
        connections(&server, "secure").await,
    ];
    // The one over HTTP has gone by itself.
    assert_eq!(after[0].0, before[0].0);
    assert_eq!(after[1], before[1]);
    for reader in &after[0].1 {
        assert!(before[0].1.contains(reader), "{reader:?} is new");
    }
    // Those who asked whether something had changed and the one over HTTP, and nobody else.
    let expected = [("address_denied", 10), ("disconnected", 11)];
    let counted = poll("no other ends", SOON, || async {
        let ends = server.ends().await;
        let ends = ends.iter().map(|(why, count)| (why.as_str(), *count));
        ends.eq(expected).then_some(())
    });
    if let Err(e) = counted.await {
        panic!("{e}: {:?}", server.ends().await);
    }
    println!("{good} reloads and {bad} refused ones, {last} pictures");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_changed_by_a_signal_and_a_broken_one_is_reported_and_not_taken() {
    let pair = Pair::new();
    let section = pair.section();
    let server = Binary::serve(&format!("{section}{PATIENT}")).await;
    let rtmps = server.rtmps.expect("it listens");
    let rtmp = server.urls.rtmp();
    let old = pair.trusting();
    let tunnel = Tunnel::to(rtmps, old.clone()).await;
    let push = tunnel.through(&server.urls.push("a"), rtmp);
    let live = Live::start(&push, KBIT_350).await;
    let url = tunnel.through(&server.urls.plain("a"), rtmp);
    let reader = Watcher::start(&url, &live.sent).await;
    let first = pair.on_disk();
    assert_eq!(shown(rtmps, "-tls1_3").await.as_ref(), Some(&first));

    pair.renew();
    assert_ne!(pair.on_disk(), first);
    let more = format!("{section}{PATIENT}");
    let line = server.reload("", &more).await;
    assert!(line.contains("configuration reloaded"), "{line}");
    let new = pair.on_disk();
    for version in ["-tls1_3", "-tls1_2"] {
        assert_eq!(shown(rtmps, version).await.as_ref(), Some(&new));
    }
    // Not only shown: the key is the new one too.
    let dial = async || TcpStream::connect(rtmps).await.expect("it listens");
    let shaken = inside_tls(&pair.trusting(), dial().await).await;
    shaken.expect("the new one is trusted");
    let refused = inside_tls(&old, dial().await).await;
    refused.expect_err("the old one is not shown any more");
    let tunnel = Tunnel::to(rtmps, pair.trusting()).await;
    let url = tunnel.through(&server.urls.plain("a"), rtmp);
    let newcomer = Watcher::start(&url, &live.sent).await;

    let key = fs::read(pair.key()).expect("a key");
    for (name, file, text, words) in [
        (
            "no certificate",
            pair.certificate(),
            b"nothing".to_vec(),
            "there is no certificate in",
        ),
        (
            "no key",
            pair.key(),
            b"nothing".to_vec(),
            "cannot read the private key",
        ),
        (
            "the key of another",
            pair.key(),
            fs::read(Pair::new().key()).expect("a key"),
            "does not go with the certificate",
        ),
    ] {
        let was = fs::read(&file).expect("it was there");
        fs::write(&file, text).expect("written");
        let line = server.reload("", &more).await;
        assert!(
            line.contains("not reloaded, nothing changed: rtmps"),
            "{name}: {line}"
        );
        assert!(line.contains(words), "{name}: {line}");
        assert!(!line.contains("PRIVATE"), "{name}: {line}");
        assert_eq!(shown(rtmps, "-tls1_3").await.as_ref(), Some(&new), "{name}");
        fs::write(&file, was).expect("written");
    }
    fs::remove_file(pair.key()).expect("it was there");
    let line = server.reload("", &more).await;
    assert!(line.contains("cannot read the private key"), "{line}");
    fs::write(pair.key(), key).expect("written");
    let line = server.reload("", &more).await;
    assert!(line.contains("configuration reloaded"), "{line}");

    let last = newest(&live.sent) + GOP;
    assert_all_seen("there before", &reader, last).await;
    newcomer.look(|got| assert_eq!(got.ended, None));
}

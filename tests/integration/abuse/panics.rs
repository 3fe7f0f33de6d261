//! A mistake of ours that panics in one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linkmic::auth::{Action, Authorizer, Decision, Grant, Request};
use linkmic::ingest::{self, Ingest};
use linkmic::media::{Class, Feed};
use linkmic::metrics::Metrics;
use linkmic::net::{Admission, Bounds, Entrance};
use linkmic::playback::{self, Playback};
use linkmic::probe::process::poll;
use linkmic::reason::Reason;
use linkmic::relay::{self, Relay};
use linkmic::rtmp::kind;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Metadata, Subscriber, span};

use super::raw::{Raw, asking};
use crate::edge::SOON;
use crate::edge::client::{Client, is_frame};
use crate::edge::clip::{number_of, numbered};

/// Grants everything but the streams that it panics at.
struct Fragile;

impl Authorizer for Fragile {
    fn authorize<'a>(&'a self, request: &'a Request<'a>) -> Decision<'a> {
        Box::pin(async move {
            assert!(
                !request.key.stream().starts_with("cursed"),
                "asked for a cursed stream"
            );
            Ok(match request.action {
                Action::Publish => Grant::Publish { key: None },
                Action::Play => Grant::Play {
                    feed: Feed::Program,
                    class: Class::Viewer,
                    key: None,
                },
            })
        })
    }
}

/// Ingest and playback with [`Fragile`] in between, and room for so many connections.
async fn open(connections: usize) -> (SocketAddr, Arc<Metrics>) {
    let metrics = Metrics::new();
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let relay = Relay::new(relay::Config::default());
    let playback = Playback::new(
        relay.clone(),
        playback::Config::default(),
        metrics.clone(),
        tasks.clone(),
        shutdown.clone(),
    );
    let ingest = Ingest::new(
        ingest::Config {
            admission: Admission::new(Bounds {
                connections,
                per_address: 0,
            }),
            ..ingest::Config::default()
        },
        relay,
        Arc::new(Fragile),
        Arc::new(playback),
        metrics.clone(),
        tasks.clone(),
        shutdown,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a port");
    tasks.spawn(ingest.serve(listener, Entrance::default()));
    (address, metrics)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_one_connection_is_counted_frees_its_place_and_ends_no_other() {
    const PANICS: u32 = 10;
    // The publisher, its player, and one more.
    let (address, metrics) = open(3).await;
    let mut publisher = Client::publish(&format!("rtmp://{address}/live/a"))
        .await
        .expect("granted");
    publisher.send(kind::VIDEO, 0, numbered(0, true, 100)).await;
    let mut player = Client::play(&format!("rtmp://{address}/live/a"))
        .await
        .expect("granted");
    for n in 1..=PANICS {
        // The third place is free each time anew, a moment after the close that its holder sees.
        one_place_is_free(&metrics).await;
        let mut cursed = Raw::shaken(address).await;
        let role = if n % 2 == 0 { "publish" } else { "play" };
        cursed.send(&asking(role, "cursed")).await;
        let closed = cursed.closed_within(SOON).await;
        assert!(closed.is_some(), "panic {n}: the connection stays open");
        publisher
            .send(kind::VIDEO, n * 40, numbered(n, false, 100))
            .await;
        let got = player.media_until(|m| is_frame(m, kind::VIDEO)).await;
        let mut number = got.last().and_then(|m| number_of(&m.payload));
        if n == 1 && number == Some(0) {
            let next = player.media_until(|m| is_frame(m, kind::VIDEO)).await;
            number = next.last().and_then(|m| number_of(&m.payload));
        }
        assert_eq!(number, Some(n), "a frame beside panic {n}");
    }
    one_place_is_free(&metrics).await;
    let page = String::from_utf8(metrics.encode()).expect("text");
    let internal = format!(
        "linkmic_ingest_disconnects_total{{reason=\"{}\"}} {PANICS}",
        Reason::Internal.code()
    );
    assert!(page.lines().any(|line| line == internal), "{page}");
}

/// Waits until only the publisher and its player are counted.
async fn one_place_is_free(metrics: &Metrics) {
    let freed = poll("the third place", SOON, || async {
        (metrics.connections_open.get() == 2).then_some(())
    });
    freed.await.expect("it is free");
}

/// Panics where a span of that name begins, so many times: where a listener lets a connection in.
struct Trap {
    span: &'static str,
    left: AtomicU32,
}

impl Subscriber for Trap {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        if span.metadata().name() == self.span {
            let less = |left: u32| left.checked_sub(1);
            let left = self.left.fetch_update(Relaxed, Relaxed, less);
            assert!(left.is_err(), "a span begins");
        }
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// On one thread, which is the one that the trap is set on.
#[tokio::test]
async fn a_panic_while_a_connection_is_let_in_closes_it_and_the_listener_goes_on() {
    const PANICS: u32 = 3;
    let (address, metrics) = open(3).await;
    let trap = Trap {
        span: "rtmp",
        left: AtomicU32::new(PANICS),
    };
    let set = tracing::subscriber::set_default(trap);
    for n in 1..=PANICS {
        let mut unlucky = Raw::connect(address).await;
        let closed = unlucky.closed_within(SOON).await;
        assert!(closed.is_some(), "panic {n}: the connection stays open");
    }
    let publisher = Client::publish(&format!("rtmp://{address}/live/a")).await;
    let _publisher = publisher.expect("granted");
    drop(set);
    assert_eq!(metrics.connections_open.get(), 1);
    let page = String::from_utf8(metrics.encode()).expect("text");
    let internal = format!(
        "linkmic_ingest_disconnects_total{{reason=\"{}\"}} {PANICS}",
        Reason::Internal.code()
    );
    assert!(page.lines().any(|line| line == internal), "{page}");
}

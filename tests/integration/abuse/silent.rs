//! Connections that say nothing any more, at every stage.

use std::net::SocketAddr;
use std::time::Duration;

use linkmic::rtmp::kind;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::binary::{Binary, WorkingSize};
use super::healthy::Healthy;
use super::raw::{self, Raw};
use crate::edge::client::Client;

/// By when the server is to have closed.
pub(super) const LIMIT: Duration = Duration::from_secs(15);
/// Silent connections at a time.
const BATCH: usize = 100;

/// Where a stranger falls silent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Accepted,
    HalfHandshake,
    C0C1,
    Handshake,
    Connect,
    /// A message under way whose length is a lie.
    Message,
}

impl Stage {
    pub(super) const ALL: [Stage; 6] = [
        Stage::Accepted,
        Stage::HalfHandshake,
        Stage::C0C1,
        Stage::Handshake,
        Stage::Connect,
        Stage::Message,
    ];

    /// Silent from here on; `None`: the server's deadline came before this stage.
    pub(super) async fn reach(self, address: SocketAddr) -> Option<Raw> {
        Some(match self {
            Stage::Accepted => Raw::connect(address).await,
            Stage::HalfHandshake => {
                let mut raw = Raw::connect(address).await;
                raw.send(&raw::c0_c1()[..1_000]).await;
                raw
            }
            Stage::C0C1 => {
                let mut raw = Raw::connect(address).await;
                raw.send(&raw::c0_c1()).await;
                raw
            }
            Stage::Handshake => Raw::try_shaken(address).await?,
            Stage::Connect => Raw::try_connected(address).await?,
            Stage::Message => {
                let mut raw = Raw::try_connected(address).await?;
                let body = [0; 128];
                raw.send(&raw::first_chunk(6, kind::VIDEO, 1, 8 << 20, &body))
                    .await;
                raw
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_at_any_stage_is_closed_within_15_seconds() {
    let mut server = Binary::serve("").await;
    let urls = server.urls();
    let address = urls.rtmp();
    let mut closing: JoinSet<(String, bool)> = JoinSet::new();
    for stage in Stage::ALL {
        closing.spawn(async move {
            let mut raw = stage.reach(address).await.expect("10 s suffice");
            (
                format!("{stage:?}"),
                raw.closed_within(LIMIT).await.is_some(),
            )
        });
    }
    // A handshake that comes one byte at a time is not progress.
    closing.spawn(async move {
        let mut raw = Raw::connect(address).await;
        let end = Instant::now() + LIMIT;
        let mut closed = false;
        for byte in raw::c0_c1() {
            raw.send(&[byte]).await;
            closed = raw
                .closed_within(Duration::from_millis(250))
                .await
                .is_some();
            if closed || Instant::now() > end {
                break;
            }
        }
        ("a dripping handshake".into(), closed)
    });
    // 15 s without media is what an encoder's pause may last; a second more for a busy machine.
    let publish = urls.push("mute");
    closing.spawn(async move {
        let mut publisher = Client::publish(&publish).await.expect("granted");
        let end = async { while publisher.event().await.is_some() {} };
        let closed = timeout(LIMIT + Duration::from_secs(1), end).await;
        ("a publisher without media".into(), closed.is_ok())
    });
    let plain = urls.plain("absent");
    closing.spawn(async move {
        let refused = timeout(LIMIT, Client::play(&plain)).await;
        let refused = refused.is_ok_and(|answer| answer.is_err());
        ("a player of an absent stream".into(), refused)
    });
    while let Some(done) = closing.join_next().await {
        let (what, closed) = done.expect("it waits");
        assert!(closed, "{what}: still open after {LIMIT:?}");
    }
    server.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_silent_connections_at_each_stage_leave_memory_flat() {
    let mut server = Binary::serve("[limits]\nhandshake = \"1s\"").await;
    let urls = server.urls();
    let healthy = Healthy::start(&urls).await;
    let mut size = WorkingSize::of(&mut server);
    let before = loop {
        batch(urls.rtmp()).await;
        server.wait_for_connections(2).await;
        if let Some(size) = size.after_a_round(&mut server) {
            break size;
        }
    };
    for _ in 0..10 {
        batch(urls.rtmp()).await;
    }
    server.wait_for_connections(2).await;
    server.assert_flat(before, "silence").await;
    healthy.assert_nothing_missed().await;
}

/// [`BATCH`] connections at each stage, all at once.
async fn batch(address: SocketAddr) {
    let mut closing = JoinSet::new();
    for n in 0..BATCH * Stage::ALL.len() {
        let stage = Stage::ALL[n % Stage::ALL.len()];
        closing.spawn(async move {
            // Not all SYNs in one instant: the accept queue is no part of this test.
            sleep(Duration::from_micros(500 * n as u64)).await;
            let Some(mut raw) = stage.reach(address).await else {
                return;
            };
            let closed = raw.closed_within(LIMIT).await;
            assert!(closed.is_some(), "{stage:?}: still open after {LIMIT:?}");
        });
    }
    while let Some(done) = closing.join_next().await {
        done.expect("closed");
    }
}

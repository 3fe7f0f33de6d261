//! Players that ask, again and again, for streams that do not exist.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::binary::Binary;
use crate::edge::client::Client;
use crate::edge::house::Urls;

/// Askers at a time: more than one address may have waiting, so that both refusals occur.
const AT_ONCE: u32 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_for_absent_streams_leave_nothing_behind() {
    let mut server = Binary::serve("[limits]\nwait = \"100ms\"").await;
    let urls = server.urls();
    ask(&urls, 0, 400).await;
    server.wait_for_connections(0).await;
    let (before, series) = (server.resident(), server.series().await);
    let heard = ask(&urls, 400, 1_000).await;
    server.wait_for_connections(0).await;
    assert_eq!(heard.len(), 1_000);
    let both = ["NetStream.Play.StreamNotFound", "NetStream.Play.Failed"];
    for code in both {
        assert!(heard.iter().any(|h| h == code), "nobody heard {code}");
    }
    assert!(heard.iter().all(|h| both.contains(&h.as_str())));
    server.assert_flat(before, "absent streams").await;
    assert_eq!(server.series().await, series, "metric series");
    let streams = server
        .control
        .get("/api/v1/streams")
        .await
        .expect("streams");
    assert!(!streams.body.contains("absent-"), "{}", streams.body);
}

/// Asks for `count` names nobody has; the codes of the refusals.
async fn ask(urls: &Arc<Urls>, begin: u32, count: u32) -> Vec<String> {
    let mut askers = JoinSet::new();
    for asker in 0..AT_ONCE {
        let urls = urls.clone();
        askers.spawn(async move {
            let mut heard = Vec::new();
            for n in (begin + asker..begin + count).step_by(AT_ONCE as usize) {
                let no = Client::play(&urls.plain(&format!("absent-{n}"))).await;
                heard.push(no.err().expect("refused").code);
            }
            heard
        });
    }
    let mut all = Vec::new();
    while let Some(heard) = askers.join_next().await {
        all.extend(heard.expect("answered"));
    }
    all
}

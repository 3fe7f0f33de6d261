//! Connections that the server ends: for what, when, and with which last words.

use linkmic::rtmp::kind;

use super::client::Client;
use crate::abuse::binary::Binary;
use crate::abuse::raw;

/// Of two messages of 8 MB, on a chunk stream each, all but their ends.
fn two_unfinished() -> Vec<u8> {
    const CHUNK: usize = 65_536;
    const WHOLE: usize = 8 << 20;
    let body = vec![0x27; CHUNK];
    let mut bytes = raw::set_chunk_size(CHUNK as u32).to_vec();
    for (chunk_stream, type_id) in [(6, kind::VIDEO), (4, kind::AUDIO)] {
        let first = raw::first_chunk(chunk_stream, type_id, 1, WHOLE as u32, &body);
        bytes.extend_from_slice(&first);
        for _ in 2..WHOLE / CHUNK {
            bytes.extend_from_slice(&raw::next_chunk(chunk_stream as u8, &body));
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_memory_budget_publishers_of_large_messages_are_told_to_go() {
    const MIB: u64 = 1 << 20;
    let mut server = Binary::serve("[limits]\nmemory = \"32MiB\"").await;
    let mut greedy = Vec::new();
    for n in 0..10 {
        let url = server.urls.push(&format!("s{n}"));
        greedy.push(Client::publish(&url).await.expect("granted"));
    }
    let before = server.resident();
    let bytes = two_unfinished();
    let mut turned = Vec::new();
    for mut publisher in greedy {
        let bytes = bytes.clone();
        turned.push(tokio::spawn(async move {
            // Whoever is closed in the middle of it cannot say the rest.
            let told = publisher.send_while_listening(&bytes).await;
            (told, publisher)
        }));
    }
    let mut told = Vec::new();
    let mut kept = Vec::new();
    for sender in turned {
        match sender.await.expect("it sends") {
            (Some(no), _) => told.push(no),
            (None, publisher) => kept.push(publisher),
        }
    }
    // 160 MB wanted to be held. What is over 32 MiB is at most a message less than ordinary of each.
    server
        .assert_grown_at_most(32 * MIB + 16 * MIB, before, "unfinished messages")
        .await;
    assert!(told.len() >= 7, "{} of 10 are told to go", told.len());
    for no in &told {
        assert_eq!(no.code, "NetStream.Publish.Denied");
        assert!(no.description.contains("memory is full"), "{no:?}");
        assert!(no.description.contains("(18/601)"), "{no:?}");
    }
    let ends = server.ends().await;
    let overloaded = ends.iter().find(|(reason, _)| reason == "overloaded");
    assert_eq!(overloaded.map(|(_, n)| *n), Some(told.len() as u64));
    drop(kept);
}

//! A handshake ends, or fails, at the same byte however it is split, and says no more than its packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linkmic::rtmp::handshake::{Client, PEER_BYTES, Server};

/// Bytes said, bytes left over when it was done, and whether it failed.
type End = (usize, Option<usize>, bool);

fn run(
    data: &[u8],
    step: usize,
    mut receive: impl FnMut(&[u8]) -> Result<(usize, Option<usize>), ()>,
) -> End {
    let mut said = 0;
    for (number, part) in data.chunks(step).enumerate() {
        match receive(part) {
            Ok((reply, None)) => said += reply,
            Ok((reply, Some(rest))) => {
                let after = data.len() - number * step - part.len();
                return (said + reply, Some(rest + after), false);
            }
            Err(()) => return (said, None, true),
        }
    }
    (said, None, false)
}

fn server(data: &[u8], step: usize) -> End {
    let mut server = Server::new();
    run(data, step, |part| {
        let progress = server.receive(part).map_err(drop)?;
        Ok((progress.reply.len(), progress.done.map(|rest| rest.len())))
    })
}

fn client(data: &[u8], step: usize) -> End {
    let (mut client, opening) = Client::new();
    assert_eq!(opening.len(), 1 + 1536);
    run(data, step, |part| {
        let progress = client.receive(part).map_err(drop)?;
        Ok((progress.reply.len(), progress.done.map(|rest| rest.len())))
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&step, rest)) = data.split_first() else {
        return;
    };
    // Fuzzers find long inputs slowly: what there is is repeated until a whole handshake is there.
    let mut bytes = rest.to_vec();
    if step & 1 == 1 && !rest.is_empty() {
        bytes = rest.iter().copied().cycle().take(PEER_BYTES + 20).collect();
    }
    let step = usize::from(step >> 1) * 16 + 16;
    for run in [server, client] {
        let whole = run(&bytes, bytes.len().max(1));
        assert!(whole.0 <= PEER_BYTES, "{} bytes said", whole.0);
        assert!(whole.1.is_none() || bytes.len() >= PEER_BYTES);
        let parts = run(&bytes, step);
        assert_eq!(
            (whole.1, whole.2),
            (parts.1, parts.2),
            "{step} bytes at a time"
        );
        // A client's second packet may be read from the same part as its first, and then says the same.
        if !whole.2 {
            assert_eq!(whole.0, parts.0, "bytes said, {step} at a time");
        }
    }
});

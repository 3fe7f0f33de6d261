//! Still pictures in mixes: as inputs, as watermark, in place of lost inputs.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::studio::image;
use super::*;

/// A server that gives that picture to whoever asks; its address.
fn serve(picture: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                picture.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&picture);
        }
    });
    format!("http://{address}/picture?sign=secret")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_are_inputs_a_watermark_and_stand_in_for_the_lost() {
    const CYAN: u32 = 0x00_ff_ff;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (name.to_owned(), path)
    };
    let config = Config {
        pictures: BTreeMap::from([
            file("wall", image("jpeg", 240, 160, 0xff_80_80_80)),
            file("away", image("png", 160, 80, 0xff_00_ff_ff)),
            file("broken", b"\x89PNG\r\n\x1a\nand no more".to_vec()),
        ]),
        picture_networks: vec!["127.0.0.0/8".parse().unwrap()],
        ..Config::default()
    };
    let (_guard, relay, mixer) = studio_with(config).await;
    let body = |picture: &str, mark: &str| -> MixRequest {
        serde_json::from_value(json!({"app": "live",
            "on_loss": {"policy": "placeholder", "after_ms": 1200, "picture": {"file": "away"}},
            "watermark": {"url": mark, "x": 400, "y": 20, "width": 40, "height": 40, "opacity": 0.5},
            "inputs": [
                {"picture": {"file": picture}, "layer": 1, "fit": "stretch"},
                {"stream": "main", "layer": 2, "x": 0, "y": 0, "width": 180, "height": 320},
                {"stream": "sub", "layer": 3, "x": 200, "y": 100, "width": 160, "height": 160}],
            "output": {"stream": "mixed", "width": 480, "height": 320, "fps": 20, "video_kbps": 900}}))
        .unwrap()
    };
    // White, half of it let through; and the watermark itself is half there.
    let mark = serve(image("png", 64, 64, 0x80_ff_ff_ff));
    let refused = |request| match mixer.put("m", request) {
        Err(Error::Picture { path, message }) => (path, message),
        other => panic!("{other:?}"),
    };
    let (path, message) = refused(body("nobody", &mark));
    assert_eq!(path, "inputs[0].picture");
    assert!(message.starts_with("no picture \"nobody\""), "{message}");
    assert_eq!(refused(body("broken", &mark)).0, "inputs[0].picture");
    let (path, message) = refused(body("wall", "http://127.0.0.1:1/x?sign=secret"));
    assert_eq!(path, "watermark");
    assert!(!message.contains("secret"), "{message}");
    assert!(mixer.list().is_empty());

    mixer.put("m", body("wall", &mark)).unwrap();
    let _main = Anchor::start(&relay, "main", MAIN);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    let awaited = settled(&viewer).await;
    let sub = Anchor::start(&relay, "sub", SUBS[0]);
    eventually("live", || state_of(&mixer, "m", 2) == InputState::Live).await;
    let live = settled(&viewer).await;
    let info = mixer.get("m").unwrap();
    assert_eq!(
        (info.inputs[0].kind, info.inputs[0].state),
        ("picture", InputState::Live)
    );
    // What is refused leaves the running mix as it was.
    assert_eq!(refused(body("broken", &mark)).0, "inputs[0].picture");
    assert_eq!(mixer.get("m").unwrap().revision, 1);
    drop(sub);
    eventually("stood in for", || {
        state_of(&mixer, "m", 2) == InputState::Placeholder
    })
    .await;
    let lost = settled(&viewer).await;
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    eventually("live again", || {
        state_of(&mixer, "m", 2) == InputState::Live
    })
    .await;
    let back = settled(&viewer).await;
    mixer.remove("m").unwrap();

    let film = decode(&viewer.seen());
    for (what, (from, to), sub) in [
        ("awaited", awaited, CYAN),
        ("live", live, SUBS[0].colour),
        ("lost", lost, CYAN),
        ("back", back, SUBS[0].colour),
    ] {
        let (frames, _) = film.between(from, to);
        let wall = 0x80_80_80;
        // 2:1 in a square: 80 rows in the middle; 2:3: the whole height, with bars at the sides.
        let bar = if sub == CYAN { (280, 110) } else { (210, 180) };
        assert_colours(
            what,
            &frames,
            &[
                (60, 200, MAIN.colour),
                (280, 200, sub),
                (bar.0, bar.1, 0),
                (450, 300, wall),
                // A quarter of white over three of grey: 128 + 127 / 4 = 160.
                (420, 40, 0xa0_a0_a0),
                (450, 40, wall),
            ],
        );
    }
}

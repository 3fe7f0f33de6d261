//! A web page in a real browser: mpegts.js in headless Chromium plays HTTP-FLV, and sends back the pixels it shows.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, header};
use axum::response::Html;
use axum::routing::{get, post};
use linkmic::probe::picture::{self, Colour, Size};
use linkmic::probe::process::{Log, Process};
use linkmic::probe::publisher::Show;
use linkmic::probe::{Publisher, Reading};
use tokio::net::TcpListener;

use super::SOON;
use super::house::House;

/// Fetched by `./run test`, which says which version and checks what came.
const MPEGTS_JS: &str = "target/test-tools/mpegts.js";
const PAGE: &str = include_str!("page/player.html");

/// What the page told.
#[derive(Debug, Default)]
struct Told {
    said: Vec<String>,
    size: String,
    sound_bytes: u64,
    readings: Vec<Reading>,
}

/// Serves the page and hears it.
async fn studio(show: &Show) -> (std::net::SocketAddr, Log<Told>) {
    let script = mpegts_js();
    let told: Log<Told> = Log::default();
    let javascript = [(header::CONTENT_TYPE, "text/javascript")];
    let router = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route(
            "/mpegts.js",
            get(move || async move { (javascript, script) }),
        )
        .route("/said", post(hear))
        .route("/picture", post(see))
        .layer(DefaultBodyLimit::max(16 << 20))
        .with_state((told.clone(), Arc::new(show.size)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, told)
}

/// The script of the player.
pub fn mpegts_js() -> Bytes {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(MPEGTS_JS);
    let script = std::fs::read(&script)
        .unwrap_or_else(|e| panic!("{}: {e}; ./run test fetches it", script.display()));
    Bytes::from(script)
}

async fn hear(State((told, _)): State<(Log<Told>, Arc<Size>)>, words: String) {
    told.change(|told| told.said.push(words));
}

async fn see(State((told, size)): State<(Log<Told>, Arc<Size>)>, head: HeaderMap, pixels: Bytes) {
    let reading = picture::read(&i420(&pixels, *size), *size, size.whole());
    let field = |name| {
        head.get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    told.change(|told| {
        told.size = field("x-size").to_owned();
        told.sound_bytes = field("x-sound").parse().unwrap_or(0);
        told.readings.push(reading);
    });
}

/// A canvas's pixels, red, green, blue and alpha, as video has them.
fn i420(pixels: &[u8], size: Size) -> Vec<u8> {
    assert_eq!(pixels.len(), size.width * size.height * 4);
    let colour = |x: usize, y: usize| {
        let at = (y * size.width + x) * 4;
        let [r, g, b] = [pixels[at], pixels[at + 1], pixels[at + 2]].map(i32::from);
        Colour::rgb(r, g, b)
    };
    let mut frame = Vec::with_capacity(size.frame_bytes());
    for y in 0..size.height {
        frame.extend((0..size.width).map(|x| colour(x, y).y));
    }
    for part in [|c: Colour| c.u, |c: Colour| c.v] {
        for y in (0..size.height).step_by(2) {
            frame.extend((0..size.width).step_by(2).map(|x| part(colour(x, y))));
        }
    }
    frame
}

/// A browser that has opened `url`, with everything it keeps in `folder`.
pub fn browser(folder: &Path, url: &str) -> Process {
    let profile = format!("--user-data-dir={}", folder.display());
    let arguments = [
        "--headless=new",
        // It visits nothing but this test, and CI runs as root, for whom there is no sandbox.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--autoplay-policy=no-user-gesture-required",
        &profile,
        url,
    ];
    Process::spawn("chromium", &arguments).unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_mpegts_js_shows_pictures_that_advance_and_the_end() {
    let house = House::open().await;
    let show = Show::sub(Colour::RED, 700.0);
    let mut publisher = Publisher::start(&house.urls.push("page"), &show).expect("ffmpeg starts");
    let (page, told) = studio(&show).await;
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!(
        "http://{page}/?width={}&height={}&url={}",
        show.size.width,
        show.size.height,
        house.http_flv("page")
    );
    let mut chromium = browser(folder.path(), &url);
    let seen = told.until(
        "20 numbered red pictures that advance, and sound",
        SOON * 3,
        |told| {
            assert_eq!(told.said, [""; 0], "the page is not content");
            let red = |r: &&Reading| r.colour.name() == Some("red");
            let numbers: Vec<u16> = told
                .readings
                .iter()
                .filter(red)
                .filter_map(|r| r.counter)
                .collect();
            let steps = numbers
                .windows(2)
                .map(|pair| picture::distance(pair[0], pair[1]));
            let (back, on): (Vec<u64>, Vec<u64>) =
                steps.partition(|step| *step > picture::COUNTER_MODULUS / 2);
            assert_eq!(back, [0; 0], "pictures that go back: {numbers:?}");
            let advanced = on.iter().filter(|step| **step > 0).count();
            (advanced >= 20 && told.sound_bytes > 0).then_some(())
        },
    );
    seen.await
        .unwrap_or_else(|e| panic!("{e}: {:?}\n{}", told.lock().said, chromium.said()));
    assert_eq!(
        told.lock().size,
        format!("{}x{}", show.size.width, show.size.height)
    );
    house.wait_for_viewers(1).await;
    publisher.check().expect("still publishing");
    publisher.stop().await;
    let over = told.until("the end", SOON, |told| told.said.first().cloned());
    assert_eq!(over.await.expect("the page hears it"), "complete");
    chromium.kill().await;
}

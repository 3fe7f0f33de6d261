//! A viewer in a web page: mpegts.js in headless Chromium plays HTTP-FLV, and tells where it is and why it stands still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::Html;
use axum::routing::{get, post};
use linkmic::probe::process::{Log, Process};
use linkmic::probe::{Colour, Region};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::edge::SOON;
use crate::edge::page::{browser, mpegts_js};

const PAGE: &str = include_str!("web/viewer.html");

/// What the page told last, and all that it noted.
#[derive(Debug, Default)]
struct Told {
    time: f64,
    pictures: u64,
    sound: u64,
    colour: Option<&'static str>,
    /// Players that failed.
    restarts: u64,
    /// Beginning and end of what it may play, s.
    buffered: Vec<(f64, f64)>,
    /// When `time` moved last, and the longest that it stood since it moved first.
    moved: Option<Instant>,
    stood: Duration,
    notes: Vec<String>,
}

impl Told {
    fn take(&mut self, told: &Value) {
        let number = |name: &str| told[name].as_f64().unwrap_or(0.0);
        let (now, time) = (Instant::now(), number("time"));
        if time > self.time {
            let since = self.moved.replace(now);
            self.stood = self.stood.max(since.map_or(Duration::ZERO, |at| now - at));
        }
        self.time = time;
        self.pictures = number("pictures") as u64;
        self.sound = number("sound") as u64;
        let part = |n: usize| told["colour"][n].as_i64().unwrap_or(0) as i32;
        self.colour = Colour::rgb(part(0), part(1), part(2)).name();
        self.restarts = number("restarts") as u64;
        let ranges = told["buffered"].as_array().into_iter().flatten();
        let edge = |range: &Value, n: usize| range[n].as_f64().unwrap_or(0.0);
        self.buffered = ranges.map(|r| (edge(r, 0), edge(r, 1))).collect();
        let notes = told["notes"].as_array().into_iter().flatten();
        let notes = notes.filter_map(Value::as_str);
        self.notes.extend(notes.map(str::to_owned));
    }
}

/// A browser that plays until it is dropped. When mpegts.js fails it makes another one, as live pages do.
pub struct WebViewer {
    told: Log<Told>,
    chromium: Process,
    _folder: TempDir,
}

impl WebViewer {
    /// Opens a page that plays `url` with those options of mpegts.js, and looks at the middle of `place`.
    pub async fn open(url: &str, options: &Value, place: Region) -> Self {
        let told: Log<Told> = Log::default();
        let (script, javascript) = (mpegts_js(), [(header::CONTENT_TYPE, "text/javascript")]);
        let router = Router::new()
            .route("/", get(|| async { Html(PAGE) }))
            .route(
                "/mpegts.js",
                get(move || async move { (javascript, script) }),
            )
            .route("/told", post(hear))
            .with_state(Arc::new(told.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = tempfile::tempdir().expect("a folder");
        let (x, y) = (place.x + place.width / 2, place.y + place.height * 9 / 10);
        let page = format!("http://{address}/?x={x}&y={y}&options={options}&url={url}");
        Self {
            told,
            chromium: browser(folder.path(), &page),
            _folder: folder,
        }
    }

    /// Waits until the page has played `seconds` more from now on, with sound, and its place is `red`, or is not.
    pub async fn plays(&self, what: &str, seconds: f64, red: bool) {
        let (time, pictures, sound) = {
            let told = self.told.lock();
            (told.time, told.pictures, told.sound)
        };
        let on = self.told.until(what, SOON * 2, |told| {
            // A page that jumps over a hole moves on as well: pictures must have come, ten a second at least.
            let shown = told.pictures as f64 - pictures as f64;
            let moved = told.time >= time + seconds && shown >= 10.0 * seconds;
            let right = (told.colour == Some("red")) == red;
            (moved && right && told.sound > sound).then_some(())
        });
        if let Err(error) = on.await {
            let told = self.told.lock();
            panic!("{error}: {told:#?}\n{}", self.chromium.said());
        }
    }

    /// Fails when a player of the page failed, or there is a hole in what it may play.
    pub fn assert_whole(&self) {
        let told = self.told.lock();
        println!("the page stood for {:?} at most", told.stood);
        assert_eq!((told.restarts, told.buffered.len()), (0, 1), "{told:#?}");
    }
}

async fn hear(State(told): State<Arc<Log<Told>>>, body: String) {
    let value: Value = serde_json::from_str(&body).expect("the page's own JSON");
    told.change(|told| told.take(&value));
}

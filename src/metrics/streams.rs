//! Numbers of single streams, where an operator asked for them: `[metrics] per_stream`.
//!
//! Names of streams are chosen by those who publish, so that there is a cap, and a stream is shown from its first publisher on: asking for
//! a name that nobody publishes makes no series. Who is shown stays shown while the relay knows the name; newcomers take free places in the order
//! of their names. The families are made anew at each scrape, because a total begins again with a stream's record.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGauge};

use super::catalogue::{Catalogue, Family};
use super::words::CLASSES;
use super::{Metrics, count};

const APP: (&str, &str) = ("app", "the application");
const STREAM: (&str, &str) = ("stream", "the stream's name; `per_stream_cap` bounds them");
const CLASS: (&str, &str) = ("class", "`low_latency`, `viewer`");

/// One stream in numbers. Counters run since the relay's record of it was made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamNumbers {
    pub app: String,
    pub stream: String,
    /// It has a publisher.
    pub up: bool,
    /// Media payload bytes of its publishers.
    pub bytes: u64,
    /// Video frames of its publishers.
    pub frames: u64,
    /// Between the newest two key frames, in the publisher's time; `None` before there are two.
    pub key_frame_interval: Option<Duration>,
    /// Readers of both feeds, in the order of the classes: low latency, viewers.
    pub readers: [usize; 2],
    /// The greatest lag among its readers; `None` without any that has a lag.
    pub slowest: Option<Duration>,
}

/// Which streams have series.
pub(super) struct Streams {
    state: Mutex<State>,
    left_out: IntGauge,
}

#[derive(Default)]
struct State {
    /// `None`: nobody asked for them.
    cap: Option<usize>,
    shown: BTreeSet<(String, String)>,
    families: Vec<MetricFamily>,
}

impl Streams {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        let mut apart = Catalogue::default();
        Instruments::new(&mut apart);
        c.adopt(apart.families().iter().map(|family| Family {
            per_stream: true,
            ..family.clone()
        }));
        Self {
            state: Mutex::default(),
            left_out: c.gauge(
                "linkmic_stream_left_out",
                "Published streams without series of their own, because per_stream_cap of them have some; 0 without per_stream.",
            ),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.lock().families.clone()
    }
}

impl Metrics {
    /// From now on at most so many streams have series of their own; `None`: none has.
    pub fn cap_streams(&self, cap: Option<usize>) {
        let mut state = self.streams.lock();
        state.cap = cap;
        if cap.is_none() {
            *state = State::default();
            self.streams.left_out.set(0);
        }
    }

    /// At scrape: which of these names (application, stream, whether it is published) are to be told of with
    /// [`set_each_stream`](Self::set_each_stream); they are all that the relay knows. Nothing where nobody asked for streams.
    pub fn choose_streams(&self, present: &[(&str, &str, bool)]) -> BTreeSet<(String, String)> {
        let mut state = self.streams.lock();
        let Some(cap) = state.cap else {
            return BTreeSet::new();
        };
        let (shown, left_out) = choose(&state.shown, present, cap);
        state.shown = shown.clone();
        self.streams.left_out.set(count(left_out));
        shown
    }

    /// At scrape: the numbers of the streams that were chosen.
    pub fn set_each_stream(&self, streams: &[StreamNumbers]) {
        let mut catalogue = Catalogue::default();
        let instruments = Instruments::new(&mut catalogue);
        for stream in streams {
            instruments.set(stream);
        }
        let mut state = self.streams.lock();
        if state.cap.is_some() {
            state.families = catalogue.gather();
        }
    }
}

/// Who is shown next, and how many published names are not.
fn choose(
    shown: &BTreeSet<(String, String)>,
    present: &[(&str, &str, bool)],
    cap: usize,
) -> (BTreeSet<(String, String)>, usize) {
    let name = |(app, stream, _): &(&str, &str, bool)| ((*app).to_owned(), (*stream).to_owned());
    let mut next: BTreeSet<_> = present
        .iter()
        .map(name)
        .filter(|name| shown.contains(name))
        .take(cap)
        .collect();
    let published = present.iter().filter(|(_, _, published)| *published);
    let newcomers: BTreeSet<_> = published
        .map(name)
        .filter(|name| !next.contains(name))
        .collect();
    let places = cap.saturating_sub(next.len());
    let left_out = newcomers.len().saturating_sub(places);
    next.extend(newcomers.into_iter().take(places));
    (next, left_out)
}

/// The families.
struct Instruments {
    up: GaugeVec,
    bytes: IntCounterVec,
    frames: IntCounterVec,
    key_frame_interval: GaugeVec,
    readers: GaugeVec,
    slowest: GaugeVec,
}

impl Instruments {
    fn new(c: &mut Catalogue) -> Self {
        Self {
            up: c.bounded_gauges(
                "linkmic_stream_up",
                "1 while the stream has a publisher, an anchor or a mix, else 0.",
                [APP, STREAM],
            ),
            bytes: c.bounded_counters(
                "linkmic_stream_ingest_bytes_total",
                "Media payload bytes received from the stream's publishers.",
                [APP, STREAM],
            ),
            frames: c.bounded_counters(
                "linkmic_stream_ingest_frames_total",
                "Video frames received from the stream's publishers; its rate is the frame rate.",
                [APP, STREAM],
            ),
            key_frame_interval: c.bounded_gauges(
                "linkmic_stream_key_frame_interval_seconds",
                "Time between the newest two key frames of the publisher, in its own time; absent before there are two.",
                [APP, STREAM],
            ),
            readers: c.bounded_gauges(
                "linkmic_stream_readers",
                "Readers of both feeds of the stream, mixes and CDN targets among them, by class.",
                [APP, STREAM, CLASS],
            ),
            slowest: c.bounded_gauges(
                "linkmic_stream_slowest_reader_lag_seconds",
                "Media time from the last byte that the stream's slowest player has acknowledged to the newest message; absent without players.",
                [APP, STREAM],
            ),
        }
    }

    fn set(&self, stream: &StreamNumbers) {
        let name = [stream.app.as_str(), stream.stream.as_str()];
        self.up.with_label_values(&name).set(f64::from(stream.up));
        self.bytes.with_label_values(&name).inc_by(stream.bytes);
        self.frames.with_label_values(&name).inc_by(stream.frames);
        if let Some(interval) = stream.key_frame_interval {
            let gauge = self.key_frame_interval.with_label_values(&name);
            gauge.set(interval.as_secs_f64());
        }
        for (class, readers) in CLASSES.into_iter().zip(stream.readers) {
            let gauge = self.readers.with_label_values(&[name[0], name[1], class]);
            gauge.set(readers as f64);
        }
        if let Some(lag) = stream.slowest {
            let gauge = self.slowest.with_label_values(&name);
            gauge.set(lag.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &BTreeSet<(String, String)>) -> Vec<&str> {
        chosen.iter().map(|(_, stream)| stream.as_str()).collect()
    }

    #[test]
    fn whoever_is_shown_stays_and_newcomers_wait_for_a_place() {
        let none = BTreeSet::new();
        let [b, c, d] = ["b", "c", "d"].map(|name| ("live", name, true));
        let (shown, left_out) = choose(&none, &[d, c, b], 2);
        assert_eq!((names(&shown), left_out), (vec!["b", "c"], 1));
        // Neither a name that would come before them nor one that its publisher has just left changes that.
        let a = ("live", "a", true);
        let quiet = ("live", "b", false);
        let (shown, left_out) = choose(&shown, &[a, quiet, c, d], 2);
        assert_eq!((names(&shown), left_out), (vec!["b", "c"], 2));
        let (shown, left_out) = choose(&shown, &[a, c, d], 2);
        assert_eq!((names(&shown), left_out), (vec!["a", "c"], 1));
        // A smaller cap holds for those who are shown too.
        let (shown, left_out) = choose(&shown, &[a, c, d], 1);
        assert_eq!((names(&shown), left_out), (vec!["a"], 2));
    }

    #[test]
    fn names_that_only_strangers_ask_for_are_not_shown() {
        let asked: Vec<_> = (0..50).map(|n| n.to_string()).collect();
        let asked: Vec<_> = asked
            .iter()
            .map(|name| ("live", name.as_str(), false))
            .collect();
        let (shown, left_out) = choose(&BTreeSet::new(), &asked, 10);
        assert_eq!((shown.len(), left_out), (0, 0));
    }

    #[test]
    fn a_stream_has_its_series_until_nobody_asks_for_them() {
        let metrics = Metrics::new();
        let page = || String::from_utf8(metrics.encode()).unwrap();
        let of_streams = || {
            let page = page();
            let lines = page.lines().filter(|line| line.contains("stream=\"a\""));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let stream = StreamNumbers {
            app: "live".to_owned(),
            stream: "a".to_owned(),
            up: true,
            bytes: 1_000,
            frames: 25,
            key_frame_interval: Some(Duration::from_millis(1_500)),
            readers: [1, 2],
            slowest: None,
        };
        assert!(metrics.choose_streams(&[("live", "a", true)]).is_empty());
        metrics.set_each_stream(std::slice::from_ref(&stream));
        assert_eq!(of_streams(), [""; 0], "nobody asked");
        metrics.cap_streams(Some(1));
        let present = [("live", "a", true), ("live", "b", true)];
        assert_eq!(metrics.choose_streams(&present).len(), 1);
        metrics.set_each_stream(std::slice::from_ref(&stream));
        assert_eq!(
            of_streams(),
            [
                "linkmic_stream_ingest_bytes_total{app=\"live\",stream=\"a\"} 1000",
                "linkmic_stream_ingest_frames_total{app=\"live\",stream=\"a\"} 25",
                "linkmic_stream_key_frame_interval_seconds{app=\"live\",stream=\"a\"} 1.5",
                "linkmic_stream_readers{app=\"live\",class=\"low_latency\",stream=\"a\"} 1",
                "linkmic_stream_readers{app=\"live\",class=\"viewer\",stream=\"a\"} 2",
                "linkmic_stream_up{app=\"live\",stream=\"a\"} 1",
            ]
        );
        assert!(page().contains("\nlinkmic_stream_left_out 1\n"));
        // Its record is made anew: the total begins again.
        let again = StreamNumbers { bytes: 7, ..stream };
        metrics.set_each_stream(&[again]);
        assert!(page().contains("ingest_bytes_total{app=\"live\",stream=\"a\"} 7\n"));
        metrics.cap_streams(None);
        assert_eq!(of_streams(), [""; 0]);
        assert!(page().contains("\nlinkmic_stream_left_out 0\n"));
    }
}

//! `linkmic top`: streams and who plays them, mixes and pushes, on a terminal, again and again.
//!
//! Owns the picture only: everything in it comes from the control API. Rates are those since the picture before, or since the beginning
//! where there was none.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::control::{self, Ask, Control, Reach};
use super::ctl::{aligned, cell as text};
use super::{Error as CliError, Outcome};
use crate::config::Env;

/// Readers are asked for of so many streams in one picture: those with the most.
const ASKED: usize = 20;
/// Without a terminal that says how large it is.
const ROWS: usize = 50;

/// A terminal's other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left, and from the end of the text on nothing.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    reach: Reach,
    /// Print one picture and end: for scripts.
    #[arg(long)]
    once: bool,
    /// Time between two pictures.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "2s")]
    interval: Duration,
}

/// Shows it until Ctrl-C or SIGTERM, or once.
///
/// # Errors
/// When the server cannot be asked the first time, or with `--once`; later it is said in the picture.
///
/// # Cancel safety
/// Dropping the future leaves a terminal on its other screen.
pub async fn run(options: Options, env: &Env, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let control = options.reach.open(env)?;
    let first = Sample::take(&control, None).await?;
    if options.once {
        write!(out, "{}", first.picture(usize::MAX, &control.address()))?;
        return Ok(Outcome::Done);
    }
    // One listener each for as long as it runs: a server that does not answer is when people want to leave.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let on_terminal = io::stdout().is_terminal();
    if on_terminal {
        write!(out, "{ENTER}")?;
    }
    let shown = tokio::select! {
        error = again_and_again(&control, first, options.interval, on_terminal, out) => Err(error),
        _ = interrupts.recv() => Ok(()),
        _ = terminations.recv() => Ok(()),
    };
    if on_terminal {
        write!(out, "{LEAVE}")?;
        out.flush()?;
    }
    match shown {
        // Who reads has heard enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::Done),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Outcome::Done),
    }
}

/// Shows `last` and those after it until that fails.
///
/// # Cancel safety
/// What was shown is whole.
async fn again_and_again(
    control: &Control,
    mut last: Sample,
    interval: Duration,
    on_terminal: bool,
    out: &mut dyn Write,
) -> io::Error {
    let mut error = None;
    loop {
        let rows = match on_terminal {
            true => rows(),
            false => usize::MAX,
        };
        let mut text = last.picture(rows, &control.address());
        if let Some(error) = &error {
            text = format!("{error}\n{text}");
        }
        if let Err(failed) = show(&text, on_terminal, rows, out) {
            return failed;
        }
        tokio::time::sleep(interval).await;
        match Sample::take(control, Some(&last)).await {
            Ok(sample) => (last, error) = (sample, None),
            Err(failed) => error = Some(failed.to_string()),
        }
    }
}

fn show(text: &str, on_terminal: bool, rows: usize, out: &mut dyn Write) -> io::Result<()> {
    if !on_terminal {
        writeln!(out, "{text}")?;
        return out.flush();
    }
    write!(out, "{HOME}")?;
    let lines: Vec<_> = text.lines().take(rows).collect();
    write!(out, "{}", lines.join(&format!("{CLEAR_LINE}\r\n")))?;
    write!(out, "{CLEAR_LINE}{CLEAR_REST}")?;
    out.flush()
}

fn rows() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.map_or(ROWS, |size| usize::from(size.ws_row).max(5))
}

/// What the API said at one time.
struct Sample {
    at: Instant,
    now: SystemTime,
    streams: Vec<Value>,
    mixes: Vec<Value>,
    pushes: Vec<Value>,
    /// The worst lag among a stream's readers in ms, and how many times they were made to skip.
    readers: HashMap<String, (u64, u64)>,
    /// In kbit/s, by what is counted.
    rates: HashMap<String, u64>,
}

impl Sample {
    async fn take(control: &Control, before: Option<&Self>) -> Result<Self, control::Error> {
        let (at, now) = (Instant::now(), SystemTime::now());
        let list =
            async |name: &str| match control.json(&Ask::get(&format!("/api/v1/{name}"))).await {
                Ok(mut answer) => match answer[name].take() {
                    Value::Array(rows) => Ok(rows),
                    _ => Ok(Vec::new()),
                },
                // Built without the mixer.
                Err(control::Error::Refused { status: 501, .. }) => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        let mut sample = Self {
            at,
            now,
            streams: list("streams").await?,
            mixes: list("mixes").await?,
            pushes: list("pushes").await?,
            readers: HashMap::new(),
            rates: HashMap::new(),
        };
        sample
            .streams
            .sort_by_key(|stream| std::cmp::Reverse(players(stream)));
        let asked = sample.streams.iter().filter(|stream| players(stream) > 0);
        for name in asked.take(ASKED).map(name).collect::<Vec<_>>() {
            let path = format!("/api/v1/streams/{name}/readers");
            // It may have gone meanwhile.
            let Ok(answer) = control.json(&Ask::get(&path)).await else {
                continue;
            };
            let readers = answer["readers"].as_array();
            let sum = readers
                .into_iter()
                .flatten()
                .fold((0, 0), |(lag, skipped), reader| {
                    let number = |field: &str| reader[field].as_u64().unwrap_or(0);
                    (number("lag_ms").max(lag), skipped + number("skipped"))
                });
            sample.readers.insert(name, sum);
        }
        sample.rates = sample.rates(before);
        Ok(sample)
    }

    /// Bytes of each thing that counts them: what it is, how many, since when.
    fn counts(&self) -> impl Iterator<Item = (String, u64, Option<&str>)> {
        let streams = self.streams.iter().filter_map(|stream| {
            let publisher = &stream["publisher"];
            let key = format!("stream {} {}", name(stream), publisher["epoch"]);
            Some((
                key,
                publisher["bytes"].as_u64()?,
                publisher["since"].as_str(),
            ))
        });
        let pushes = self.pushes.iter().filter_map(|push| {
            let key = format!("push {}", push["id"]);
            Some((key, push["bytes"].as_u64()?, push["since"].as_str()))
        });
        streams.chain(pushes)
    }

    fn rates(&self, before: Option<&Self>) -> HashMap<String, u64> {
        let old: HashMap<_, _> = before
            .into_iter()
            .flat_map(Self::counts)
            .map(|(key, bytes, _)| (key, bytes))
            .collect();
        let rate = |(key, bytes, since): (String, u64, Option<&str>)| {
            let (bytes, time) = match (old.get(&key), before) {
                (Some(old), Some(before)) => (bytes.saturating_sub(*old), self.at - before.at),
                _ => (bytes, age(since, self.now)?),
            };
            // Less than that says nothing about a rate.
            let seconds = time.as_secs_f64();
            (seconds > 0.2).then(|| (key, (bytes as f64 * 8.0 / 1000.0 / seconds).round() as u64))
        };
        self.counts().filter_map(rate).collect()
    }

    fn rate(&self, key: &str) -> String {
        self.rates.get(key).map_or("-".to_owned(), u64::to_string)
    }

    /// The text, with about so many lines: what does not fit is counted.
    fn picture(&self, rows: usize, address: &str) -> String {
        let published = self
            .streams
            .iter()
            .filter(|s| s["publisher"].is_object())
            .count();
        let readers: u64 = self.streams.iter().map(players).sum();
        let time = humantime::format_rfc3339_seconds(self.now);
        let mut text = format!(
            "linkmic {address}  {time}  publishers {published}  players {readers}  mixes {}  pushes {}\n",
            self.mixes.len(),
            self.pushes.len()
        );
        let sections = [
            ("streams", STREAM_HEAD.to_vec(), self.stream_rows()),
            ("mixes", MIX_HEAD.to_vec(), self.mix_rows()),
            ("pushes", PUSH_HEAD.to_vec(), self.push_rows()),
        ];
        let filled = sections
            .iter()
            .filter(|(_, _, rows)| !rows.is_empty())
            .count()
            .max(1);
        // A blank line, heads and what is left out take three.
        let share = (rows.saturating_sub(1) / filled).saturating_sub(3).max(1);
        for (what, heads, mut rows) in sections {
            if rows.is_empty() && what != "streams" {
                continue;
            }
            let more = rows.len().saturating_sub(share);
            rows.truncate(share);
            let numeric: Vec<_> = heads.iter().map(|head| NUMBERS.contains(head)).collect();
            let heads = heads.into_iter().map(str::to_owned).collect();
            text += "\n";
            text += &aligned(heads, rows, &numeric);
            if more > 0 {
                text += &format!("… and {more} more {what}\n");
            }
        }
        text
    }

    fn stream_rows(&self) -> Vec<Vec<String>> {
        let row = |stream: &Value| {
            let publisher = &stream["publisher"];
            let from = match publisher["origin"].as_str() {
                Some("mix") => format!("mix {}", text(&publisher["mix"])),
                _ => text(&publisher["address"]),
            };
            let reader = self.readers.get(&name(stream));
            let count = |feed: &str| {
                let feed = &stream["feeds"][feed];
                let number = |class: &str| feed[class].as_u64().unwrap_or(0);
                (number("low_latency"), number("viewers"))
            };
            let (source, program) = (count("source"), count("program"));
            vec![
                text(&Value::from(name(stream))),
                from,
                since(publisher["since"].as_str(), self.now),
                text(&publisher["video"]["codec"]),
                text(&publisher["audio"]["codec"]),
                self.rate(&format!("stream {} {}", name(stream), publisher["epoch"])),
                text(&publisher["idle_ms"]),
                (source.0 + program.0).to_string(),
                (source.1 + program.1).to_string(),
                reader.map_or("-".to_owned(), |(lag, _)| lag.to_string()),
                reader.map_or("-".to_owned(), |(_, skipped)| skipped.to_string()),
                match stream["mixed"].as_bool() {
                    Some(true) => "yes".to_owned(),
                    _ => "-".to_owned(),
                },
            ]
        };
        self.streams.iter().map(row).collect()
    }

    fn mix_rows(&self) -> Vec<Vec<String>> {
        let row = |mix: &Value| {
            let inputs = mix["inputs"].as_array();
            let inputs: Vec<_> = inputs.into_iter().flatten().collect();
            let live = inputs
                .iter()
                .filter(|input| input["state"] == "live")
                .count();
            let output = &mix["output"];
            let size = match (output["width"].as_u64(), output["height"].as_u64()) {
                (Some(width), Some(height)) => format!("{width}x{height}"),
                _ => "-".to_owned(),
            };
            vec![
                text(&mix["id"]),
                text(&mix["state"]),
                format!("{}/{}", text(&mix["app"]), text(&output["stream"])),
                format!("{live}/{}", inputs.len()),
                size,
                text(&output["fps"]),
                text(&mix["stats"]["frames_out"]),
                text(&mix["stats"]["pictures_dropped"]),
                text(&mix["error"]),
            ]
        };
        self.mixes.iter().map(row).collect()
    }

    fn push_rows(&self) -> Vec<Vec<String>> {
        let row = |push: &Value| {
            vec![
                text(&push["id"]),
                text(&push["state"]),
                format!("{}/{}", text(&push["app"]), text(&push["stream"])),
                since(push["since"].as_str(), self.now),
                self.rate(&format!("push {}", push["id"])),
                text(&push["lag_ms"]),
                text(&push["failures"]),
                text(&push["url"]),
                text(&push["last_error"]),
            ]
        };
        self.pushes.iter().map(row).collect()
    }
}

const STREAM_HEAD: [&str; 12] = [
    "STREAM", "FROM", "SINCE", "VIDEO", "AUDIO", "KBIT/S", "IDLE_MS", "PEERS", "VIEWERS", "LAG_MS",
    "SKIPPED", "MIXED",
];
const MIX_HEAD: [&str; 9] = [
    "MIX", "STATE", "OUTPUT", "LIVE", "SIZE", "FPS", "FRAMES", "DROPPED", "ERROR",
];
const PUSH_HEAD: [&str; 9] = [
    "PUSH", "STATE", "STREAM", "SINCE", "KBIT/S", "LAG_MS", "FAILURES", "URL", "ERROR",
];
/// Heads of columns of numbers.
const NUMBERS: [&str; 10] = [
    "KBIT/S", "IDLE_MS", "PEERS", "VIEWERS", "LAG_MS", "SKIPPED", "FPS", "FRAMES", "DROPPED",
    "FAILURES",
];

fn name(stream: &Value) -> String {
    let part = |field: &str| stream[field].as_str().unwrap_or("-").to_owned();
    format!("{}/{}", part("app"), part("stream"))
}

fn players(stream: &Value) -> u64 {
    let count = |feed: &str, class: &str| stream["feeds"][feed][class].as_u64().unwrap_or(0);
    ["source", "program"]
        .iter()
        .map(|feed| count(feed, "low_latency") + count(feed, "viewers"))
        .sum()
}

fn age(since: Option<&str>, now: SystemTime) -> Option<Duration> {
    let since = humantime::parse_rfc3339(since?).ok()?;
    now.duration_since(since).ok()
}

/// How long ago, in its two largest units.
fn since(since: Option<&str>, now: SystemTime) -> String {
    let Some(age) = age(since, now) else {
        return "-".to_owned();
    };
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const START: &str = "2026-11-29T14:00:00Z";

    fn sample(second: u64, bytes: u64, streams: usize) -> Sample {
        let begin = humantime::parse_rfc3339(START).unwrap();
        let stream = |n: usize| {
            json!({
                "app": "live", "stream": format!("s{n}"), "mixed": false,
                "publisher": {"epoch": n, "origin": "anchor", "address": "203.0.113.7:5000", "since": START,
                    "bytes": bytes, "idle_ms": 12, "video": {"codec": "avc"}, "audio": null},
                "feeds": {"source": {"low_latency": 1, "viewers": 0}, "program": {"low_latency": 0, "viewers": 2}},
            })
        };
        Sample {
            at: Instant::now() + Duration::from_secs(second),
            now: begin + Duration::from_secs(second),
            streams: (0..streams).map(stream).collect(),
            mixes: Vec::new(),
            pushes: Vec::new(),
            readers: HashMap::from([("live/s0".to_owned(), (420, 3))]),
            rates: HashMap::new(),
        }
    }

    #[test]
    fn a_rate_is_of_the_time_between_two_pictures_and_without_one_before_of_all_time() {
        // 1,000,000 bytes in 8 s are 1,000 kbit/s.
        let mut first = sample(8, 1_000_000, 1);
        first.rates = first.rates(None);
        assert_eq!(first.rate("stream live/s0 0"), "1000");
        // 500,000 bytes more in 2 s are 2,000 kbit/s.
        let mut second = sample(10, 1_500_000, 1);
        second.at = first.at + Duration::from_secs(2);
        second.rates = second.rates(Some(&first));
        assert_eq!(second.rate("stream live/s0 0"), "2000");
        assert_eq!(second.rate("stream live/s0 1"), "-");
    }

    #[test]
    fn a_picture_has_each_stream_with_its_readers_and_says_what_it_leaves_out() {
        let mut few = sample(65, 8_125_000, 1);
        few.rates = few.rates(None);
        let text = few.picture(usize::MAX, "127.0.0.1:1985");
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].contains("publishers 1  players 3  mixes 0  pushes 0"),
            "{text}"
        );
        let cells: Vec<_> = lines[3].split_whitespace().collect();
        let wanted = [
            "live/s0",
            "203.0.113.7:5000",
            "1m05s",
            "avc",
            "-",
            "1000",
            "12",
            "1",
            "2",
            "420",
            "3",
            "-",
        ];
        assert_eq!(cells, wanted, "{text}");
        let many = sample(65, 1, 100).picture(20, "a");
        assert!(many.lines().count() <= 20, "{many}");
        assert!(many.contains("… and 84 more streams"), "{many}");
    }

    #[test]
    fn ages_have_two_units() {
        let begin = humantime::parse_rfc3339(START).unwrap();
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m01s"),
            (3_720, "1h02m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(
                since(Some(START), begin + Duration::from_secs(seconds)),
                shown
            );
        }
        assert_eq!(since(None, begin), "-");
    }
}

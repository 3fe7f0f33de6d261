//! What an output shows of inputs that carry their numbers, in the inputs' own media time.

use std::ops::{Range, RangeInclusive};

use linkmic::probe::player::Seen;
use linkmic::probe::process::Log;
use linkmic::rtmp::session::client::Event;
use linkmic::rtmp::{Message, kind};
use tokio::task::AbortHandle;

use super::{FPS, median};
use crate::edge::client::{Client, is_frame, is_header};

/// From picture to picture of the output, ms.
pub const FRAME: i64 = 1000 / FPS;

/// An output picture's time and the media times, by its numbers, of all that it shows; `None` where no number is.
pub struct Shown {
    pub pts: i64,
    pub media: Vec<Option<i64>>,
}

/// What was seen of inputs with those frame rates, none of whose numbers has gone round.
pub fn shown(seen: &Seen, rates: &[u32]) -> Vec<Shown> {
    let timed = seen.sightings.iter().filter_map(|sighting| {
        let readings = sighting.readings.iter().zip(rates);
        let media = readings.map(|(reading, fps)| {
            let counter = i64::from(reading.counter?);
            Some(counter * 1000 / i64::from(*fps))
        });
        Some(Shown {
            pts: sighting.pts?,
            media: media.collect(),
        })
    });
    timed.collect()
}

/// How late one input is behind another in the pictures of that while of the other's time, ms.
pub fn lateness(shown: &[Shown], of: usize, behind: usize, while_: Range<i64>) -> Vec<i64> {
    let late = |shown: &Shown| {
        let other = shown.media[behind].filter(|other| while_.contains(other))?;
        Some(other - shown.media[of]?)
    };
    shown.iter().filter_map(late).collect()
}

/// The output's own pace: every picture one frame after the one before.
pub fn assert_even(shown: &[Shown]) {
    let times: Vec<i64> = shown.iter().map(|shown| shown.pts).collect();
    let odd: Vec<(i64, i64)> = times
        .windows(2)
        .map(|pair| (pair[0] - times[0], pair[1] - pair[0]))
        .filter(|(_, step)| *step != FRAME)
        .collect();
    assert!(odd.is_empty(), "no frame apart, by time: {odd:?}");
}

/// An input's number and the output's time belong together, but for what a busy machine repeats for a moment.
pub fn assert_undisturbed(name: &str, shown: &[Shown], n: usize) {
    let zeros = shown.iter().filter_map(|s| Some(s.pts - s.media[n]?));
    let zeros: Vec<i64> = zeros.collect();
    let middle = median(&zeros);
    let off = zeros
        .iter()
        .filter(|zero| (**zero - middle).abs() > FRAME)
        .count();
    println!(
        "{name}: {off} of {} pictures are more than a frame off",
        zeros.len()
    );
    assert!(
        off * 10 <= zeros.len() && !zeros.is_empty(),
        "{name}: {zeros:?}"
    );
}

/// A player that writes down what comes over the wire, from the stream's first message on.
pub struct Wire {
    got: Log<Vec<Message>>,
    task: AbortHandle,
}

impl Wire {
    pub async fn of(url: &str) -> Self {
        let mut client = Client::play(url).await.expect("granted");
        let got: Log<Vec<Message>> = Log::default();
        let notes = got.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = client.event_at_leisure().await {
                if let Event::Media(message) = event {
                    notes.change(|all| all.push(message));
                }
            }
        });
        Self {
            got,
            task: task.abort_handle(),
        }
    }

    /// Fails unless all that came is one stream: one header of each kind, every picture one frame after the one before,
    /// and sound without a hole.
    pub fn assert_untouched(&self) {
        for (type_id, steps) in [(kind::VIDEO, FRAME..=FRAME), (kind::AUDIO, 20..=23)] {
            assert_eq!(self.headers(type_id), 1, "headers of kind {type_id}");
            let odd = self.odd_steps(type_id, steps);
            assert!(odd.is_empty(), "steps of kind {type_id}: {odd:?}");
        }
    }

    /// Headers of that kind that came.
    pub fn headers(&self, type_id: u8) -> usize {
        let got = self.got.lock();
        let headers = got.iter().filter(|message| is_header(message, type_id));
        headers.count()
    }

    /// Where frames of that kind are not so many ms apart, how many they are.
    pub fn odd_steps(&self, type_id: u8, steps: RangeInclusive<i64>) -> Vec<i64> {
        let got = self.got.lock();
        let frames = got.iter().filter(|message| is_frame(message, type_id));
        let times: Vec<i64> = frames.map(|message| i64::from(message.timestamp)).collect();
        assert!(
            times.len() > 20,
            "{} messages of kind {type_id}",
            times.len()
        );
        // Sound of just before the first picture is moved there.
        let steps_taken = times.windows(2).skip(2).map(|pair| pair[1] - pair[0]);
        steps_taken.filter(|step| !steps.contains(step)).collect()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! A live stream whose every picture and sound carries its number, and when it was sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use linkmic::rtmp::session::client::Event;
use linkmic::rtmp::{Message, kind};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::client::{Client, is_frame};
use super::clip::{clip, number_of, numbered};

/// Media time of a picture, ms; each has a sound half of it later.
pub const FRAME: u32 = 40;
/// Pictures from key frame to key frame: 1 s.
pub const GOP: u32 = 25;
/// The same as time.
pub const GOP_TIME: Duration = Duration::from_millis((GOP * FRAME) as u64);
/// Bytes of a sound: 32 kbit/s.
const SOUND: usize = 160;

/// When each picture was sent, by number.
pub type Sent = Arc<Mutex<Vec<Instant>>>;

/// A publisher that goes on in real time until it is dropped.
pub struct Live {
    pub sent: Sent,
    task: AbortHandle,
}

impl Live {
    /// At `bitrate` bits per second: each key frame takes a sixth of its second, sound 32 kbit/s.
    pub async fn start(url: &str, bitrate: usize) -> Self {
        let mut publisher = Client::publish(url).await.expect("granted");
        for header in clip().await.headers() {
            publisher.send_tag(header, 0).await;
        }
        let sent = Sent::default();
        let stamps = sent.clone();
        let pictures = bitrate / 8 - GOP as usize * SOUND;
        let key = pictures / 6;
        let inter = (pictures - key) / (GOP as usize - 1);
        let task = tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis((FRAME / 2).into()));
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for n in 0.. {
                tick.tick().await;
                let is_key = n % GOP == 0;
                let frame = numbered(n, is_key, if is_key { key } else { inter });
                stamps.lock().expect("no panic").push(Instant::now());
                publisher.send(kind::VIDEO, n * FRAME, frame).await;
                tick.tick().await;
                let mut sound = vec![0xaf, 1];
                sound.resize(SOUND, 0x5a);
                let at = n * FRAME + FRAME / 2;
                publisher.send(kind::AUDIO, at, sound).await;
            }
        });
        Self {
            sent,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A picture as it came.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub number: u32,
    pub at: Instant,
    pub is_key: bool,
    /// From the publisher's write to the reader's read.
    pub late: Duration,
}

/// What a reader has got so far.
#[derive(Debug, Default, Clone)]
pub struct Got {
    pub pictures: Vec<Seen>,
    /// When each message of any kind came.
    pub all: Vec<Instant>,
    /// Why it was closed.
    pub ended: Option<String>,
}

/// A reader that writes down what it gets until it is dropped.
pub struct Watcher {
    pub got: Arc<Mutex<Got>>,
    task: AbortHandle,
}

impl Watcher {
    pub async fn start(url: &str, sent: &Sent) -> Self {
        Self::watch(Client::play(url).await.expect("granted"), sent)
    }

    pub fn watch(mut client: Client, sent: &Sent) -> Self {
        let got = Arc::new(Mutex::new(Got::default()));
        let (notes, sent) = (got.clone(), sent.clone());
        let task = tokio::spawn(async move {
            loop {
                match client.event_at_leisure().await {
                    Some(Event::Media(message)) => {
                        note(&mut notes.lock().expect("no panic"), &message, &sent);
                    }
                    Some(Event::Closed { description, .. }) => {
                        notes.lock().expect("no panic").ended = Some(description);
                    }
                    Some(_) => {}
                    None => {
                        let mut got = notes.lock().expect("no panic");
                        got.ended.get_or_insert_with(String::new);
                        return;
                    }
                }
            }
        });
        Self {
            got,
            task: task.abort_handle(),
        }
    }

    pub fn look<R>(&self, look: impl FnOnce(&Got) -> R) -> R {
        look(&self.got.lock().expect("no panic"))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(got: &mut Got, message: &Message, sent: &Sent) {
    let at = Instant::now();
    got.all.push(at);
    if !is_frame(message, kind::VIDEO) {
        return;
    }
    let Some(number) = number_of(&message.payload) else {
        return;
    };
    let stamp = sent.lock().expect("no panic")[number as usize];
    got.pictures.push(Seen {
        number,
        at,
        is_key: message.payload[0] == 0x17,
        late: at - stamp,
    });
}

//! A program whose every message is written down where it is published and where it arrives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use linkmic::probe::http::Client as Control;
use linkmic::probe::process::poll;
use linkmic::rtmp::kind;
use linkmic::rtmp::session::client::Event;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{MissedTickBehavior, interval};

use crate::edge::SOON;
use crate::edge::client::{Client, is_frame};
use crate::edge::clip::{clip, number_of, numbered};
use crate::edge::house::House;

/// Media time of a picture, ms; each has a sound half of it later.
pub const FRAME: u32 = 40;
/// Pictures from key frame to key frame: 1 s.
pub const GOP: u32 = 25;
/// Bytes of a sound: 32 kbit/s.
const SOUND: usize = 160;

/// A coded frame of picture or sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub time: u32,
    pub body: Bytes,
}

impl Frame {
    /// Its number, if it is a picture.
    pub fn number(&self) -> Option<u32> {
        (self.kind == kind::VIDEO).then(|| number_of(&self.body))?
    }

    pub fn is_key(&self) -> bool {
        self.kind == kind::VIDEO && self.body[0] == 0x17
    }
}

type Frames = Arc<Mutex<Vec<Frame>>>;

/// A publisher that goes on in real time until it is told to end.
pub struct Program {
    sent: Frames,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Program {
    /// At `bitrate` bits per second: each key frame takes a sixth of its second, sound 32 kbit/s.
    pub async fn start(url: &str, bitrate: usize) -> Self {
        let mut publisher = Client::publish(url).await.expect("granted");
        for header in clip().await.headers() {
            publisher.send_tag(header, 0).await;
        }
        let sent = Frames::default();
        let notes = sent.clone();
        let pictures = bitrate / 8 - GOP as usize * SOUND;
        let key = pictures / 6;
        let inter = (pictures - key) / (GOP as usize - 1);
        let (end, mut ending) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis((FRAME / 2).into()));
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for n in 0.. {
                for kind in [kind::VIDEO, kind::AUDIO] {
                    tokio::select! {
                        _ = &mut ending => return publisher.unpublish().await,
                        _ = tick.tick() => {}
                    }
                    let is_key = n % GOP == 0;
                    let (time, body) = if kind == kind::VIDEO {
                        let bytes = if is_key { key } else { inter };
                        (n * FRAME, numbered(n, is_key, bytes))
                    } else {
                        let mut sound = vec![0xaf, 1];
                        sound.extend(n.to_be_bytes());
                        sound.resize(SOUND, 0x5a);
                        (n * FRAME + FRAME / 2, sound)
                    };
                    let body = Bytes::from(body);
                    publisher.send(kind, time, body.clone()).await;
                    let frame = Frame { kind, time, body };
                    notes.lock().expect("no panic").push(frame);
                }
            }
        });
        let end = Some(end);
        Self { sent, end, task }
    }

    /// Ends the program in order: all that was published.
    pub async fn finish(mut self) -> Vec<Frame> {
        drop(self.end.take());
        (&mut self.task).await.expect("it ends");
        self.sent.lock().expect("no panic").clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What arrives at a player, until it is dropped.
pub struct Recording {
    got: Frames,
    ended: Arc<Mutex<bool>>,
    task: AbortHandle,
}

impl Recording {
    pub async fn of(url: &str) -> Self {
        let mut client = Client::play(url).await.expect("granted");
        let (got, ended) = (Frames::default(), Arc::new(Mutex::new(false)));
        let (notes, over) = (got.clone(), ended.clone());
        let task = tokio::spawn(async move {
            while let Some(event) = client.event_at_leisure().await {
                if let Event::Media(message) = event
                    && (is_frame(&message, kind::VIDEO) || is_frame(&message, kind::AUDIO))
                {
                    notes.lock().expect("no panic").push(Frame {
                        kind: message.type_id,
                        time: message.timestamp,
                        body: message.payload,
                    });
                }
            }
            *over.lock().expect("no panic") = true;
        });
        Self {
            got,
            ended,
            task: task.abort_handle(),
        }
    }

    pub fn frames(&self) -> Vec<Frame> {
        self.got.lock().expect("no panic").clone()
    }

    /// Waits until it has picture `number`, or a later one.
    pub async fn upto(&self, number: u32) -> Vec<Frame> {
        let what = format!("picture {number}");
        let got = poll(&what, SOON, || async {
            let frames = self.frames();
            let newest = frames.iter().filter_map(Frame::number).max();
            newest.is_some_and(|n| n >= number).then_some(frames)
        });
        got.await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until the server has closed it.
    pub async fn whole(&self) -> Vec<Frame> {
        let ended = poll("the end", SOON, || async {
            self.ended.lock().expect("no panic").then_some(())
        });
        ended.await.unwrap_or_else(|e| panic!("{e}"));
        self.frames()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Only the frames of one kind.
pub fn of_kind(frames: &[Frame], kind: u8) -> Vec<&Frame> {
    frames.iter().filter(|frame| frame.kind == kind).collect()
}

/// Fails unless `got` is, byte for byte, what was sent from its first picture on: without a gap, up to the end.
pub fn nothing_is_missing(got: &[Frame], sent: &[Frame]) {
    for kind in [kind::VIDEO, kind::AUDIO] {
        let (got, sent) = (of_kind(got, kind), of_kind(sent, kind));
        let first = got.first().expect("something arrived");
        let at = sent.iter().position(|frame| frame.body == first.body);
        let at = at.expect("it was sent");
        assert_eq!(got.len(), sent.len() - at, "frames of kind {kind}");
        for (got, sent) in got.iter().zip(&sent[at..]) {
            assert!(got.body == sent.body, "kind {kind} sent at {}", sent.time);
        }
    }
}

/// Puts a push of stream `a` that has to be accepted.
pub async fn put(house: &House, id: &str, url: &str, more: Value) {
    let mut target = serde_json::json!({"app": "live", "stream": "a", "url": url});
    for (key, value) in more.as_object().expect("an object") {
        target[key] = value.clone();
    }
    let path = format!("/api/v1/pushes/{id}");
    let answer = house.control().put(&path, &target).await.expect("sent");
    assert!(answer.is_success(), "{}", answer.body);
}

/// Waits until a push is as wanted.
pub async fn until(
    control: &Control,
    id: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let path = format!("/api/v1/pushes/{id}");
    let wanted = &wanted;
    let last = Mutex::new(Value::Null);
    let seen = poll(what, SOON, || async {
        let push = control.get(&path).await.ok()?.json();
        *last.lock().expect("no panic") = push.clone();
        wanted(&push).then_some(push)
    });
    seen.await
        .unwrap_or_else(|e| panic!("{e}: {}", last.lock().expect("no panic")))
}

/// Waits until a stream is there.
pub async fn on_air(house: &House, name: &str) {
    let path = format!("/api/v1/streams/live/{name}");
    let live = poll("it is on the air", SOON, || async {
        let answer = house.ask(&path).await;
        (answer.is_success() && answer.json()["publisher"].is_object()).then_some(())
    });
    live.await.unwrap_or_else(|e| panic!("{e}"));
}

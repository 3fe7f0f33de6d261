//! Publishers: one thread that sends a clip to every stream at the clip's own pace, each picture stamped.
//!
//! The streams begin a little apart, so that their pictures do not all fall due in the same millisecond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::aim::Aim;
use super::clip::Clip;
use super::link::{Failure, Link, Said, Talk};
use super::poll::Poll;
use crate::rtmp::Framed;
use crate::rtmp::session::client::Session;

/// The longest turn: how soon an order to stop is seen.
const TURN: Duration = Duration::from_millis(50);
/// What servers say is short.
const SCRATCH: usize = 16 << 10;
/// Publishers opened a second.
const OPENED_A_SECOND: f64 = 200.0;
/// How far apart the streams' beginnings are spread: one picture at 30 a second.
const SPREAD: Duration = Duration::from_millis(33);

/// What the publishing thread counts while it runs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    stop: AtomicBool,
    /// Granted, and how many of those or others have ended.
    pub granted: AtomicUsize,
    pub lost: AtomicUsize,
    pub pictures: AtomicU64,
    pub messages: AtomicU64,
    pub bytes: AtomicU64,
    /// How late the latest message was handed over since this was last set to 0, µs.
    pub late_us: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl Counts {
    /// Why publishers ended, the first few.
    pub fn errors(&self) -> Vec<String> {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn fail(&self, failure: &Failure) {
        self.lost.fetch_add(1, Relaxed);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < 5 {
            errors.push(failure.to_string());
        }
    }
}

/// The running publishers. Dropping it ends them.
pub(super) struct Publishers {
    pub counts: Arc<Counts>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Publishers {
    /// Starts publishing `clip` to every stream of `aim`.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(aim: Aim, clip: Clip) -> io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let thread = std::thread::Builder::new()
            .name("publishers".into())
            .spawn(move || run(&aim, &clip, &shared))?;
        Ok(Self {
            counts,
            thread: Some(thread),
        })
    }

    /// Waits until all of `streams` are granted or lost, or `limit` has passed. Returns how many were granted.
    pub fn wait(&self, streams: usize, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let granted = self.counts.granted.load(Relaxed);
            let settled = granted + self.counts.lost.load(Relaxed) >= streams;
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if settled || ended || Instant::now() >= deadline {
                return granted;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends publishing in order.
    ///
    /// # Errors
    /// When sockets could not be made or watched.
    pub fn stop(mut self) -> io::Result<()> {
        self.counts.stop.store(true, Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the publishing thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.counts.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its result was not asked for.
            let _ = thread.join();
        }
    }
}

struct Publisher {
    link: Link,
    talk: Talk,
    connected: bool,
    /// When message 0 is due, once publishing is granted.
    began: Option<Instant>,
    next: u64,
    pictures: u64,
    over: bool,
}

fn run(aim: &Aim, clip: &Clip, counts: &Counts) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut publishers: Vec<Publisher> = Vec::new();
    let mut due: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    let mut scratch = vec![0; SCRATCH];
    let start = Instant::now();
    while !counts.stop.load(Relaxed) {
        let mut wait = TURN;
        if publishers.len() < aim.streams() {
            let at = start + Duration::from_secs_f64(publishers.len() as f64 / OPENED_A_SECOND);
            wait = wait.min(at.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                let publisher = Publisher::open(aim, publishers.len())?;
                poll.add(publishers.len(), &publisher.link)?;
                publishers.push(publisher);
            }
        }
        if let Some(Reverse((at, _))) = due.peek() {
            wait = wait.min(at.saturating_duration_since(Instant::now()));
        }
        let ready: Vec<_> = poll.wait(wait)?.collect();
        for ready in ready {
            let publisher = &mut publishers[ready.slot];
            match publisher.serve(ready.writable, &mut scratch) {
                Ok(false) => {}
                Ok(true) => {
                    counts.granted.fetch_add(1, Relaxed);
                    let spread = SPREAD * ready.slot as u32 / aim.streams() as u32;
                    let began = Instant::now() + spread;
                    publisher.begin(clip, began);
                    due.push(Reverse((began, ready.slot)));
                }
                Err(failure) => publisher.end(&failure, counts),
            }
        }
        while let Some(&Reverse((at, slot))) = due.peek() {
            let now = Instant::now();
            if at > now {
                break;
            }
            due.pop();
            let publisher = &mut publishers[slot];
            if publisher.over {
                continue;
            }
            counts
                .late_us
                .fetch_max((now - at).as_micros() as u64, Relaxed);
            match publisher.send(clip, counts) {
                Ok(next) => due.push(Reverse((next, slot))),
                Err(failure) => publisher.end(&failure, counts),
            }
        }
    }
    for publisher in &mut publishers {
        publisher.goodbye();
    }
    Ok(())
}

impl Publisher {
    fn open(aim: &Aim, index: usize) -> io::Result<Self> {
        let mut link = Link::connect(aim.address)?;
        let talk = match aim.target(index) {
            Some(target) => Talk::new(Session::publish(target), &mut link),
            None => Talk::raw(),
        };
        Ok(Self {
            link,
            talk,
            connected: false,
            began: None,
            next: 0,
            pictures: 0,
            over: false,
        })
    }

    /// Reads what the server says. Returns whether publishing was granted with that.
    fn serve(&mut self, writable: bool, scratch: &mut [u8]) -> Result<bool, Failure> {
        if self.over {
            return Ok(false);
        }
        if !self.connected {
            if !writable {
                return Ok(false);
            }
            self.link.check()?;
            self.connected = true;
        }
        self.link.flush()?;
        let mut granted = false;
        while let Some(bytes) = self.link.read(scratch)? {
            self.talk.take(&mut self.link, &scratch[..bytes], |said| {
                granted |= said == Said::Ready;
            })?;
        }
        Ok(granted)
    }

    fn stream_id(&mut self) -> u32 {
        let id = self.talk.session().and_then(|session| session.stream_id());
        // Publishing is granted on a stream that has one.
        id.unwrap_or(crate::rtmp::MEDIA_STREAM_ID)
    }

    /// Queues the headers; the clip's time 0 is `began`.
    fn begin(&mut self, clip: &Clip, began: Instant) {
        self.began = Some(began);
        let id = self.stream_id();
        for (type_id, payload) in &clip.headers {
            Framed::new(*type_id, 0, id, payload.clone()).write_to(self.link.buffer());
        }
    }

    /// Sends the next message. Returns when the one after it is due.
    fn send(&mut self, clip: &Clip, counts: &Counts) -> Result<Instant, Failure> {
        let (frame, due_ms) = (clip.frame(self.next), clip.due_ms(self.next));
        let payload = frame.stamped(self.pictures);
        if frame.is_picture() {
            self.pictures += 1;
            counts.pictures.fetch_add(1, Relaxed);
        }
        // The protocol's time wraps at 2^32.
        let framed = Framed::new(frame.type_id, due_ms as u32, self.stream_id(), payload);
        framed.write_to(self.link.buffer());
        counts.messages.fetch_add(1, Relaxed);
        counts.bytes.fetch_add(framed.len() as u64, Relaxed);
        self.link.flush()?;
        self.next += 1;
        let began = self.began.unwrap_or_else(Instant::now);
        Ok(began + Duration::from_millis(clip.due_ms(self.next)))
    }

    fn end(&mut self, failure: &Failure, counts: &Counts) {
        if !std::mem::replace(&mut self.over, true) {
            counts.fail(failure);
            self.link.shut();
        }
    }

    /// Says that the stream ends, if there is one and the socket takes it.
    fn goodbye(&mut self) {
        if self.over || self.began.is_none() {
            return;
        }
        if let Some(session) = self.talk.session() {
            session.unpublish();
            let last_words = session.output();
            self.link.buffer().extend_from_slice(&last_words);
            let _ = self.link.flush();
        }
    }
}

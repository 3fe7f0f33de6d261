//! Where a mix's messages go: onto a name's program feed, in place of its stream, or out as a stream of its own name.
//!
//! To its thread and its encoders both look alike: a hold on a program feed that carries the main while there is nothing
//! to mix, with the relay's splices between. In place that feed is the name's own. A stream of its own has one in a hall
//! apart, fed with the main's messages by a [`Passage`], and what comes out there is published under the new name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::media::{Codec, Feed, Kind, MediaTime, Message, StreamKey};
use crate::reason::Reason;
use crate::relay::{Item, Join, Origin, PublishError, Publisher, Read, Relay, Status, Subscriber};

/// Messages taken from a ring at once: half a second of a stream, which is more than ever waits.
const BATCH: usize = 64;

/// A mix's hold on its output. Dropping it lets go: of a stream of its own as a publisher that vanished.
pub(super) struct Outlet {
    stage: Publisher,
    /// `None`: in place.
    passage: Option<Arc<Passage>>,
}

impl Outlet {
    /// In place of that name's stream.
    ///
    /// # Errors
    /// [`PublishError::Mixed`] where another mix holds it.
    pub fn in_place(relay: &Relay, key: &StreamKey) -> Result<Self, PublishError> {
        Ok(Self {
            stage: relay.overlay(key)?,
            passage: None,
        })
    }

    /// As a stream of its own, of the mix `id`. The main's messages are carried by tasks on `runtime`.
    ///
    /// # Errors
    /// [`PublishError::Busy`] where the name is published.
    pub fn under(
        key: &StreamKey,
        id: &str,
        relay: &Relay,
        runtime: &Handle,
    ) -> Result<Self, PublishError> {
        let origin = Origin::Mix { id: id.to_owned() };
        let publisher = relay.publish(key, origin.clone())?;
        let hall = relay.apart();
        let stage = hall.overlay(key)?;
        let door = Door {
            program: hall.watch(key, Feed::Program),
            items: Vec::with_capacity(BATCH),
            publisher: Some(publisher),
        };
        let passage = Passage {
            key: key.clone(),
            origin,
            relay: relay.clone(),
            hall,
            runtime: runtime.clone(),
            line: Mutex::default(),
            lines: AtomicU64::new(0),
            door: Mutex::new(door),
        };
        Ok(Self {
            stage,
            passage: Some(Arc::new(passage)),
        })
    }

    /// Hands over a message of the mix. `of`: what the main's source feed calls the time that it tells of.
    pub fn publish_of(&self, message: Message, of: Option<MediaTime>, now: Instant) -> Status {
        let Some(passage) = &self.passage else {
            return self.stage.publish_of(message, of, now);
        };
        let of = of.and_then(|of| passage.locate(of));
        let status = self.stage.publish_of(message, of, now);
        passage.let_out(now);
        status
    }

    /// See [`Publisher::status`].
    pub fn status(&self) -> Status {
        self.stage.status()
    }

    /// The `main` is to pass from its next key frame on, or at once where nothing was on the output before. The
    /// mix publishes on until [`Status::Resting`]. Without a main it stays on the air.
    pub fn rest(&self, main: &StreamKey, now: Instant) -> Status {
        match &self.passage {
            Some(passage) if !passage.relay.is_published(main) => return self.stage.status(),
            Some(passage) => passage.carry(main, self.stage.status(), now),
            None => {}
        }
        let status = self.stage.rest(now);
        if let Some(passage) = &self.passage {
            passage.let_out(now);
        }
        status
    }

    /// See [`Publisher::resume`].
    pub fn resume(&self) -> Status {
        self.stage.resume()
    }

    /// See [`Publisher::stay`].
    pub fn stay(&self) -> Status {
        self.stage.stay()
    }

    /// See [`Publisher::request_end`].
    pub fn request_end(&self, now: Instant) -> Status {
        self.stage.request_end(now)
    }

    /// See [`Publisher::is_overdue`].
    pub fn is_overdue(&self) -> bool {
        self.stage.is_overdue()
    }

    /// Do viewers have the main, whenever it comes, until the mix is on the air?
    pub fn shows_main(&self) -> bool {
        let passage = self.passage.as_ref();
        passage.is_none_or(|passage| lock(&passage.line).is_some())
    }

    /// Another stream than `main` passes no more: it is the main no longer.
    pub fn leave_to(&self, main: Option<&StreamKey>) {
        if let Some(passage) = &self.passage {
            lock(&passage.line).take_if(|line| Some(&line.main) != main);
        }
    }

    /// The end of a stream of its own, told to its readers at once. In place it is the relay's matter.
    pub fn finish(&self, reason: Reason) {
        let Some(passage) = &self.passage else { return };
        lock(&passage.line).take();
        let publisher = lock(&passage.door).publisher.take();
        if let Some(publisher) = publisher {
            publisher.finish(reason);
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Some(passage) = &self.passage {
            lock(&passage.line).take();
            lock(&passage.door).publisher.take();
        }
    }
}

/// From the main's source feed through a hall apart to a stream of its own.
struct Passage {
    /// The new name; in the hall apart too.
    key: StreamKey,
    origin: Origin,
    relay: Relay,
    /// Has one name: its source feed is what passes, its program feed the output.
    hall: Relay,
    runtime: Handle,
    line: Mutex<Option<Line>>,
    /// Lines there have been.
    lines: AtomicU64,
    door: Mutex<Door>,
}

/// The main on its way into the hall apart. Dropping it ends that.
struct Line {
    number: u64,
    main: StreamKey,
    publisher: Publisher,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the hall's program feed leaves under the new name.
struct Door {
    program: Subscriber,
    /// What is on its way, empty in between: no room is made for each message.
    items: Vec<Arc<Item>>,
    /// `None`: the mix has ended.
    publisher: Option<Publisher>,
}

/// Both are complete after every statement, so one whose holder panicked can be read on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Passage {
    /// Carries the source feed of `main` from now on, and no other; `stage` is where the mix stands. A mix on the air goes on
    /// to the main's next key frame. Where there is nothing else to see the main begins at once, with its newest
    /// GOP squeezed up to the live edge, so that nobody stays behind it.
    fn carry(self: &Arc<Self>, main: &StreamKey, stage: Status, now: Instant) {
        let mut line = lock(&self.line);
        if line.as_ref().is_some_and(|line| line.main == *main) {
            return;
        }
        // First the old one, or the name in the hall is taken.
        line.take();
        let Ok(publisher) = self.hall.publish(&self.key, self.origin.clone()) else {
            return;
        };
        let mut subscriber = self.relay.watch(main, Feed::Source);
        let join = match stage {
            Status::Preparing | Status::Resting => Join::Squeeze,
            Status::Live | Status::Ending | Status::Done => Join::Wait,
        };
        let first = subscriber.join(join);
        let mut carrier = Carrier::default();
        let headers = first.first().and_then(|item| item.headers().cloned());
        for header in headers.unwrap_or_else(|| subscriber.headers()).iter() {
            carrier.take(header, &publisher, now);
        }
        for item in &first {
            carrier.take(item.message(), &publisher, now);
        }
        let number = self.lines.fetch_add(1, Ordering::Relaxed);
        let run = self.clone().run(number, subscriber, carrier);
        let task = self.runtime.spawn(run);
        *line = Some(Line {
            number,
            main: main.clone(),
            publisher,
            task: task.abort_handle(),
        });
    }

    async fn run(self: Arc<Self>, number: u64, mut subscriber: Subscriber, mut carrier: Carrier) {
        let mut items: Vec<Arc<Item>> = Vec::new();
        loop {
            let reception = subscriber.read(BATCH, &mut items).await;
            let now = Instant::now();
            if let Read::Skipped(_) = reception.read {
                carrier.is_behind = true;
            }
            for item in items.drain(..) {
                {
                    let line = lock(&self.line);
                    let own = line.as_ref().filter(|line| line.number == number);
                    let Some(line) = own else { return };
                    if carrier.is_behind
                        && let Some(headers) = item.headers()
                    {
                        for header in headers.iter() {
                            carrier.take(&header.at(item.message().dts), &line.publisher, now);
                        }
                    }
                    carrier.take(item.message(), &line.publisher, now);
                }
                self.let_out(now);
            }
        }
    }

    /// What the hall's source feed calls that time of the main; `None` while nothing of it has come.
    fn locate(&self, of: MediaTime) -> Option<MediaTime> {
        lock(&self.line).as_ref()?.publisher.locate(of)
    }

    /// Publishes what is new on the hall's program feed. Called after every message, by whoever brought it: one by one, so
    /// in the feed's order.
    fn let_out(&self, now: Instant) {
        let mut door = lock(&self.door);
        let Door {
            program,
            items,
            publisher,
        } = &mut *door;
        loop {
            let reception = program.try_read(BATCH, items);
            // Whoever brings more meanwhile looks for itself, after us.
            let is_last = items.len() < BATCH && reception.ended.is_none();
            for item in items.drain(..) {
                if let Some(publisher) = publisher {
                    publisher.publish(item.message().clone(), now);
                }
            }
            if is_last {
                return;
            }
        }
    }
}

/// What of a main is carried.
#[derive(Default)]
struct Carrier {
    /// Pictures are missing: what follows makes sense from the next key frame on.
    is_behind: bool,
}

impl Carrier {
    /// Carries a message, unless nobody could make use of it, or it is in a codec that the output would not have if it were
    /// mixed: such a main does not pass, which its mix hears of a moment later.
    fn take(&mut self, message: &Message, to: &Publisher, now: Instant) {
        let foreign = match message.kind {
            Kind::Video => message.codec != Codec::H264,
            Kind::Audio => message.codec != Codec::Aac,
            Kind::Data => false,
        };
        if message.kind == Kind::Video && message.track == 0 && !message.is_header() {
            self.is_behind = foreign || (self.is_behind && !message.is_video_key());
            if self.is_behind {
                return;
            }
        }
        if !foreign {
            to.publish(message.clone(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::relay::Config;

    const HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 9];
    const INTER: &[u8] = &[0x27, 1, 0, 0, 0, 9];
    const HEVC_KEY: &[u8] = b"\x93hvc1\0\0\0\x09";

    fn key(stream: &str) -> StreamKey {
        StreamKey::new("live", stream).unwrap()
    }

    fn anchor(relay: &Relay, stream: &str) -> Publisher {
        let origin = Origin::Mix { id: "test".into() };
        relay.publish(&key(stream), origin).unwrap()
    }

    fn send(to: &Publisher, dts: i64, payload: &'static [u8]) {
        let message = Message::new(Kind::Video, MediaTime(dts), Bytes::from_static(payload));
        to.publish(message, Instant::now());
    }

    /// Times and second bytes of what a viewer is given.
    fn read(viewer: &mut Subscriber) -> Vec<(i64, u8)> {
        let mut items = Vec::new();
        viewer.try_read(usize::MAX, &mut items);
        let told = |item: &Arc<Item>| (item.message().dts.0, item.message().payload[1]);
        items.iter().map(told).collect()
    }

    #[tokio::test]
    async fn a_main_begins_with_its_newest_gop_squeezed_and_goes_on_as_it_comes() {
        let relay = Relay::new(Config::default());
        let main = anchor(&relay, "main");
        send(&main, 5_000, HEADER);
        for (n, payload) in [KEY, INTER, INTER].into_iter().enumerate() {
            send(&main, 5_000 + 40 * n as i64, payload);
        }
        let outlet = Outlet::under(&key("own"), "m", &relay, &Handle::current()).unwrap();
        assert!(!outlet.shows_main());
        let mut viewer = relay.watch(&key("own"), Feed::Program);
        let now = Instant::now();
        assert_eq!(outlet.rest(&key("main"), now), Status::Resting);
        assert!(outlet.shows_main());
        let first = read(&mut viewer);
        let steps: Vec<_> = first.iter().map(|(dts, _)| dts - first[1].0).collect();
        assert_eq!(steps[1..], [0, 1, 2], "{first:?}");
        assert_eq!(
            first.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(),
            [0, 1, 1, 1]
        );

        send(&main, 5_120, INTER);
        let live = tokio::time::timeout(Duration::from_secs(10), viewer.ready());
        live.await.expect("it is carried");
        assert_eq!(read(&mut viewer), [(first[3].0 + 40, 1)]);
        // Its times are known in the hall apart.
        let passage = outlet.passage.as_ref().unwrap();
        let apart = |dts| passage.locate(MediaTime(dts)).unwrap();
        assert_eq!(apart(5_120) - apart(5_080), 40);

        // Nobody sees the hall, and a main that is not there does not pass.
        assert_eq!(relay.streams().len(), 2);
        assert_eq!(outlet.rest(&key("absent"), now), Status::Resting);
        assert!(lock(&passage.line).as_ref().unwrap().main == key("main"));
        outlet.leave_to(Some(&key("absent")));
        assert!(!outlet.shows_main());
        outlet.finish(Reason::Deleted);
        assert!(!relay.is_published(&key("own")));
    }

    #[test]
    fn what_makes_no_sense_in_the_output_is_not_carried() {
        let relay = Relay::new(Config::default());
        let to = anchor(&relay, "own");
        let mut viewer = relay.watch(&key("own"), Feed::Program);
        let mut carrier = Carrier::default();
        let mut carried = |dts, payload: &'static [u8]| {
            let message = Message::new(Kind::Video, MediaTime(dts), Bytes::from_static(payload));
            carrier.take(&message, &to, Instant::now());
            !read(&mut viewer).is_empty()
        };
        // Behind pictures in a codec that the output does not have, others make sense from a key frame on.
        let sent = [HEADER, KEY, INTER, HEVC_KEY, INTER, HEADER, KEY, INTER];
        let got: Vec<_> = (0..)
            .zip(sent)
            .map(|(n, payload)| carried(40 * n, payload))
            .collect();
        assert_eq!(got, [true, true, true, false, false, true, true, true]);
    }
}

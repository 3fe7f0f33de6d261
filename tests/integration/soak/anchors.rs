//! The anchors of a soak: clips that were encoded once, sent by a client of ours or by ffmpeg, again and again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use linkmic::load::{Clip, Frame};
use linkmic::probe::process::{Process, poll};
use linkmic::probe::sync;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::account::{GONE, Whose};
use super::plan::Publishing;
use super::world::{World, until};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::studio;

/// Pictures of one connection are numbered from its own multiple of this.
pub const PER_EPOCH: u64 = 1 << 32;
/// How long players may take to hear that a stream is gone, the wait for an absent one included.
const HEARD_WITHIN: Duration = Duration::from_secs(40);
/// Why an epoch ends whose connection was reset. The next one may come before the reset is seen.
const RESET: &[&str] = &["disconnected", "socket_error", "taken_over"];
const IN_ORDER: &[&str] = &["deleted", "closed", "disconnected"];

/// What an anchor sends.
pub enum Source {
    /// By our own client; its pictures are stamped.
    Ours(Arc<Clip>),
    /// By ffmpeg, as it is.
    Ffmpeg(PathBuf),
}

/// One anchor, for as long as the soak lasts.
pub struct Anchor {
    world: Arc<World>,
    name: String,
    source: Source,
    orders: mpsc::Receiver<Publishing>,
    url: String,
    connections: u64,
}

/// What became of a connection.
enum Next {
    /// Another one at once.
    Again,
    After(Duration),
    /// The soak wants none.
    Closed,
}

impl Anchor {
    pub fn new(
        world: Arc<World>,
        name: String,
        source: Source,
        orders: mpsc::Receiver<Publishing>,
    ) -> Self {
        let url = world.urls.push(&name);
        Self {
            world,
            name,
            source,
            orders,
            url,
            connections: 0,
        }
    }

    /// Publishes and does what it is told, until nobody tells it anything any more.
    pub async fn run(mut self) {
        let mut open = self.world.on_air.subscribe();
        loop {
            if !until(&mut open, true).await {
                return;
            }
            let next = match &self.source {
                Source::Ours(clip) => {
                    let clip = clip.clone();
                    self.publish(&clip).await
                }
                Source::Ffmpeg(file) => {
                    let file = file.clone();
                    self.run_ffmpeg(&file).await
                }
            };
            match next {
                Next::Again => {}
                Next::After(away) => {
                    sleep(away).await;
                    self.url = self.world.urls.push(&self.name);
                }
                Next::Closed => {}
            }
        }
    }

    fn stream_is_gone(&self, away: Duration) {
        let whose = Whose::Stream(self.name.clone());
        self.world.account.excuse(whose, GONE, away + HEARD_WITHIN);
    }

    async fn granted(&mut self) -> Option<Client> {
        match Client::publish(&self.url).await {
            Ok(client) => {
                self.connections += 1;
                Some(client)
            }
            Err(no) => {
                let what = format!("{} was refused: {no:?}", self.name);
                self.world.account.complain(what);
                None
            }
        }
    }

    async fn publish(&mut self, clip: &Clip) -> Next {
        let Some(mut client) = self.granted().await else {
            return Next::After(Duration::from_secs(2));
        };
        let mut playing = Playing::begin(clip, &mut client, self.connections).await;
        let mut open = self.world.on_air.subscribe();
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                _ = until(&mut open, false) => {
                    self.world.account.owes(&self.name, IN_ORDER);
                    self.stream_is_gone(Duration::ZERO);
                    client.unpublish().await;
                    return Next::Closed;
                }
                event = client.event_at_leisure() => match event {
                    Some(linkmic::rtmp::session::client::Event::Closed { .. }) | None => {
                        // If nobody did anything, the event of its end says so.
                        return Next::After(Duration::from_secs(1));
                    }
                    Some(_) => continue,
                },
                () = sleep_until(playing.due()) => {
                    playing.send(&mut client).await;
                    continue;
                }
            };
            match order {
                None => return Next::Closed,
                Some(Publishing::Killed) => {
                    self.world.account.owes(&self.name, RESET);
                    client.abort();
                    return Next::Again;
                }
                Some(Publishing::Stop(away)) => {
                    self.world.account.owes(&self.name, IN_ORDER);
                    self.stream_is_gone(away);
                    client.unpublish().await;
                    return Next::After(away);
                }
                Some(Publishing::TakeOver) => {
                    self.world.account.owes(&self.name, &["taken_over"]);
                    let Some(newcomer) = self.granted().await else {
                        continue;
                    };
                    client = newcomer;
                    playing = Playing::begin(clip, &mut client, self.connections).await;
                }
                Some(Publishing::Pause { lasts, burst }) => {
                    sleep(lasts).await;
                    if !burst {
                        playing.leave_out();
                    }
                }
                Some(Publishing::Dropped) => {
                    self.world.account.owes(&self.name, &["dropped"]);
                    self.stream_is_gone(Duration::from_secs(1));
                    let path = format!("/api/v1/streams/live/{}", self.name);
                    self.world.changes("DELETE", &path, None).await;
                }
                Some(Publishing::Banned(lasts)) => {
                    self.world.account.owes(&self.name, &["banned"]);
                    self.stream_is_gone(lasts + Duration::from_secs(2));
                    self.ban(lasts).await;
                    return Next::Again;
                }
            }
        }
    }

    /// Banned for so long, in which it may not come back.
    async fn ban(&self, lasts: Duration) {
        let ban = json!({"stream": format!("live/{}", self.name), "action": "publish"});
        let Some(made) = self.world.changes("POST", "/api/v1/bans", Some(ban)).await else {
            return;
        };
        sleep(lasts / 2).await;
        match Client::publish(&self.url).await {
            Ok(_) => self
                .world
                .account
                .complain(format!("{} publishes under a ban", self.name)),
            Err(no) if no.description.contains("forbidden") => {}
            Err(no) => self
                .world
                .account
                .complain(format!("{} under a ban: {no:?}", self.name)),
        }
        sleep(lasts / 2).await;
        let path = format!("/api/v1/bans/{}", made["id"]);
        self.world.changes("DELETE", &path, None).await;
    }

    async fn run_ffmpeg(&mut self, file: &std::path::Path) -> Next {
        // One that was killed a moment ago may be there still.
        let before = studio::epoch(&self.world.control, &self.name).await;
        let mut process = sync::send(file, &self.url, 1.0).expect("ffmpeg");
        if !self.is_on_air(&process, before).await {
            return Next::After(Duration::from_secs(2));
        }
        let mut open = self.world.on_air.subscribe();
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                _ = until(&mut open, false) => Some(Publishing::Stop(Duration::ZERO)),
                () = sleep(Duration::from_millis(200)) => {
                    if process.ended().is_some() {
                        let what = format!("ffmpeg ended as {}: {}", self.name, process.said());
                        self.world.account.complain(what);
                        return Next::After(Duration::from_secs(2));
                    }
                    continue;
                }
            };
            match order {
                None => return Next::Closed,
                Some(Publishing::Stop(away)) => {
                    self.world.account.owes(&self.name, IN_ORDER);
                    self.stream_is_gone(away);
                    process.interrupt(SOON).await;
                    return Next::After(away);
                }
                Some(Publishing::Pause { lasts, .. }) => {
                    for (name, then) in [("STOP", lasts), ("CONT", Duration::ZERO)] {
                        if let Err(error) = process.signal(name).await {
                            let what = format!("{} cannot be paused: {error}", self.name);
                            self.world.account.complain(what);
                        }
                        sleep(then).await;
                    }
                }
                Some(Publishing::TakeOver) => {
                    self.world.account.owes(&self.name, &["taken_over"]);
                    let before = std::mem::replace(
                        &mut process,
                        sync::send(file, &self.url, 1.0).expect("ffmpeg"),
                    );
                    // The server closes the old one, whose ffmpeg then ends by itself.
                    let mut before = before;
                    if before.end(SOON).await.is_err() {
                        let what = format!("{} was not taken over: {}", self.name, process.said());
                        self.world.account.complain(what);
                    }
                }
                // No anchor of a mix is dropped or banned.
                Some(_) => {
                    self.world.account.owes(&self.name, RESET);
                    process.kill().await;
                    return Next::Again;
                }
            }
        }
    }

    /// Waits until the stream has another publisher than before.
    async fn is_on_air(&self, process: &Process, before: Option<u64>) -> bool {
        let on_air = poll("ffmpeg on air", SOON, || async {
            let epoch = studio::epoch(&self.world.control, &self.name).await?;
            (Some(epoch) != before).then_some(())
        });
        let on_air = on_air.await;
        if let Err(error) = &on_air {
            let what = format!("{}: {error}; {}", self.name, process.said());
            self.world.account.complain(what);
        }
        on_air.is_ok()
    }
}

/// A clip on its way.
struct Playing<'a> {
    clip: &'a Clip,
    began: Instant,
    next: u64,
    /// Of the next picture.
    number: u64,
}

impl<'a> Playing<'a> {
    async fn begin(clip: &'a Clip, client: &mut Client, connection: u64) -> Self {
        for (type_id, payload) in &clip.headers {
            client.try_send(*type_id, 0, payload.clone()).await;
        }
        Self {
            clip,
            began: Instant::now(),
            next: 0,
            number: connection * PER_EPOCH,
        }
    }

    fn due(&self) -> Instant {
        self.began + Duration::from_millis(self.clip.due_ms(self.next))
    }

    /// That the server has closed shows when reading.
    async fn send(&mut self, client: &mut Client) {
        let (frame, time) = (self.clip.frame(self.next), self.clip.due_ms(self.next));
        let body = frame.stamped(self.number);
        self.number += u64::from(frame.is_picture());
        client.try_send(frame.type_id, time as u32, body).await;
        self.next += 1;
    }

    /// Goes on where the clip would be by now, at its next key frame; the numbers go on without a gap.
    fn leave_out(&mut self) {
        let now = Instant::now();
        while self.due() < now || !is_key(self.clip.frame(self.next)) {
            self.next += 1;
        }
    }
}

fn is_key(frame: &Frame) -> bool {
    frame.is_picture() && frame.payload[0] == 0x17
}

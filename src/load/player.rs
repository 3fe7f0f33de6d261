//! One thread's players: opens them at their rate and reads what comes.
//!
//! A sampled player reads every byte of its stream, and of every message the beginning. The others do so until their
//! first picture; from then on the kernel throws their bytes away uncopied, which keeps a thousand of them to a tenth of a core.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::aim::{Aim, Door};
use super::board::{Board, Phase, Tally};
use super::download::Download;
use super::link::{Failure, Link, Said, Talk};
use super::poll::{Poll, Ready};
use super::stamp;
use crate::rtmp::session::client::Session;
use crate::rtmp::{control, kind};

/// One read. Longer than what comes at once, so that a read that does not fill it has emptied the socket.
const SCRATCH: usize = 256 << 10;
/// A player that only counts acknowledges this often. Servers announce windows of 2.5 MB and more.
const ACKNOWLEDGE_EVERY: u64 = 1_000_000;
/// The longest turn: how soon a new phase is seen.
const TURN: Duration = Duration::from_millis(50);

enum Stage {
    Connecting(Conversation),
    /// Until the first picture.
    Joining(Conversation),
    Reading(Conversation),
    Counting(Option<Account>),
    Closed,
}

enum Conversation {
    Rtmp(Box<Talk>),
    Http(Download),
}

/// What an RTMP server wants to hear of.
struct Account {
    /// Bytes, and how many of them the server knows of.
    received: u64,
    acknowledged: u64,
}

impl Conversation {
    fn take(
        &mut self,
        link: &mut Link,
        bytes: &[u8],
        mut each: impl FnMut(u8, &[u8]),
    ) -> Result<(), Failure> {
        match self {
            Conversation::Rtmp(talk) => talk.take(link, bytes, |said| match said {
                Said::Media(type_id, head) => each(type_id, head),
                Said::Ready => {}
            }),
            Conversation::Http(download) => download.take(bytes, each),
        }
    }

    /// The first picture has come, and the whole of what follows is to be read.
    fn go_on(self) -> Self {
        match self {
            Conversation::Rtmp(talk) => Conversation::Rtmp(Box::new(talk.skim())),
            download @ Conversation::Http(_) => download,
        }
    }

    /// The same, and only bytes are to be counted.
    fn account(&self) -> Option<Account> {
        match self {
            Conversation::Rtmp(talk) => Some(Account {
                received: talk.received(),
                acknowledged: talk.received(),
            }),
            Conversation::Http(_) => None,
        }
    }
}

/// What is known of a player when all is over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    pub stream: usize,
    pub sampled: bool,
    /// From the first packet of its connecting to the first picture.
    pub first_video: Option<Duration>,
    /// Age of that picture: where in the past a joiner begins.
    pub first_age_ns: Option<u64>,
    /// In the measured span of time.
    pub bytes: u64,
    /// Of the window, if sampled.
    pub frames: u64,
    pub lost: bool,
}

struct Player {
    link: Link,
    stage: Stage,
    began: Instant,
    began_ns: u64,
    last: Option<u64>,
    record: Record,
}

/// What a thread is told.
pub(super) struct Orders<'a> {
    pub aim: &'a Aim,
    pub board: &'a Board,
    /// This thread, and how many there are: players go round.
    pub thread: usize,
    pub threads: usize,
    pub players: usize,
    pub sampled: usize,
    /// Players opened a second, over all threads.
    pub rate: f64,
}

/// Opens and serves players until the board says that it is over.
///
/// # Errors
/// When epoll fails, or no more sockets can be made.
pub(super) fn run(orders: &Orders<'_>) -> io::Result<Vec<Record>> {
    let mut poll = Poll::new()?;
    let mut players: Vec<Player> = Vec::new();
    let mut scratch = vec![0; SCRATCH];
    let start = Instant::now();
    let mut next = orders.thread;
    loop {
        let mut wait = TURN;
        while next < orders.players {
            let due = start + Duration::from_secs_f64(next as f64 / orders.rate);
            let now = Instant::now();
            if due > now {
                wait = wait.min(due - now);
                break;
            }
            let player = Player::open(orders, next)?;
            poll.add(players.len(), &player.link)?;
            players.push(player);
            next += orders.threads;
        }
        let ready = poll.wait(wait)?;
        let mut tally = orders.board.tally(orders.thread);
        if orders.board.phase() == Phase::Over {
            break;
        }
        for ready in ready {
            let player = &mut players[ready.slot];
            if let Err(failure) = player.serve(orders.board, &mut tally, ready, &mut scratch) {
                player.close();
                orders.board.lost.fetch_add(1, Relaxed);
                if player.record.first_video.is_none() {
                    orders.board.failed.fetch_add(1, Relaxed);
                }
                tally.fail(failure.to_string());
            }
        }
    }
    Ok(players.into_iter().map(|player| player.record).collect())
}

/// Whether player `index` of `players` is one of about `sampled`: one of each stretch of players, and the same share of
/// each of `streams`, which the players take in turn. Not each fourth, say: servers deal players out to their threads in
/// turn, too, and then all of a sample would be one thread's.
fn is_sampled(index: usize, players: usize, sampled: usize, streams: usize) -> bool {
    let (index, players) = (index / streams, players.div_ceil(streams));
    let sampled = sampled.div_ceil(streams).min(players);
    if sampled == 0 {
        return false;
    }
    let stretch = index * sampled / players;
    let begin = |stretch: usize| (stretch * players).div_ceil(sampled);
    let length = begin(stretch + 1) - begin(stretch);
    // Steps of the golden ratio fall everywhere alike, and nowhere in step with anything.
    let place = (stretch as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    index == begin(stretch) + place as usize % length
}

impl Player {
    fn open(orders: &Orders<'_>, index: usize) -> io::Result<Self> {
        let address: SocketAddr = orders.aim.address;
        let mut link = Link::connect(address)?;
        // Making a socket is our own time; from here on it is the network's and the server's.
        let (began, began_ns) = (Instant::now(), stamp::now_ns());
        let talk = match (orders.aim.target(index), orders.aim.door) {
            (None, _) => Conversation::Rtmp(Box::new(Talk::raw())),
            (Some(target), Door::Http) => Conversation::Http(Download::new(target, link.buffer())),
            (Some(target), Door::Rtmp) => {
                Conversation::Rtmp(Box::new(Talk::new(Session::play(target), &mut link)))
            }
        };
        Ok(Self {
            link,
            stage: Stage::Connecting(talk),
            began,
            began_ns,
            last: None,
            record: Record {
                stream: index % orders.aim.streams(),
                sampled: is_sampled(index, orders.players, orders.sampled, orders.aim.streams()),
                ..Record::default()
            },
        })
    }

    fn close(&mut self) {
        self.stage = Stage::Closed;
        self.record.lost = true;
        self.link.shut();
    }

    fn serve(
        &mut self,
        board: &Board,
        tally: &mut Tally,
        ready: Ready,
        scratch: &mut [u8],
    ) -> Result<(), Failure> {
        if let Stage::Connecting(_) = self.stage {
            if !ready.writable {
                return Ok(());
            }
            self.link.check()?;
            let Stage::Connecting(talk) = std::mem::replace(&mut self.stage, Stage::Closed) else {
                return Ok(());
            };
            self.stage = Stage::Joining(talk);
        }
        if ready.writable {
            self.link.flush()?;
        }
        let measuring = board.phase() == Phase::Measuring;
        loop {
            let read = match &self.stage {
                Stage::Closed => return Ok(()),
                Stage::Counting(_) => self.link.discard(scratch)?,
                _ => self.link.read(scratch)?,
            };
            let Some(bytes) = read else { return Ok(()) };
            tally.recent_bytes += bytes as u64;
            if measuring {
                tally.bytes += bytes as u64;
                self.record.bytes += bytes as u64;
            }
            self.take(board, tally, &scratch[..bytes])?;
            // A read that was not filled has emptied the socket, and more will be told of. The end that was told of
            // already will not.
            if bytes < scratch.len() && !ready.ended {
                return Ok(());
            }
        }
    }

    fn take(&mut self, board: &Board, tally: &mut Tally, bytes: &[u8]) -> Result<(), Failure> {
        let (talk, joining) = match &mut self.stage {
            Stage::Joining(talk) => (talk, true),
            Stage::Reading(talk) => (talk, false),
            Stage::Counting(Some(account)) => {
                account.received += bytes.len() as u64;
                if account.received - account.acknowledged >= ACKNOWLEDGE_EVERY {
                    account.acknowledged = account.received;
                    // The protocol counts modulo 2^32.
                    control::acknowledgement(account.received as u32).write_to(self.link.buffer());
                    self.link.flush()?;
                }
                return Ok(());
            }
            Stage::Counting(None) => return Ok(()),
            Stage::Connecting(_) | Stage::Closed => return Ok(()),
        };
        // One clock reading for all that one read brought.
        let now_ns = stamp::now_ns();
        let (record, last) = (&mut self.record, &mut self.last);
        let (began, began_ns) = (self.began, self.began_ns);
        talk.take(&mut self.link, bytes, |type_id, head| {
            if type_id != kind::VIDEO || !stamp::is_picture(head) {
                return;
            }
            let stamp = stamp::read(head);
            let age_ns = stamp
                .filter(|stamp| stamp.clock == stamp::clock())
                .map(|stamp| now_ns.saturating_sub(stamp.sent_ns));
            if record.first_video.is_none() {
                record.first_video = Some(began.elapsed());
                record.first_age_ns = age_ns;
            }
            let Some(stamp) = stamp else { return };
            let (received, missed) = board.frame(record.stream, stamp, *last);
            *last = Some(stamp.sequence);
            if !record.sampled {
                return;
            }
            record.frames += received;
            tally.frames += received;
            tally.missed += missed;
            match age_ns {
                None => tally.foreign += 1,
                // What was cached before we came is not late.
                Some(_) if stamp.sent_ns < began_ns => {}
                Some(age_ns) => {
                    let _ = tally.recent.record(age_ns / 1000);
                    if received > 0 {
                        let _ = tally.latency.record(age_ns / 1000);
                    }
                }
            }
        })?;
        if joining && self.record.first_video.is_some() {
            board
                .joined
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let account = talk.account();
            self.stage = match std::mem::replace(&mut self.stage, Stage::Closed) {
                Stage::Joining(talk) if self.record.sampled => Stage::Reading(talk.go_on()),
                _ => Stage::Counting(account),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_sampled_as_asked_for_and_they_are_spread() {
        for (players, sampled, expected) in [(1000, 250, 250), (10, 3, 3), (5, 9, 5), (7, 0, 0)] {
            let picked: Vec<_> = (0..players)
                .filter(|&i| is_sampled(i, players, sampled, 1))
                .collect();
            assert_eq!(picked.len(), expected);
            let widest = picked.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
            assert!(widest < 2 * players.div_ceil(expected.max(1)), "{picked:?}");
        }
    }

    #[test]
    fn a_sample_is_not_in_step_with_a_server_that_deals_players_out_in_turn() {
        for threads in [2, 3, 4, 8] {
            let mut shares = vec![0; threads];
            for index in (0..1000).filter(|&i| is_sampled(i, 1000, 250, 1)) {
                shares[index % threads] += 1;
            }
            let fair = 250 / threads;
            let off = shares
                .iter()
                .map(|share: &usize| share.abs_diff(fair))
                .max();
            assert!(off <= Some(fair / 4), "{shares:?} of {threads}");
        }
    }

    #[test]
    fn each_stream_has_its_share_of_the_sample() {
        let mut shares = [0; 4];
        for index in (0..1000).filter(|&i| is_sampled(i, 1000, 250, 4)) {
            shares[index % 4] += 1;
        }
        assert!(
            shares.iter().all(|share| (62..=63).contains(share)),
            "{shares:?}"
        );
    }
}

//! Several writers of one socket: whose turn it is, which changes at the end of a message only, and what of the bytes
//! that the peer has not acknowledged is whose.
//!
//! Knows writers by number. Made when a second one comes to a socket; whoever is alone there asks nobody.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::{Socket, bound_queue};

/// The socket's writers.
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
    /// A turn has ended.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    turn: Turn,
    /// Who asked for a turn while it was another's, in that order.
    waiting: VecDeque<u64>,
    /// What was written and may not be acknowledged yet, oldest first.
    written: VecDeque<Run>,
    /// The bytes of it.
    bytes: usize,
    /// Who is here, and what the kernel may hold for each.
    members: Vec<Member>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Of the writer that was alone and has not heard yet that it no longer is.
    Unaware,
    Nobody,
    Of(u64),
    /// Whoever had it left in the middle of a message: nothing behind it would make sense.
    Broken,
}

/// Bytes in a row of one writer.
#[derive(Debug, Clone, Copy)]
struct Run {
    writer: u64,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    writer: u64,
    send_buffer: usize,
    unsent: u32,
}

impl Turns {
    /// For a socket whose one writer has yet to [`enter_first`](Self::enter_first).
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                turn: Turn::Unaware,
                waiting: VecDeque::new(),
                written: VecDeque::new(),
                bytes: 0,
                members: Vec::new(),
            }),
            ended: Notify::new(),
        })
    }

    /// Another writer.
    pub fn enter(self: &Arc<Self>, writer: u64) -> Writer {
        self.lock().members.push(Member {
            writer,
            send_buffer: 0,
            unsent: 0,
        });
        Writer {
            turns: self.clone(),
            number: writer,
        }
    }

    /// The one that was there before, of whose bytes so many are not acknowledged. `begun`: it is in the middle of a
    /// message, and the turn is its own.
    pub fn enter_first(
        self: &Arc<Self>,
        writer: u64,
        unacknowledged: usize,
        begun: bool,
    ) -> Writer {
        let mut state = self.lock();
        if state.turn == Turn::Unaware {
            state.wrote(writer, unacknowledged);
            state.turn = Turn::Of(writer);
        }
        drop(state);
        let entered = self.enter(writer);
        if !begun {
            entered.end();
        }
        entered
    }

    /// The one that was there before has left at a message's end, perhaps without a word.
    pub fn leave_first(&self) {
        let mut state = self.lock();
        if state.turn == Turn::Unaware {
            state.turn = Turn::Nobody;
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// Resolves when that writer may have its turn, which is never once a message was cut, or when it has left.
    pub async fn until_free(&self, writer: u64) {
        loop {
            let mut ended = pin!(self.ended.notified());
            // Before the look, so that an end in between is not missed.
            ended.as_mut().enable();
            if self.lock().ends_the_wait_of(writer) {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    fn ends_the_wait_of(&self, writer: u64) -> bool {
        let is_here = self.members.iter().any(|member| member.writer == writer);
        self.is_free_for(writer) || !is_here
    }

    /// Is it this writer's turn, or may it be?
    fn is_free_for(&self, writer: u64) -> bool {
        match self.turn {
            Turn::Nobody => self.waiting.front().is_none_or(|first| *first == writer),
            Turn::Of(holder) => holder == writer,
            Turn::Unaware | Turn::Broken => false,
        }
    }

    fn wrote(&mut self, writer: u64, bytes: usize) {
        self.bytes += bytes;
        match self.written.back_mut() {
            Some(last) if last.writer == writer => last.bytes += bytes,
            _ => self.written.push_back(Run { writer, bytes }),
        }
    }

    /// What of the last `in_all` bytes is that writer's. Forgets what is before them.
    fn unacknowledged(&mut self, writer: u64, in_all: usize) -> usize {
        let mut acknowledged = self.bytes.saturating_sub(in_all);
        while let Some(oldest) = self.written.front_mut() {
            let bytes = oldest.bytes.min(acknowledged);
            oldest.bytes -= bytes;
            self.bytes -= bytes;
            acknowledged -= bytes;
            if oldest.bytes > 0 {
                break;
            }
            self.written.pop_front();
        }
        let own = self.written.iter().filter(|run| run.writer == writer);
        own.map(|run| run.bytes).sum()
    }
}

/// One of the writers. Dropping it leaves; in the middle of a message it takes the connection along.
#[derive(Debug)]
pub struct Writer {
    turns: Arc<Turns>,
    number: u64,
}

impl Writer {
    pub fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// Begins a turn, or goes on with it; `false`: it is another's, or nobody's any more because a message was cut. Whoever
    /// cut it ends the connection.
    pub fn begin(&self) -> bool {
        let mut state = self.turns.lock();
        let is_free = state.is_free_for(self.number);
        if is_free {
            state.waiting.retain(|writer| *writer != self.number);
            state.turn = Turn::Of(self.number);
        } else if !state.waiting.contains(&self.number) {
            state.waiting.push_back(self.number);
        }
        is_free
    }

    /// At the end of a message: lets those go first who wait, if any do, and waits itself. `true`: it has.
    pub fn give_way(&self) -> bool {
        let mut state = self.turns.lock();
        let gives = state.turn == Turn::Of(self.number) && !state.waiting.is_empty();
        if gives {
            state.turn = Turn::Nobody;
            state.waiting.push_back(self.number);
            drop(state);
            self.turns.ended.notify_waiters();
        }
        gives
    }

    /// Wants no turn any more.
    pub fn withdraw(&self) {
        let mut state = self.turns.lock();
        state.waiting.retain(|writer| *writer != self.number);
        drop(state);
        self.turns.ended.notify_waiters();
    }

    /// Ends a turn, if it has it: the last message is written to its end.
    pub fn end(&self) {
        let mut state = self.turns.lock();
        if state.turn == Turn::Of(self.number) {
            state.turn = Turn::Nobody;
            drop(state);
            self.turns.ended.notify_waiters();
        }
    }

    /// So many bytes were written in its turn.
    pub fn wrote(&self, bytes: usize) {
        self.turns.lock().wrote(self.number, bytes);
    }

    /// How many of the `in_all` bytes that the peer has not acknowledged are this writer's.
    pub fn unacknowledged(&self, in_all: usize) -> usize {
        self.turns.lock().unacknowledged(self.number, in_all)
    }

    /// As [`bound_queue`], for this writer's part: the socket may hold the sum of all.
    ///
    /// # Errors
    /// When the socket refuses an option.
    pub fn bound(&self, socket: &Socket, send_buffer: usize, unsent: u32) -> io::Result<()> {
        let mut state = self.turns.lock();
        let own = state.members.iter_mut().find(|m| m.writer == self.number);
        if let Some(own) = own {
            (own.send_buffer, own.unsent) = (send_buffer, unsent);
        }
        let send_buffer = state.members.iter().map(|member| member.send_buffer).sum();
        let unsent = state.members.iter().map(|member| member.unsent).sum();
        bound_queue(socket, send_buffer, unsent)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.members.retain(|member| member.writer != self.number);
        state.waiting.retain(|writer| *writer != self.number);
        if state.turn == Turn::Of(self.number) {
            state.turn = Turn::Broken;
        }
        drop(state);
        self.turns.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_turn_lasts_to_the_end_of_a_message_and_the_first_writer_is_asked_before_any() {
        let turns = Turns::new();
        let second = turns.enter(2);
        assert!(!second.begin(), "the first has not heard of it");
        let first = turns.enter_first(1, 0, true);
        assert!(!second.begin(), "the first is in a message");
        assert!(first.begin());
        first.end();
        assert!(second.begin() && !first.begin());
        first.end();
        assert!(second.begin(), "it is not the first's to end");
        second.end();
        assert!(first.begin());
    }

    #[test]
    fn writers_have_their_turns_in_the_order_in_which_they_asked_and_a_withdrawal_holds_up_nobody()
    {
        let turns = Turns::new();
        let [first, second, third] = [1, 2, 3].map(|n| match n {
            1 => turns.enter_first(n, 0, false),
            n => turns.enter(n),
        });
        assert!(first.begin() && !first.give_way(), "nobody waits");
        assert!(!third.begin() && !second.begin());
        assert!(first.give_way());
        assert!(!first.begin() && !second.begin() && third.begin());
        third.end();
        assert!(!third.begin() && !first.begin());
        second.withdraw();
        assert!(first.begin());
        first.end();
        drop(third);
        assert!(second.begin());
    }

    #[test]
    fn whoever_leaves_in_a_message_takes_all_along_and_at_its_end_nobody() {
        let turns = Turns::new();
        let first = turns.enter_first(1, 0, false);
        let second = turns.enter(2);
        drop(first);
        assert!(second.begin());
        let third = turns.enter(3);
        drop(second);
        turns.leave_first();
        third.end();
        assert!(!third.begin(), "nothing makes sense behind it");

        let turns = Turns::new();
        let second = turns.enter(2);
        turns.leave_first();
        assert!(second.begin());
        turns.leave_first();
        assert!(!turns.enter(3).begin(), "it has left once");
    }

    #[test]
    fn each_has_its_own_of_what_is_not_acknowledged() {
        let turns = Turns::new();
        let first = turns.enter_first(1, 300, false);
        let second = turns.enter(2);
        second.wrote(50);
        first.wrote(20);
        second.wrote(5);
        for (in_all, of_first, of_second) in [
            // More than was written: inside TLS there are more bytes than were given.
            (400, 320, 55),
            (375, 320, 55),
            (100, 45, 55),
            (40, 20, 20),
            (25, 20, 5),
            (3, 0, 3),
            (0, 0, 0),
        ] {
            let got = (first.unacknowledged(in_all), second.unacknowledged(in_all));
            assert_eq!(got, (of_first, of_second), "{in_all} bytes");
        }
        assert!(turns.lock().written.is_empty());
    }

    #[tokio::test]
    async fn an_end_wakes_whoever_waits_and_a_cut_nobody() {
        let turns = Turns::new();
        let first = turns.enter_first(1, 0, true);
        turns.until_free(1).await;
        let soon = Duration::from_secs(10);
        let second = turns.enter(2);
        let waits = timeout(soon, turns.until_free(2));
        let (waited, ()) = tokio::join!(waits, async { first.end() });
        waited.expect("woken by the end");
        assert!(first.begin());
        drop(first);
        let waits = timeout(Duration::ZERO, turns.until_free(2));
        waits.await.expect_err("there is nothing to wait for");
        // Who leaves waits no longer: what waits for it keeps the socket open.
        let waits = timeout(soon, turns.until_free(2));
        let (waited, ()) = tokio::join!(waits, async { drop(second) });
        waited.expect("woken by its own leaving");
    }
}

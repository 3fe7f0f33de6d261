//! Who of a group publishes: primaries always, one backup while there is no primary. [`Board`] decides, and is pure.
//!
//! Targets of one stream that name the same group belong together. The rule, for a group's backups:
//!
//! 1. **When.** A backup publishes when there has been media and no primary publishing for
//!    [`failover`](super::Config::failover); at once when the primary failed again before it had published for
//!    [`steady`](super::Config::steady), since a primary that comes and goes is none.
//! 2. **Which.** One at a time: the first by id of those that stand by. Its own failure passes the turn to the next by
//!    id, round, that stands by (one that failed itself first waits its pause out); while it works it keeps the turn,
//!    whoever comes before it.
//! 3. **Hand-back.** When a primary has published for `steady` without a break, the backup ends before its next key
//!    frame. Until then both publish, so that nothing is missing and a primary that flaps does not take the backup along.
//! 4. **In between.** A backup that does not publish follows its feed and is ready to begin at a key frame.
//!
//! Targets that are to publish both at once are two targets without a group.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::target::Role;
use crate::media::StreamKey;

/// For the backup whose turn it is before this one's to ask, or to be gone.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Whether a target may publish now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may. Ask again when the group changes, and at this instant.
    Publish(Option<Instant>),
    /// It may not. Ask again likewise.
    StandBy(Option<Instant>),
}

/// How a connection of a member ended, as far as its group is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// There is no more media, or it is not wanted any more.
    Over,
    /// It failed after it had published for a good while.
    Failed,
    /// It failed before, or never came to publish.
    Unsteady,
}

/// What is known of the members of one group.
#[derive(Debug)]
struct Board {
    failover: Duration,
    steady: Duration,
    members: BTreeMap<String, Member>,
    /// When a primary was last heard of: published, or joined.
    primary_seen: Option<Instant>,
    /// The last primary that failed did so before it was steady.
    is_hasty: bool,
    /// The backup whose turn it is.
    chosen: Option<String>,
}

#[derive(Debug)]
struct Member {
    role: Role,
    live_since: Option<Instant>,
    /// Asked for its turn and was told to stand by.
    stands_by: bool,
}

impl Board {
    fn new(failover: Duration, steady: Duration) -> Self {
        Self {
            failover,
            steady,
            members: BTreeMap::new(),
            primary_seen: None,
            is_hasty: false,
            chosen: None,
        }
    }

    fn join(&mut self, id: &str, role: Role, now: Instant) {
        if role == Role::Primary {
            self.primary_seen = Some(now);
            self.is_hasty = false;
        }
        let member = Member {
            role,
            live_since: None,
            stands_by: false,
        };
        self.members.insert(id.to_owned(), member);
    }

    fn leave(&mut self, id: &str, now: Instant) {
        self.gone(id, Gone::Over, now);
        self.members.remove(id);
    }

    fn live(&mut self, id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(id) {
            member.live_since = Some(now);
        }
    }

    /// A member's connection, or its attempt at one, is over.
    fn gone(&mut self, id: &str, how: Gone, now: Instant) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let was_live = member.live_since.take().is_some();
        member.stands_by = false;
        match member.role {
            // One that could not even begin says nothing about one that publishes, nor starts the time anew.
            Role::Primary if was_live => {
                self.primary_seen = Some(now);
                self.is_hasty = how == Gone::Unsteady;
            }
            Role::Primary => {}
            Role::Backup if self.chosen.as_deref() == Some(id) => {
                self.chosen = match how {
                    // Where a primary is on its way back, nobody else need begin.
                    _ if self.primary_since().is_some() => None,
                    Gone::Over => None,
                    Gone::Failed | Gone::Unsteady => self.next_after(id),
                };
            }
            Role::Backup => {}
        }
    }

    /// The next backup by id, round, that stands by. `None`: there is no other, so it is for who asks first, after its
    /// pause.
    fn next_after(&self, id: &str) -> Option<String> {
        let ready = |(_, member): &(&String, &Member)| member.stands_by;
        let after = self
            .members
            .iter()
            .skip_while(|(other, _)| other.as_str() <= id);
        let mut round = after.chain(&self.members);
        round.find(ready).map(|(next, _)| next.clone())
    }

    /// Since when one and the same primary publishes, the longest of them; `None` while none does.
    fn primary_since(&self) -> Option<Instant> {
        let primaries = self.members.values().filter(|m| m.role == Role::Primary);
        primaries.filter_map(|member| member.live_since).min()
    }

    /// Is it the turn of `id`, for which there has been media since `media_since`?
    fn turn(&mut self, id: &str, media_since: Instant, now: Instant) -> Turn {
        let Some(member) = self.members.get_mut(id) else {
            return Turn::StandBy(None);
        };
        if member.role == Role::Primary {
            return Turn::Publish(None);
        }
        let turn = self.backup(id, media_since, now);
        if let Some(member) = self.members.get_mut(id) {
            member.stands_by = matches!(turn, Turn::StandBy(_));
        }
        turn
    }

    fn backup(&mut self, id: &str, media_since: Instant, now: Instant) -> Turn {
        let is_chosen = self.chosen.as_deref() == Some(id);
        if let Some(since) = self.primary_since() {
            let back = since + self.steady;
            if is_chosen && now < back {
                return Turn::Publish(Some(back));
            }
            if is_chosen || now >= back {
                self.chosen = None;
            }
            return Turn::StandBy(None);
        }
        if is_chosen {
            return Turn::Publish(None);
        }
        if self.chosen.is_some() {
            return Turn::StandBy(None);
        }
        // Media that came after the last of a primary gives it its time to begin.
        let seen = self.primary_seen.filter(|seen| *seen >= media_since);
        let begin = match seen {
            Some(seen) if self.is_hasty => seen,
            seen => seen.unwrap_or(media_since) + self.failover,
        };
        if now < begin {
            return Turn::StandBy(Some(begin));
        }
        let mut before = self
            .members
            .iter()
            .take_while(|(other, _)| other.as_str() < id);
        if before.any(|(_, member)| member.stands_by) {
            // Its turn comes when it asks.
            return Turn::StandBy(Some(now + ASK_AGAIN));
        }
        self.chosen = Some(id.to_owned());
        Turn::Publish(None)
    }
}

/// One group, shared by its members' tasks.
#[derive(Debug)]
pub(super) struct Group {
    board: Mutex<Board>,
    /// Counts what may change somebody's turn.
    changes: watch::Sender<u64>,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, Board> {
        // The board is valid after every statement.
        self.board.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn change(&self, change: impl FnOnce(&mut Board, Instant)) {
        change(&mut self.lock(), Instant::now());
        self.changes.send_modify(|count| *count += 1);
    }
}

/// All groups that have members, by stream and name.
#[derive(Debug, Default)]
pub(super) struct Groups(HashMap<(StreamKey, String), Weak<Group>>);

impl Groups {
    /// The group, made when it is not there.
    pub(super) fn find(
        &mut self,
        key: &StreamKey,
        name: &str,
        failover: Duration,
        steady: Duration,
    ) -> Arc<Group> {
        let at = (key.clone(), name.to_owned());
        if let Some(group) = self.0.get(&at).and_then(Weak::upgrade) {
            return group;
        }
        self.0.retain(|_, group| group.strong_count() > 0);
        let group = Arc::new(Group {
            board: Mutex::new(Board::new(failover, steady)),
            changes: watch::Sender::new(0),
        });
        self.0.insert(at, Arc::downgrade(&group));
        group
    }
}

/// A target's place in its group; of no group, a place where it is always its turn. Dropping it leaves the group.
#[derive(Debug)]
pub(super) struct Seat {
    id: String,
    group: Option<Arc<Group>>,
}

impl Seat {
    pub(super) fn take(id: &str, role: Role, group: Option<Arc<Group>>) -> Self {
        let seat = Self {
            id: id.to_owned(),
            group,
        };
        seat.change(|board, id, now| board.join(id, role, now));
        seat
    }

    /// It publishes from now on.
    pub(super) fn live(&self) {
        self.change(Board::live);
    }

    /// It does not publish any more, does not try to, or does not stand by.
    pub(super) fn gone(&self, how: Gone) {
        self.change(|board, id, now| board.gone(id, how, now));
    }

    /// May it publish now? There has been media for it since `media_since`.
    pub(super) fn turn(&self, media_since: Instant) -> Turn {
        match &self.group {
            Some(group) => group.lock().turn(&self.id, media_since, Instant::now()),
            None => Turn::Publish(None),
        }
    }

    /// Hears of changes from now on; nobody's, without a group.
    pub(super) fn changes(&self) -> Changes {
        Changes(self.group.as_ref().map(|group| group.changes.subscribe()))
    }

    /// Resolves when it may not publish any more.
    ///
    /// # Cancel safety
    /// Safe: the group's state is asked for anew each time.
    pub(super) async fn lost(&self, media_since: Instant) {
        let mut changes = self.changes();
        loop {
            let Turn::Publish(again) = self.turn(media_since) else {
                return;
            };
            tokio::select! {
                () = changes.next() => {}
                () = until(again) => {}
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Board, &str, Instant)) {
        if let Some(group) = &self.group {
            group.change(|board, now| change(board, &self.id, now));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.change(Board::leave);
    }
}

/// What happens in a group.
pub(super) struct Changes(Option<watch::Receiver<u64>>);

impl Changes {
    /// Resolves when something has changed since the last call.
    ///
    /// # Cancel safety
    /// Safe: a change that was not reported is reported next time.
    pub(super) async fn next(&mut self) {
        if let Some(changes) = &mut self.0
            && changes.changed().await.is_ok()
        {
            return;
        }
        // The seat that this is for keeps the group, and so the sender.
        std::future::pending().await
    }
}

/// Resolves at that instant; never without one.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILOVER: Duration = Duration::from_secs(2);
    const STEADY: Duration = Duration::from_secs(10);

    /// A board with members, and a clock in milliseconds.
    struct Play {
        board: Board,
        zero: Instant,
    }

    impl Play {
        /// `p…` are primaries, all others backups; all of them come at 0, as does the media.
        fn of(ids: &[&str]) -> Self {
            let mut play = Self {
                board: Board::new(FAILOVER, STEADY),
                zero: Instant::now(),
            };
            for id in ids {
                let role = if id.starts_with('p') {
                    Role::Primary
                } else {
                    Role::Backup
                };
                play.board.join(id, role, play.zero);
            }
            play
        }

        fn at(&self, ms: u64) -> Instant {
            self.zero + Duration::from_millis(ms)
        }

        fn live(&mut self, ms: u64, id: &str) {
            self.board.live(id, self.at(ms));
        }

        fn gone(&mut self, ms: u64, id: &str, how: Gone) {
            self.board.gone(id, how, self.at(ms));
        }

        /// Asks all of them in turn, twice as tasks do until nothing changes: who may publish at that time.
        fn who(&mut self, ms: u64, ids: &[&'static str]) -> Vec<&'static str> {
            let (zero, now) = (self.zero, self.at(ms));
            let mut ask = |id: &&str| matches!(self.board.turn(id, zero, now), Turn::Publish(_));
            ids.iter().for_each(|id| {
                ask(id);
            });
            ids.iter().copied().filter(|id| ask(id)).collect()
        }
    }

    #[test]
    fn a_backup_stands_by_while_a_primary_publishes_and_takes_over_when_none_has_for_a_while() {
        let mut play = Play::of(&["p", "b"]);
        assert_eq!(play.who(0, &["p", "b"]), ["p"]);
        play.live(500, "p");
        assert_eq!(play.who(60_000, &["p", "b"]), ["p"]);
        play.gone(60_000, "p", Gone::Failed);
        let turn = play.board.turn("b", play.zero, play.at(60_000));
        assert_eq!(turn, Turn::StandBy(Some(play.at(62_000))));
        assert_eq!(play.who(61_999, &["p", "b"]), ["p"]);
        assert_eq!(play.who(62_000, &["p", "b"]), ["p", "b"]);
    }

    #[test]
    fn a_short_break_of_the_primary_wakes_nobody_and_a_second_one_does_at_once() {
        let mut play = Play::of(&["p", "b"]);
        play.live(0, "p");
        play.gone(60_000, "p", Gone::Failed);
        assert_eq!(play.who(60_001, &["b"]), [""; 0]);
        play.live(60_500, "p");
        assert_eq!(play.who(63_000, &["b"]), [""; 0]);
        play.gone(64_000, "p", Gone::Unsteady);
        assert_eq!(play.who(64_000, &["b"]), ["b"]);
        // It flaps on; the backup stays.
        play.live(65_000, "p");
        assert_eq!(play.who(66_000, &["b"]), ["b"]);
        play.gone(67_000, "p", Gone::Unsteady);
        play.live(70_000, "p");
        assert_eq!(play.who(79_999, &["b"]), ["b"]);
        assert_eq!(play.who(80_000, &["b"]), [""; 0]);
        assert_eq!(play.who(90_000, &["b"]), [""; 0]);
    }

    #[test]
    fn a_primary_that_never_gets_in_has_its_time_from_the_beginning_only() {
        let mut play = Play::of(&["p", "b"]);
        play.gone(100, "p", Gone::Unsteady);
        assert_eq!(play.who(1_999, &["b"]), [""; 0]);
        play.gone(1_999, "p", Gone::Unsteady);
        assert_eq!(play.who(2_000, &["b"]), ["b"]);
        play.gone(5_000, "p", Gone::Unsteady);
        assert_eq!(play.who(5_000, &["b"]), ["b"]);
    }

    #[test]
    fn one_backup_at_a_time_and_its_failure_passes_the_turn_on() {
        let ids = ["b1", "b2", "b3"];
        let mut play = Play::of(&["p", "b1", "b2", "b3"]);
        assert_eq!(play.who(100, &ids), [""; 0]);
        assert_eq!(
            play.who(2_000, &["b3", "b2", "b1"]),
            ["b1"],
            "by id, not by who asks first"
        );
        play.live(2_100, "b1");
        play.gone(3_000, "b1", Gone::Unsteady);
        assert_eq!(play.who(3_000, &ids), ["b2"]);
        assert_eq!(
            play.who(30_000, &ids),
            ["b2"],
            "it works: b1 does not get it back"
        );
        play.gone(31_000, "b2", Gone::Failed);
        assert_eq!(play.who(31_000, &ids), ["b3"]);
        play.gone(32_000, "b3", Gone::Failed);
        assert_eq!(play.who(32_000, &ids), ["b1"], "round");
    }

    #[test]
    fn a_lone_backup_keeps_its_turn_through_failures() {
        let mut play = Play::of(&["p", "b"]);
        assert_eq!(play.who(2_000, &["b"]), ["b"]);
        for ms in [3_000, 4_000, 5_000] {
            play.gone(ms, "b", Gone::Unsteady);
            assert_eq!(play.who(ms, &["b"]), ["b"]);
        }
    }

    #[test]
    fn no_second_backup_begins_while_the_primary_is_on_its_way_back() {
        let mut play = Play::of(&["p", "b1", "b2"]);
        assert_eq!(play.who(2_000, &["b1", "b2"]), ["b1"]);
        play.live(5_000, "p");
        assert_eq!(play.who(6_000, &["b1", "b2"]), ["b1"]);
        play.gone(7_000, "b1", Gone::Failed);
        assert_eq!(play.who(7_000, &["b1", "b2"]), [""; 0]);
    }

    #[test]
    fn any_primary_will_do() {
        let mut play = Play::of(&["p1", "p2", "b"]);
        play.live(0, "p1");
        play.live(0, "p2");
        play.gone(20_000, "p1", Gone::Failed);
        assert_eq!(play.who(60_000, &["b"]), [""; 0]);
        play.gone(60_000, "p2", Gone::Failed);
        assert_eq!(play.who(62_000, &["b"]), ["b"]);
    }

    #[test]
    fn a_new_program_gives_the_primary_its_time_again() {
        let mut play = Play::of(&["p", "b"]);
        play.live(0, "p");
        play.gone(1_000, "p", Gone::Unsteady);
        let media_since = play.at(500_000);
        let turn = play.board.turn("b", media_since, media_since);
        assert_eq!(turn, Turn::StandBy(Some(media_since + FAILOVER)));
    }

    #[test]
    fn who_leaves_leaves_the_turn_behind() {
        let mut play = Play::of(&["p", "b1", "b2"]);
        assert_eq!(play.who(2_000, &["b1", "b2"]), ["b1"]);
        play.board.leave("b1", play.at(3_000));
        assert_eq!(play.who(3_000, &["b1", "b2"]), ["b2"]);
        // The primary is removed: its backup takes over as if it had failed.
        let mut play = Play::of(&["p", "b"]);
        play.live(0, "p");
        assert_eq!(play.who(9_000, &["b"]), [""; 0]);
        play.board.leave("p", play.at(9_000));
        assert_eq!(play.who(11_000, &["b"]), ["b"]);
    }
}

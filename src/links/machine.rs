//! What becomes of a link: pure, with the time and who publishes as arguments.
//!
//! ```text
//! requested ──accept──▶ accepted ──main and a sub publish──▶ live
//!     │ reject, answer_ms   │ start_ms                        │ gone_ms
//!     └──────────┬──────────┴────────────┬────────────────────┘
//!                └── cancel, leave ──▶ ended
//! ```

use super::link::{Layout, Link, MAX_REMEMBERED, Part, Reason, Seen, State, Sub};

/// What somebody wants of a link, or the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Of that sub, or of all that are asked.
    Accept(Option<String>),
    Reject(Option<String>),
    /// The whole link is called off.
    Cancel,
    /// That stream's anchor goes.
    Leave(String),
    /// Another sub is asked in.
    Invite(String),
    /// Nothing but a look at who publishes and how late it is.
    Look,
}

/// Why something was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Conflict(String),
}

/// The link after `input` at `now` (UNIX milliseconds); `publishes` tells of each stream of the link.
///
/// The same input twice does nothing the second time.
///
/// # Errors
/// When the link, or that sub of it, does not stand where this can be.
pub fn step(
    link: &Link,
    input: &Input,
    publishes: impl Fn(&str) -> bool,
    now: i64,
) -> Result<Link, Refused> {
    let mut next = link.clone();
    // What the clock has done comes first: an answer that is too late is none.
    next.settle(&publishes, now);
    match input {
        Input::Accept(sub) => next.accept(sub.as_deref(), now)?,
        Input::Reject(sub) => next.reject(sub.as_deref(), now)?,
        Input::Cancel => next.end(Reason::Cancelled, now),
        Input::Leave(who) => next.leave(who, now)?,
        Input::Invite(sub) => next.invite(sub, now)?,
        Input::Look => {}
    }
    next.settle(&publishes, now);
    Ok(next)
}

/// The subs whose pictures are to be in the mix; empty: there is to be none.
pub fn mixed(link: &Link, now: i64) -> Vec<&str> {
    if link.state != State::Live {
        return Vec::new();
    }
    let shown = link
        .subs_that_are(Part::Accepted)
        .filter(|sub| match sub.seen {
            Seen::Never => false,
            Seen::Here => true,
            Seen::Away(since) => now.saturating_sub(since) < link.wish.limits.hold_ms,
        });
    shown.map(|sub| sub.stream.as_str()).collect()
}

impl Link {
    /// When the clock will end it if nothing happens; `None`: it will not.
    pub fn ends_at(&self) -> Option<i64> {
        let limits = &self.wish.limits;
        let gone = |since: i64| since.saturating_add(limits.gone_ms);
        match self.state {
            State::Requested => Some(self.since.saturating_add(limits.answer_ms)),
            State::Accepted => Some(self.since.saturating_add(limits.start_ms)),
            State::Live => {
                let main = match self.main {
                    Seen::Away(since) => Some(gone(since)),
                    Seen::Never | Seen::Here => None,
                };
                main.into_iter().chain(self.lonely_since.map(gone)).min()
            }
            State::Ended => None,
        }
    }

    fn settle(&mut self, publishes: &impl Fn(&str) -> bool, now: i64) {
        if self.is_over() {
            return;
        }
        self.main = self.main.look(publishes(&self.wish.main), now);
        for sub in &mut self.subs {
            if sub.part == Part::Accepted {
                sub.seen = sub.seen.look(publishes(&sub.stream), now);
            }
        }
        let company = self
            .subs_that_are(Part::Accepted)
            .any(|sub| sub.seen == Seen::Here);
        if self.state == State::Accepted && company && self.main == Seen::Here {
            self.go(State::Live, now);
        }
        if self.state == State::Live {
            self.lonely_since = match company {
                true => None,
                false => self.lonely_since.or(Some(now)),
            };
        }
        if self.ends_at().is_some_and(|at| now >= at) {
            let why = match self.state {
                State::Requested => Reason::Unanswered,
                State::Accepted => Reason::NotStarted,
                State::Live | State::Ended => Reason::Gone,
            };
            return self.end(why, now);
        }
        let (limits, live) = (self.wish.limits, self.state == State::Live);
        for sub in &mut self.subs {
            // No place is held for ever by who does not come.
            let (since, limit, then) = match (sub.part, sub.seen) {
                (Part::Requested, _) => (sub.since, limits.answer_ms, Part::Unanswered),
                (Part::Accepted, Seen::Never) if live => (sub.since, limits.start_ms, Part::Gone),
                (Part::Accepted, Seen::Away(since)) if live => (since, limits.gone_ms, Part::Gone),
                _ => continue,
            };
            if now >= since.saturating_add(limit) {
                sub.go(then, now);
            }
        }
        self.end_if_empty(Reason::Left, now);
    }

    fn accept(&mut self, sub: Option<&str>, now: i64) -> Result<(), Refused> {
        self.is_open()?;
        match sub {
            Some(name) => match self.sub(name)?.part {
                Part::Requested => self.sub(name)?.go(Part::Accepted, now),
                Part::Accepted => {}
                part => return Err(away(name, part)),
            },
            None => {
                let mut asked = self.subs.iter_mut().filter(|s| s.part == Part::Requested);
                asked.by_ref().for_each(|sub| sub.go(Part::Accepted, now));
                if self.subs_that_are(Part::Accepted).next().is_none() {
                    return Err(Refused::Conflict("nobody is asked".into()));
                }
            }
        }
        if self.state == State::Requested {
            self.go(State::Accepted, now);
        }
        Ok(())
    }

    fn reject(&mut self, sub: Option<&str>, now: i64) -> Result<(), Refused> {
        if self.reason == Some(Reason::Rejected) {
            return Ok(());
        }
        self.is_open()?;
        match sub {
            Some(name) => match self.sub(name)?.part {
                Part::Requested => self.sub(name)?.go(Part::Rejected, now),
                Part::Rejected => {}
                Part::Accepted => {
                    return Err(Refused::Conflict(format!(
                        "sub: {name:?} was accepted; it can leave"
                    )));
                }
                part => return Err(away(name, part)),
            },
            None => {
                let mut asked = self.subs.iter_mut().filter(|s| s.part == Part::Requested);
                asked.by_ref().for_each(|sub| sub.go(Part::Rejected, now));
            }
        }
        self.end_if_empty(Reason::Rejected, now);
        Ok(())
    }

    fn leave(&mut self, who: &str, now: i64) -> Result<(), Refused> {
        if who == self.wish.main {
            self.end(Reason::Left, now);
            return Ok(());
        }
        let over = self.is_over();
        let sub = self.sub(who)?;
        if !over && matches!(sub.part, Part::Requested | Part::Accepted) {
            sub.go(Part::Left, now);
            self.end_if_empty(Reason::Left, now);
        }
        Ok(())
    }

    fn invite(&mut self, name: &str, now: i64) -> Result<(), Refused> {
        self.is_open()?;
        if name == self.wish.main {
            return Err(Refused::Invalid(format!("sub: {name:?} is the main")));
        }
        let present = |sub: &&Sub| matches!(sub.part, Part::Requested | Part::Accepted);
        let room = self.wish.layout.room();
        let full = self.subs.iter().filter(present).count() >= room;
        let found = self.subs.iter_mut().find(|sub| sub.stream == name);
        if found.as_ref().is_some_and(|sub| present(&&**sub)) {
            return Ok(());
        }
        if full {
            let layout = match self.wish.layout {
                Layout::Linkmic => "a link",
                Layout::Pk => "a link of layout pk",
            };
            return Err(Refused::Conflict(format!(
                "sub: {layout} has {room} at most"
            )));
        }
        match found {
            Some(sub) => {
                sub.seen = Seen::Never;
                sub.go(Part::Requested, now);
            }
            None => {
                if self.subs.len() >= MAX_REMEMBERED {
                    // There is one: no more than three are present.
                    if let Some(at) = self.subs.iter().position(|sub| !present(&sub)) {
                        self.subs.remove(at);
                    }
                }
                self.subs.push(Sub {
                    stream: name.to_owned(),
                    part: Part::Requested,
                    since: now,
                    seen: Seen::Never,
                });
            }
        }
        Ok(())
    }

    fn is_open(&self) -> Result<(), Refused> {
        match self.reason {
            None => Ok(()),
            Some(why) => Err(Refused::Conflict(format!(
                "the link has ended ({})",
                why.as_str()
            ))),
        }
    }

    fn sub(&mut self, name: &str) -> Result<&mut Sub, Refused> {
        let found = self.subs.iter_mut().find(|sub| sub.stream == name);
        found.ok_or_else(|| Refused::Invalid(format!("{name:?} is not in this link")))
    }

    /// A link without anybody asked or in it has nothing to wait for.
    fn end_if_empty(&mut self, why: Reason, now: i64) {
        let present = |sub: &Sub| matches!(sub.part, Part::Requested | Part::Accepted);
        if !self.subs.iter().any(present) {
            self.end(why, now);
        }
    }

    fn end(&mut self, why: Reason, now: i64) {
        if !self.is_over() {
            self.reason = Some(why);
            self.go(State::Ended, now);
        }
    }

    fn go(&mut self, state: State, now: i64) {
        (self.state, self.since) = (state, now);
    }
}

impl Sub {
    fn go(&mut self, part: Part, now: i64) {
        (self.part, self.since) = (part, now);
    }
}

fn away(name: &str, part: Part) -> Refused {
    let what = match part {
        Part::Rejected => "was rejected",
        Part::Unanswered => "was not answered in time",
        Part::Left => "has left",
        Part::Gone => "was gone for too long",
        Part::Requested | Part::Accepted => "is in it",
    };
    Refused::Conflict(format!("sub: {name:?} {what}; invite it again"))
}

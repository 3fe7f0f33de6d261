//! What happens when in a soak: a function of the seed and the scale, and of nothing else.

use std::time::Duration;

use crate::random::Random;

/// How large a soak is. The defaults fit two cores.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    pub seed: u64,
    pub minutes: f64,
    pub mixes: usize,
    /// Anchors altogether: those of mixes and of the link among them.
    pub publishers: usize,
    pub players: usize,
}

impl Scale {
    /// Anchors that the first mix shows; each further mix has two.
    pub const FIRST: usize = 3;
    /// A main and a sub that are linked and parted again and again.
    pub const LINKED: usize = 2;
    /// Of so many players in a row one is a peer, two are pages and the others viewers.
    pub const WAYS: usize = 10;

    /// As the environment says it; see `./run soak --help`.
    ///
    /// # Errors
    /// Which value makes no sense, and why.
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        fn number<T: std::str::FromStr>(
            value: Option<String>,
            name: &str,
            or: T,
        ) -> Result<T, String> {
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                return Ok(or);
            };
            value
                .parse()
                .map_err(|_| format!("LINKMIC_SOAK_{name}: {value:?} is no such number"))
        }
        let get = |name: &str| variable(&format!("LINKMIC_SOAK_{name}"));
        let scale = Self {
            seed: number(get("SEED"), "SEED", 1)?,
            minutes: number(get("MINUTES"), "MINUTES", 60.0)?,
            mixes: number(get("MIXES"), "MIXES", 4)?,
            publishers: number(get("PUBLISHERS"), "PUBLISHERS", 30)?,
            players: number(get("PLAYERS"), "PLAYERS", 300)?,
        };
        let least = scale.mixed() + Self::LINKED + 1;
        if scale.mixes == 0 {
            return Err("a soak has one mix at least".into());
        }
        if scale.publishers < least {
            return Err(format!(
                "{} mixes and a link need {least} publishers",
                scale.mixes
            ));
        }
        if scale.players < Self::WAYS {
            return Err(format!(
                "a soak has {} players at least, so that each way to play has one",
                Self::WAYS
            ));
        }
        if scale.minutes.is_nan() || scale.minutes < 2.0 || scale.minutes > 10_000.0 {
            return Err("a soak takes 2 minutes at least, and 10,000 at most".into());
        }
        Ok(scale)
    }

    /// Anchors that are in mixes.
    pub fn mixed(&self) -> usize {
        Self::FIRST + 2 * self.mixes.saturating_sub(1)
    }

    /// The anchors of a mix, its main first.
    pub fn anchors_of(&self, mix: usize) -> std::ops::Range<usize> {
        match mix {
            0 => 0..Self::FIRST,
            _ => {
                let first = Self::FIRST + 2 * (mix - 1);
                first..first + 2
            }
        }
    }

    /// Which mix an anchor is in.
    pub fn mix_of(&self, anchor: usize) -> Option<usize> {
        (0..self.mixes).find(|mix| self.anchors_of(*mix).contains(&anchor))
    }

    /// Main and sub of the link.
    pub fn linked(&self) -> std::ops::Range<usize> {
        self.mixed()..self.mixed() + Self::LINKED
    }

    /// Anchors that nobody mixes.
    pub fn plain(&self) -> std::ops::Range<usize> {
        self.mixed() + Self::LINKED..self.publishers
    }
}

/// What somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    Player {
        slot: usize,
        does: Watching,
    },
    Anchor {
        anchor: usize,
        does: Publishing,
    },
    Mix {
        mix: usize,
        does: Mixing,
    },
    /// Main and sub are linked, and part after so long.
    Link {
        lasts: Duration,
    },
    /// An anchor is pushed to the CDN, or not any more.
    Push {
        anchor: usize,
    },
    /// The CDN is killed, and back after so long.
    Flap {
        down: Duration,
    },
    /// SIGHUP, with a mistake in the file or without.
    Reload {
        mistake: bool,
    },
    /// Somebody with a name that cannot be, or a signature that is over.
    Stranger {
        nameless: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Watching {
    Leave,
    /// A reset instead of an end.
    Vanish,
    Stall(Duration),
    /// The operator disconnects it.
    Kicked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Publishing {
    /// The connection is reset, and made anew.
    Killed,
    /// In order, and back after so long.
    Stop(Duration),
    /// The same anchor on a second connection, while the first one still publishes.
    TakeOver,
    /// Nothing is sent for so long; what was missed comes in one burst, or is left out.
    Pause { lasts: Duration, burst: bool },
    /// The operator ends it.
    Dropped,
    /// Banned for so long.
    Banned(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mixing {
    /// The subs are elsewhere in the picture.
    Move,
    /// One of its inputs is not heard for so long.
    Mute(Duration),
    /// Deleted, and made again after so long.
    Off(Duration),
}

/// What a seed decides.
#[derive(Debug, Clone)]
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub fn roll(&mut self, below: u64) -> u64 {
        self.0.next() % below.max(1)
    }

    fn pick(&mut self, of: std::ops::Range<usize>) -> usize {
        of.start + self.roll(of.len() as u64) as usize
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(1000 * from + self.roll(1000 * (to - from)))
    }

    /// Whether something that happens once in `every` happens in this step.
    fn happens(&mut self, every: Duration) -> bool {
        self.roll(every.as_micros() as u64) < STEP.as_micros() as u64
    }
}

/// The seconds of each minute in which one mix is recorded to be judged. What it is made of is left alone then, and a
/// little before.
pub const JUDGED: std::ops::Range<u64> = 31..54;

/// Which mix is judged in a minute.
pub fn judged(scale: &Scale, minute: u64) -> usize {
    (minute % scale.mixes as u64) as usize
}

const STEP: Duration = Duration::from_millis(100);
/// Nobody does the next thing before the last is over, and this besides.
const REST: Duration = Duration::from_secs(4);

/// Who is busy until when: what somebody does takes its time, in which nothing else is asked of him.
struct Busy(Vec<Duration>);

impl Busy {
    fn of(count: usize) -> Self {
        Self(vec![Duration::ZERO; count])
    }

    fn is_free(&self, one: usize, now: Duration) -> bool {
        self.0[one] <= now
    }

    fn until(&mut self, one: usize, time: Duration) {
        self.0[one] = time + REST;
    }
}

/// All that happens from `from` to `to`, counted from the beginning of the soak.
pub fn plan(scale: &Scale, from: Duration, to: Duration) -> Vec<(Duration, Act)> {
    let mut dice = Dice::new(scale.seed ^ (from.as_millis() as u64).rotate_left(32));
    let (mut slots, mut anchors) = (Busy::of(scale.players), Busy::of(scale.publishers));
    let (mut mixes, mut cdn, mut link) = (Busy::of(scale.mixes), Busy::of(1), Busy::of(1));
    let mut acts = Vec::new();
    let share = |every: f64, count: usize| Duration::from_secs_f64(every / count.max(1) as f64);
    let mut now = from;
    // What is begun is over before the end.
    let last = to.saturating_sub(Duration::from_secs(12));
    while now < last {
        now += STEP;
        let (minute, second) = (now.as_secs() / 60, now.as_secs() % 60);
        let alone =
            (second + 12 >= JUDGED.start && second < JUDGED.end).then(|| judged(scale, minute));
        // A player does something every two minutes, on the average.
        if dice.happens(share(120.0, scale.players)) {
            let slot = dice.pick(0..scale.players);
            let does = match dice.roll(10) {
                0..4 => Watching::Leave,
                4..7 => Watching::Vanish,
                7..9 => Watching::Stall(dice.seconds(1, 9)),
                _ => Watching::Kicked,
            };
            if slots.is_free(slot, now) {
                let takes = match does {
                    Watching::Stall(lasts) => lasts,
                    _ => Duration::ZERO,
                };
                slots.until(slot, now + takes);
                acts.push((now, Act::Player { slot, does }));
            }
        }
        // An anchor, every 50 s.
        if dice.happens(share(50.0, scale.publishers)) {
            let anchor = dice.pick(0..scale.publishers);
            let does = publishing(&mut dice, scale.plain().contains(&anchor));
            let is_judged = alone.is_some() && scale.mix_of(anchor) == alone;
            let is_linked = scale.linked().contains(&anchor) && !link.is_free(0, now);
            if anchors.is_free(anchor, now) && !is_judged && !is_linked {
                let takes = match does {
                    Publishing::Stop(away) | Publishing::Banned(away) => away,
                    Publishing::Pause { lasts, .. } => lasts,
                    _ => Duration::ZERO,
                };
                anchors.until(anchor, now + takes);
                acts.push((now, Act::Anchor { anchor, does }));
            }
        }
        // A mix, every 12 s.
        if dice.happens(share(12.0, scale.mixes)) {
            let mix = dice.pick(0..scale.mixes);
            let does = match dice.roll(8) {
                0..4 => Mixing::Move,
                4..7 => Mixing::Mute(dice.seconds(1, 6)),
                _ => Mixing::Off(dice.seconds(2, 5)),
            };
            if mixes.is_free(mix, now) && alone != Some(mix) {
                let takes = match does {
                    Mixing::Mute(lasts) | Mixing::Off(lasts) => lasts,
                    Mixing::Move => Duration::ZERO,
                };
                mixes.until(mix, now + takes);
                acts.push((now, Act::Mix { mix, does }));
            }
        }
        if dice.happens(Duration::from_secs(25)) && link.is_free(0, now) {
            let lasts = dice.seconds(4, 9);
            let both_there = scale.linked().all(|anchor| anchors.is_free(anchor, now));
            if both_there {
                link.until(0, now + lasts + REST);
                acts.push((now, Act::Link { lasts }));
            }
        }
        if dice.happens(Duration::from_secs(6)) {
            let anchor = dice.pick(0..scale.publishers);
            acts.push((now, Act::Push { anchor }));
        }
        if dice.happens(Duration::from_secs(30)) && cdn.is_free(0, now) {
            let down = dice.seconds(2, 9);
            cdn.until(0, now + down + REST);
            acts.push((now, Act::Flap { down }));
        }
        if dice.happens(Duration::from_secs(10)) {
            let mistake = dice.roll(3) == 0;
            acts.push((now, Act::Reload { mistake }));
        }
        if dice.happens(Duration::from_secs(4)) {
            let nameless = dice.roll(2) == 0;
            acts.push((now, Act::Stranger { nameless }));
        }
    }
    acts
}

/// `any`: whatever there is; who is in a mix is neither dropped nor banned, so that its mix is there to be judged.
fn publishing(dice: &mut Dice, any: bool) -> Publishing {
    match dice.roll(if any { 12 } else { 9 }) {
        0..3 => Publishing::Killed,
        3..5 => Publishing::Stop(dice.seconds(1, 6)),
        5..7 => Publishing::TakeOver,
        7..9 => Publishing::Pause {
            lasts: dice.seconds(2, 7),
            burst: dice.roll(2) == 0,
        },
        9..11 => Publishing::Dropped,
        _ => Publishing::Banned(dice.seconds(2, 5)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn scale(seed: u64) -> Scale {
        let seed = seed.to_string();
        Scale::from(|name| (name == "LINKMIC_SOAK_SEED").then(|| seed.clone())).expect("defaults")
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_soak_of_the_same_seed_is_the_same_and_another_is_another() {
        let of = |seed| plan(&scale(seed), Duration::ZERO, HOUR);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let times: Vec<_> = of(7).iter().map(|(at, _)| *at).collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn everything_that_can_happen_happens_in_five_minutes() {
        let kind = |act: &Act| match act {
            Act::Player { does, .. } => format!("player {:?}", std::mem::discriminant(does)),
            Act::Anchor { does, .. } => format!("anchor {:?}", std::mem::discriminant(does)),
            Act::Mix { does, .. } => format!("mix {:?}", std::mem::discriminant(does)),
            other => format!("{:?}", std::mem::discriminant(other)),
        };
        let acts = plan(&scale(1), Duration::ZERO, HOUR / 12);
        let kinds: HashSet<_> = acts.iter().map(|(_, act)| kind(act)).collect();
        assert_eq!(kinds.len(), 4 + 6 + 3 + 5, "{kinds:?}");
    }

    #[test]
    fn what_is_judged_is_left_alone_meanwhile() {
        let scale = scale(3);
        let acts = plan(&scale, Duration::ZERO, HOUR);
        for (at, act) in acts {
            let (minute, second) = (at.as_secs() / 60, at.as_secs() % 60);
            if !JUDGED.contains(&second) {
                continue;
            }
            let of = match act {
                Act::Mix { mix, .. } => Some(mix),
                Act::Anchor { anchor, .. } => scale.mix_of(anchor),
                _ => None,
            };
            assert_ne!(of, Some(judged(&scale, minute)), "{act:?} at {at:?}");
        }
    }

    #[test]
    fn a_scale_that_makes_no_sense_is_told_why() {
        for (name, value, word) in [
            ("PUBLISHERS", "11", "need 12 publishers"),
            ("MIXES", "0", "one mix"),
            ("MINUTES", "0.5", "2 minutes"),
            ("PLAYERS", "many", "no such number"),
            ("PLAYERS", "0", "10 players at least"),
        ] {
            let variable =
                |asked: &str| (asked == format!("LINKMIC_SOAK_{name}")).then(|| value.to_owned());
            let error = Scale::from(variable).expect_err(name);
            assert!(error.contains(word), "{name}: {error}");
        }
    }
}

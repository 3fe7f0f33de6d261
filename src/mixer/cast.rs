//! The cast of a mix: who plays the cells of its layout, and the layout as it is at a time.
//!
//! [`Snapshot`] is what control hands to the mix's thread: immutable, replaced whole, so that nothing is ever half
//! changed. Read once per output frame and block of sound.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::input::{Input, InputState, Picture};
use super::layout::{self, Content, Fact, Known, Layout, Presence, Size, Transition};
use super::pass::Main;
use super::picture::{Cut, Raw};
use super::scene::{self, MixSei, OnLoss, Scene, Source, Tracks};
use super::sentinel::Sentinel;
use super::stage;
use crate::media::StreamKey;

/// The still pictures of a scene, ready to be shown.
pub(super) type Stills = HashMap<scene::Picture, Raw>;

/// The mix as the thread reads it.
pub(super) struct Snapshot {
    /// In the scene's order; those that are leaving follow until their move is over.
    pub members: Vec<Member>,
    /// Index of the lead.
    pub lead: usize,
    pub way: Way,
    pub on_loss: OnLoss,
    pub placeholder: Option<Raw>,
    pub mark: Option<Raw>,
    pub mix_sei: MixSei,
    /// Are the lead's own SEI messages carried over?
    pub pass_sei: bool,
}

/// How one snapshot follows another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub now: Instant,
    /// Output time from which the change may be a move; `None`: it is one from frame to frame.
    pub moves_at: Option<Duration>,
    /// Are streams decoded from now on?
    pub awake: bool,
}

/// One input of the mix.
#[derive(Clone)]
pub(super) struct Member {
    pub id: Arc<str>,
    pub source: Source,
    pub layer: u32,
    pub actor: Actor,
    /// As the layout was made with it.
    pub fact: Fact,
    /// No longer in the scene.
    pub leaving: bool,
}

/// Where a member's pictures come from.
#[derive(Clone)]
pub(super) enum Actor {
    Stream(Arc<Input>),
    /// A stream that is not decoded for now: the mix rests.
    Asleep(Arc<Sentinel>),
    Still(Raw),
    /// A colour, which the layout knows.
    Nothing,
}

/// The layout over time.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// The canvas is not known yet.
    Unknown,
    Still(Layout),
    Moving(Transition),
}

impl Way {
    /// The layout of the output frame at `time` since the mix's zero.
    pub fn at(&self, time: Duration) -> Option<Cow<'_, Layout>> {
        match self {
            Way::Unknown => None,
            Way::Still(layout) => Some(Cow::Borrowed(layout)),
            Way::Moving(transition) => Some(transition.at(time)),
        }
    }

    /// Where it leads.
    pub fn target(&self) -> Option<&Layout> {
        match self {
            Way::Unknown => None,
            Way::Still(layout) => Some(layout),
            Way::Moving(transition) => Some(transition.target()),
        }
    }

    /// Is a move under way that is over by `time`?
    pub fn is_over(&self, time: Duration) -> bool {
        matches!(self, Way::Moving(transition) if transition.is_over(time))
    }
}

impl Snapshot {
    pub fn empty() -> Self {
        Self {
            members: Vec::new(),
            lead: 0,
            way: Way::Unknown,
            on_loss: OnLoss::Freeze,
            placeholder: None,
            mark: None,
            mix_sei: MixSei::Nothing,
            pass_sei: false,
        }
    }

    /// The snapshot that follows this one: `scene` on a canvas of that size. Members that stay keep their streams, where
    /// these are decoded or not as `turn` wants it; `join` makes those of the others, which were last heard of then.
    pub fn next(
        &self,
        scene: &Scene,
        stills: &Stills,
        canvas: Option<Size>,
        turn: Turn,
        join: impl Fn(StreamKey, Tracks, Option<Instant>) -> Actor,
    ) -> Self {
        let Turn {
            now,
            moves_at,
            awake,
        } = turn;
        let mut members: Vec<_> = scene
            .inputs
            .iter()
            .map(|input| {
                let actor = self.actor(&input.source, stills, awake, now, &join);
                let fact = actor.fact(&scene.on_loss, now);
                Member {
                    id: input.id.clone(),
                    source: input.source.clone(),
                    layer: input.layer,
                    actor,
                    fact,
                    leaving: false,
                }
            })
            .collect();
        let still = |picture: Option<&scene::Picture>| stills.get(picture?).cloned();
        let placeholder = still(scene.on_loss.placeholder());
        let mark = still(scene.watermark.as_ref().map(|asked| &asked.picture));
        let way = match canvas {
            None => Way::Unknown,
            Some(canvas) => {
                let known = Known {
                    inputs: members.iter().map(|member| member.fact).collect(),
                    placeholder: placeholder.as_ref().map(Raw::seen),
                    watermark: mark.as_ref().map(Raw::seen),
                };
                let layout = layout::resolve(scene, canvas, &known);
                self.way_to(layout, &members, scene.transition, moves_at)
            }
        };
        if let Way::Moving(_) = way {
            let stays = |old: &Member| {
                let same = |new: &Member| new.id == old.id || new.source.key() == old.source.key();
                old.source.key().is_some() && members.iter().any(same)
                    || members.iter().any(|new| new.id == old.id)
            };
            let leaving: Vec<_> = self.members.iter().filter(|old| !stays(old)).collect();
            members.extend(leaving.into_iter().map(|old| Member {
                leaving: true,
                ..old.clone()
            }));
        }
        // What moves over the watermark's end fades out with its picture.
        let mark = mark.or_else(|| self.mark.clone().filter(|_| matches!(way, Way::Moving(_))));
        Self {
            members,
            lead: scene.lead,
            way,
            on_loss: scene.on_loss.clone(),
            placeholder,
            mark,
            mix_sei: scene.output.mix_sei.clone(),
            pass_sei: scene.output.pass_sei,
        }
    }

    /// What goes into the output's SEI: of a move its end.
    pub fn text(&self) -> Option<String> {
        match &self.mix_sei {
            MixSei::Nothing => None,
            MixSei::Text(text) => Some(text.clone()),
            MixSei::Layout => serde_json::to_string(&self.way.target()?.sei()).ok(),
        }
    }

    fn actor(
        &self,
        source: &Source,
        stills: &Stills,
        awake: bool,
        now: Instant,
        join: &impl Fn(StreamKey, Tracks, Option<Instant>) -> Actor,
    ) -> Actor {
        match source {
            Source::Colour(_) => Actor::Nothing,
            Source::Picture(picture) => match stills.get(picture) {
                Some(raw) => Actor::Still(raw.clone()),
                None => Actor::Nothing,
            },
            Source::Stream { key, tracks } => {
                let mut actors = self.members.iter().map(|member| &member.actor);
                let kept = actors.find(|actor| actor.key() == Some(key)).cloned();
                let actor = match kept {
                    Some(kept) if kept.stream().is_some() == awake => kept,
                    kept => {
                        let silent = kept.and_then(|kept| kept.silent(now));
                        join(
                            key.clone(),
                            *tracks,
                            silent.and_then(|silent| now.checked_sub(silent)),
                        )
                    }
                };
                if let Some(input) = actor.stream() {
                    input.set_tracks(*tracks);
                }
                actor
            }
        }
    }

    /// How the layout comes to be `to`.
    fn way_to(
        &self,
        to: Layout,
        members: &[Member],
        length: Duration,
        moves_at: Option<Duration>,
    ) -> Way {
        let (Some(start), Some(target)) = (moves_at, self.way.target()) else {
            return Way::Still(to);
        };
        if let Way::Moving(transition) = &self.way
            && *target == to
            && !transition.is_over(start)
        {
            return self.way.clone();
        }
        let Some(from) = self.way.at(start).filter(|from| from.canvas == to.canvas) else {
            return Way::Still(to);
        };
        let mut from = from.into_owned();
        // What shows itself for the first time has only now got its place: nobody has seen it elsewhere.
        for member in members {
            let old = self.members.iter().find(|old| old.id == member.id);
            if old.is_some_and(|old| old.fact.size.is_none() && member.fact.size.is_some())
                && let (Some(seen), Some(placed)) = (
                    from.cells.iter_mut().find(|cell| cell.id == member.id),
                    to.cell(&member.id),
                )
            {
                seen.view.clone_from(&placed.view);
            }
        }
        if length.is_zero() || from == to {
            return Way::Still(to);
        }
        Way::Moving(Transition::new(from, to, start, length))
    }

    /// Has something become of a member, or a move come to its end, so that another snapshot is due?
    pub fn is_stale(&self, now: Instant, time: Duration) -> bool {
        let changed = |m: &Member| !m.leaving && m.actor.fact(&self.on_loss, now) != m.fact;
        self.way.is_over(time) || self.members.iter().any(changed)
    }

    /// Tells the inputs what is wanted of them: pictures for their places, sound at that rate.
    pub fn direct(&self, rate: Option<u32>) {
        let target = self.way.target();
        for (member, input) in self
            .members
            .iter()
            .filter(|member| !member.leaving)
            .filter_map(|member| Some((member, member.actor.stream()?)))
        {
            let view = target
                .and_then(|layout| layout.cell(&member.id))
                .and_then(|cell| cell.view.as_ref())
                .filter(|view| view.content == Content::Input && view.own.is_some());
            input.set_cut(view.map(|view| Cut {
                part: view.source,
                size: view.picture.size(),
            }));
            // Only the lead's pictures are waited for, once the mix has begun.
            let leads = self.lead().is_some_and(|lead| Arc::ptr_eq(lead, input));
            input.set_quiet(rate.is_some() && !leads);
            input.set_carrying(self.pass_sei && leads);
            if let Some(rate) = rate {
                input.set_rate(rate);
            }
        }
    }

    pub fn layout(&self, time: Duration) -> Option<Cow<'_, Layout>> {
        self.way.at(time)
    }

    /// All streams, with the ids of their cells.
    pub fn streams(&self) -> impl Iterator<Item = (&str, &Arc<Input>)> {
        self.members
            .iter()
            .filter_map(|member| Some((&*member.id, member.actor.stream()?)))
    }

    /// The lead's name, when it is a stream.
    pub fn lead_key(&self) -> Option<&StreamKey> {
        self.members.get(self.lead)?.source.key()
    }

    pub fn lead(&self) -> Option<&Arc<Input>> {
        self.members.get(self.lead)?.actor.stream()
    }

    /// What is known of the lead as a stream that may pass; `None` until it has come.
    pub fn main(&self) -> Option<Main> {
        match &self.members.get(self.lead)?.actor {
            Actor::Asleep(sentinel) => sentinel.main(),
            Actor::Stream(input) => input.main(),
            Actor::Still(_) | Actor::Nothing => None,
        }
    }

    /// Has the lead of a mix that rests only just come?
    pub fn has_new_lead(&self, now: Instant) -> bool {
        match self.members.get(self.lead).map(|member| &member.actor) {
            Some(Actor::Asleep(sentinel)) => sentinel.is_new(now),
            _ => false,
        }
    }

    /// Everybody's pictures for the frame presented at `pts_us`, which shows what is due up to `until_us`. `offset` is told
    /// for each new picture how much later than it its sound is, in µs.
    pub fn cast(&self, until_us: i64, pts_us: i64, mut offset: impl FnMut(i64)) -> Cast<'_> {
        let lead = self.lead();
        let (mut fresh, mut user_data) = (None, Bytes::new());
        let mut pictures = Vec::with_capacity(self.members.len());
        for (id, input) in self.streams() {
            let is_lead = lead.is_some_and(|lead| Arc::ptr_eq(lead, input));
            // The beat follows the lead; of the others some have just missed a frame, some are just in time.
            let usual_us = if is_lead { 0 } else { until_us - pts_us };
            let Some((picture, due, is_new)) = input.picture(until_us, pts_us, usual_us) else {
                continue;
            };
            if is_new {
                if let Some(by) = input.av_offset_us(due, pts_us) {
                    offset(by);
                }
                if is_lead {
                    fresh = Some((due, picture.arrival, picture.decoded));
                    user_data = input.user_data(due);
                }
            }
            pictures.push((id, picture));
        }
        Cast {
            snapshot: self,
            pictures,
            fresh,
            user_data,
        }
    }
}

impl Member {
    /// What it is doing, with what the mix's policy makes of it.
    pub fn state(&self, on_loss: &OnLoss, now: Instant) -> InputState {
        if self.actor.key().is_none() {
            return InputState::Live;
        }
        let state = InputState::of(self.actor.silent(now));
        let lost =
            state == InputState::Held && self.actor.fact(on_loss, now).presence == Presence::Lost;
        match on_loss {
            OnLoss::Hide { .. } if lost => InputState::Hidden,
            OnLoss::Placeholder { .. } if lost => InputState::Placeholder,
            _ => state,
        }
    }

    /// Is something of it to be seen or heard, or would be if it were decoded?
    pub fn is_present(&self, on_loss: &OnLoss, now: Instant) -> bool {
        let Source::Stream { tracks, .. } = self.source else {
            return true;
        };
        let shows = tracks != Tracks::Sound && on_loss.placeholder().is_some();
        match self.actor.fact(on_loss, now).presence {
            Presence::Present => match &self.actor {
                Actor::Asleep(sentinel) => sentinel.offers(tracks),
                Actor::Stream(_) | Actor::Still(_) | Actor::Nothing => true,
            },
            Presence::Awaited | Presence::Lost => shows,
        }
    }

    /// The size of its newest picture.
    pub fn size(&self) -> Option<Size> {
        match &self.actor {
            Actor::Stream(input) => input.size(),
            Actor::Asleep(sentinel) => sentinel.size(),
            Actor::Still(raw) => Some(raw.seen()),
            Actor::Nothing => None,
        }
    }

    /// Need a mix no longer wait for it?
    pub fn is_ready(&self) -> bool {
        self.actor.stream().is_none_or(|input| input.has_shown())
    }

    /// What it is, as the API spells it.
    pub fn kind(&self) -> &'static str {
        match self.source {
            Source::Stream { tracks, .. } => match tracks {
                Tracks::Both => "audio+video",
                Tracks::Sound => "audio",
                Tracks::Pictures => "video",
            },
            Source::Picture(_) => "picture",
            Source::Colour(_) => "canvas",
        }
    }
}

impl Actor {
    /// What the layout must know of it.
    fn fact(&self, on_loss: &OnLoss, now: Instant) -> Fact {
        match self {
            Actor::Nothing => Fact::default(),
            Actor::Still(raw) => Fact {
                size: Some(raw.seen()),
                presence: Presence::Present,
            },
            Actor::Stream(_) | Actor::Asleep(_) => {
                let silent = self.silent(now);
                Fact {
                    size: match self {
                        Actor::Stream(input) => input.size(),
                        Actor::Asleep(sentinel) => sentinel.size(),
                        Actor::Still(_) | Actor::Nothing => None,
                    },
                    presence: match InputState::of(silent) {
                        InputState::Live => Presence::Present,
                        _ => on_loss.presence(silent),
                    },
                }
            }
        }
    }

    /// The stream's name, when it is one.
    fn key(&self) -> Option<&StreamKey> {
        match self {
            Actor::Stream(input) => Some(input.key()),
            Actor::Asleep(sentinel) => Some(sentinel.key()),
            Actor::Still(_) | Actor::Nothing => None,
        }
    }

    /// Time since the latest came of a stream; `None`: nothing has ever come, or it is none.
    pub fn silent(&self, now: Instant) -> Option<Duration> {
        match self {
            Actor::Stream(input) => input.silent(now),
            Actor::Asleep(sentinel) => sentinel.silent(now),
            Actor::Still(_) | Actor::Nothing => None,
        }
    }

    pub fn stream(&self) -> Option<&Arc<Input>> {
        match self {
            Actor::Stream(input) => Some(input),
            Actor::Asleep(_) | Actor::Still(_) | Actor::Nothing => None,
        }
    }
}

/// The pictures of one output frame.
pub(super) struct Cast<'a> {
    snapshot: &'a Snapshot,
    pictures: Vec<(&'a str, Picture)>,
    fresh: Option<(i64, Option<Instant>, Option<Instant>)>,
    user_data: Bytes,
}

impl Cast<'_> {
    /// The lead's picture, when it is a new one: its due time, its arrival, and when it was decoded.
    pub fn fresh(&self) -> Option<(i64, Option<Instant>, Option<Instant>)> {
        self.fresh
    }

    /// The SEI messages of the lead's picture, when it is a new one and has any.
    pub fn user_data(&self) -> Bytes {
        self.user_data.clone()
    }
}

impl stage::Cast for Cast<'_> {
    fn picture(&self, id: &str) -> Option<Picture> {
        let stream = self.pictures.iter().find(|(of, _)| *of == id);
        if let Some((_, picture)) = stream {
            return Some(picture.clone());
        }
        let member = self.snapshot.members.iter().find(|m| *m.id == *id)?;
        match &member.actor {
            Actor::Still(raw) => Some(stage::still(raw)),
            Actor::Stream(_) | Actor::Asleep(_) | Actor::Nothing => None,
        }
    }

    fn placeholder(&self) -> Option<&Raw> {
        self.snapshot.placeholder.as_ref()
    }

    fn mark(&self) -> Option<&Raw> {
        self.snapshot.mark.as_ref()
    }
}

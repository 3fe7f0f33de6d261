//! `./run soak`: everything at once, for as long as asked, and each minute whether it is as it should be.
//!
//! Four mixes, thirty anchors and three hundred players against the binary in a process of its own. What they do is
//! decided by a seed ([`plan`]); before it is done it is entered into an [`account`], which has to explain every end.
//! Without `LINKMIC_SOAK` only the judges are tested, on logs and figures that are wrong.

mod account;
mod anchors;
mod command;
mod crowd;
mod events;
mod figures;
mod judges;
mod machine;
mod mixes;
mod plan;
mod rates;
mod report;
mod trouble;
mod world;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use linkmic::probe::nginx::Nginx;
use linkmic::probe::process::poll;
use serde_json::json;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use account::{GONE, Whose};
use anchors::{Anchor, Source};
use crowd::Seen;
use events::{Chronicle, Deliveries, Listener};
use figures::Figures;
use judges::{wrong_with_all_given, wrong_with_counts, wrong_with_kicks, wrong_with_players};
use machine::Machine;
use plan::{Act, JUDGED, Mixing, Publishing, Scale, Watching, judged, plan};
use rates::Rates;
use report::Report;
use trouble::Pushed;
use world::{Clips, FPS, PATIENCE, World, anchor_name};

use crate::edge::SOON;
use crate::numbers::Numbers;
use crate::studio::alone;

/// Set by `./run soak`; the environment has the scale, too.
const WANTED: &str = "LINKMIC_SOAK";
/// Orders that one may have before him; more are a mistake of the plan.
const ORDERS: usize = 4;
/// Between two calm moments in a long soak.
const STRETCH: Duration = Duration::from_secs(600);
/// Everybody who takes orders.
struct Hands {
    slots: Vec<Sender<Watching>>,
    anchors: Vec<Sender<Publishing>>,
    mixes: Vec<Sender<Mixing>>,
    link: Sender<Duration>,
    cdn: Sender<Duration>,
    reload: Sender<bool>,
}

struct Soak {
    world: Arc<World>,
    clips: Arc<Clips>,
    hands: Hands,
    pushed: Arc<Pushed>,
    cdn_url: String,
    chronicle: Arc<Mutex<Chronicle>>,
    deliveries: Deliveries,
    rates: Arc<Rates>,
    machine: Machine,
    report: Report,
    /// Tasks that live as long as the soak.
    house: JoinSet<()>,
    acts: u64,
    /// At the end of each minute after the warm-up, KiB.
    loaded: Vec<u64>,
    calms: Vec<Figures>,
    /// At the end.
    pushes_live: usize,
    _listener: Listener,
}

impl Soak {
    async fn begin(scale: Scale) -> Self {
        let report = Report::new(&scale);
        let clips = Arc::new(Clips::make().await);
        let world = Arc::new(World::build(scale).await);
        let cdn = Nginx::start(clips.folder.path()).await.expect("nginx");
        let cdn_url = cdn.url("");
        let chronicle: Arc<Mutex<Chronicle>> = Arc::default();
        let control = world.control.address();
        let listener = Listener::open(control, chronicle.clone(), world.account.clone()).await;
        let mut house = JoinSet::new();
        let slots = (0..world.scale.players).map(|slot| {
            let (order, orders) = mpsc::channel(ORDERS);
            house.spawn(crowd::place(slot, world.clone(), orders));
            order
        });
        let slots = slots.collect();
        let mut anchors = Vec::new();
        for n in 0..world.scale.publishers {
            let (order, orders) = mpsc::channel(ORDERS);
            let source = source(&world.scale, &clips, n);
            house.spawn(Anchor::new(world.clone(), anchor_name(n), source, orders).run());
            anchors.push(order);
        }
        let mut mixes = Vec::new();
        for mix in 0..world.scale.mixes {
            let (order, orders) = mpsc::channel(ORDERS);
            house.spawn(mixes::keep(mix, world.clone(), orders));
            mixes.push(order);
        }
        let (link, links) = mpsc::channel(ORDERS);
        house.spawn(trouble::link(world.clone(), links));
        let (order, orders) = mpsc::channel(ORDERS);
        let flapping = trouble::flap(world.clone(), cdn, orders);
        house.spawn(async move { drop(flapping.await) });
        let (reload, mut reloads) = mpsc::channel(64);
        let reloaded = world.clone();
        house.spawn(async move {
            while let Some(mistake) = reloads.recv().await {
                reloaded.reload(mistake).await;
            }
        });
        let rates = Arc::new(Rates::new(world.scale.mixes));
        house.spawn(rates::watch(rates.clone(), world.clone()));
        let hands = Hands {
            slots,
            anchors,
            mixes,
            link,
            cdn: order,
            reload,
        };
        Self {
            world,
            clips,
            hands,
            pushed: Arc::default(),
            cdn_url,
            chronicle,
            deliveries: Deliveries::default(),
            rates,
            machine: Machine::watch(),
            report,
            house,
            acts: 0,
            loaded: Vec::new(),
            calms: Vec::new(),
            pushes_live: 0,
            _listener: listener,
        }
    }

    /// Everybody comes: players when all that they can play is there, so that from then on nothing is excused.
    async fn fill(&mut self) {
        self.world.hushed.store(false, Relaxed);
        self.world.on_air.send_replace(true);
        let (world, names) = (self.world.clone(), self.world.names.len() as f64);
        let on_air = poll("all anchors and mixes on air", PATIENCE * 2, || async {
            let numbers = world.metrics().await.ok()?;
            (numbers.sum("linkmic_relay_publishers") >= names).then_some(())
        });
        if let Err(error) = on_air.await {
            self.report.complain("the beginning", &error.to_string());
        }
        self.world.account.excuse_nobody();
        self.world.open.send_replace(true);
    }

    /// Everybody goes, and what is left is counted.
    async fn calm(&mut self, when: &str) {
        self.excuse_all();
        self.world.hushed.store(true, Relaxed);
        self.pushed.end(&self.world).await;
        self.world.open.send_replace(false);
        sleep(Duration::from_secs(1)).await;
        self.world.on_air.send_replace(false);
        let world = self.world.clone();
        let gone = poll("everybody gone", PATIENCE * 2, || async {
            let numbers = world.metrics().await.ok()?;
            let there = [
                "linkmic_relay_streams",
                "linkmic_ingest_connections",
                "linkmic_relay_subscribers",
            ];
            let there: f64 = there.iter().map(|name| numbers.sum(name)).sum();
            (there == 0.0).then_some(())
        });
        if let Err(error) = gone.await {
            self.report.complain(when, &error.to_string());
        }
        match self.least().await {
            Ok(least) => self.judge_calm(when, least),
            Err(what) => self.report.complain(when, &what),
        }
        self.judge_ends(when);
    }

    /// Connections linger, threads are joined, letters to the dead back end time out: the fewest of each in a while.
    async fn least(&self) -> Result<Figures, String> {
        let mut least = Figures::of(&self.world).await?;
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            sleep(Duration::from_millis(500)).await;
            least = least.least(Figures::of(&self.world).await?);
        }
        Ok(least)
    }

    fn judge_calm(&mut self, when: &str, least: Figures) {
        let line = format!(
            "calm at {when}: {} KiB resident, {} bytes held, {} threads, {} descriptors, {} tasks",
            least.resident_kib, least.held, least.threads, least.descriptors, least.tasks
        );
        self.report
            .calm(&line, json!({"when": when, "figures": least.json()}));
        let mut wrong = Vec::from_iter(least.left_over());
        if let Some(first) = self.calms.first() {
            wrong.extend(least.grown_since(first));
        }
        for what in wrong {
            self.report.complain(when, &what);
        }
        self.calms.push(least);
    }

    /// While all go, streams are absent, until [`fill`](Self::fill).
    fn excuse_all(&self) {
        const LONG: Duration = Duration::from_secs(600);
        for name in &self.world.names {
            let whose = Whose::Stream(name.clone());
            self.world.account.excuse(whose, GONE, LONG);
        }
    }

    /// Has one thing done. Nothing here waits for long: the plan goes on.
    fn does(&mut self, act: Act) {
        self.acts += 1;
        let given = match act {
            Act::Player { slot, does } => self.hands.slots[slot].try_send(does).is_ok(),
            Act::Anchor { anchor, does } => self.hands.anchors[anchor].try_send(does).is_ok(),
            Act::Mix { mix, does } => self.hands.mixes[mix].try_send(does).is_ok(),
            Act::Link { lasts } => self.hands.link.try_send(lasts).is_ok(),
            Act::Flap { down } => self.hands.cdn.try_send(down).is_ok(),
            Act::Reload { mistake } => self.hands.reload.try_send(mistake).is_ok(),
            Act::Push { anchor } => {
                let (world, pushed) = (self.world.clone(), self.pushed.clone());
                let cdn = self.cdn_url.clone();
                self.house
                    .spawn(async move { pushed.toggle(&world, anchor, &cdn).await });
                true
            }
            Act::Stranger { nameless } => {
                let world = self.world.clone();
                self.house
                    .spawn(async move { trouble::stranger(&world, nameless).await });
                true
            }
        };
        if !given {
            self.report
                .complain("the plan", &format!("{act:?} found nobody to do it"));
        }
    }

    /// Lives a stretch by plan, and judges at the end of each minute of it.
    async fn live(&mut self, from: Duration, to: Duration, counts: bool) {
        let acts = plan(&self.world.scale, from, to);
        let begin = tokio::time::Instant::now();
        let mut acts = acts.into_iter().peekable();
        let first = from.as_secs() / 60;
        let mut judgement = None;
        let minutes = (to - from).as_secs() / 60;
        for minute in first..first + minutes.max(1) {
            let end = (from + Duration::from_secs(60) * (minute - first + 1) as u32).min(to);
            let record_at = from + Duration::from_secs(60 * (minute - first) + JUDGED.start + 2);
            while let Some((at, act)) = acts.next_if(|(at, _)| *at < end) {
                if judgement.is_none() && at >= record_at {
                    judgement = Some(self.record(minute));
                }
                sleep_until(begin + (at - from)).await;
                self.does(act);
            }
            sleep_until(begin + (end - from)).await;
            self.judge(minute, judgement.take(), counts).await;
        }
    }

    /// Judges a mix's output beside all else.
    fn record(&self, minute: u64) -> tokio::task::JoinHandle<mixes::Judgement> {
        let (world, clips) = (self.world.clone(), self.clips.clone());
        let mix = judged(&world.scale, minute);
        tokio::spawn(async move { world.stages[mix].judge(&world, &clips).await })
    }

    /// Whether all is as it should be, at the end of a minute.
    async fn judge(
        &mut self,
        minute: u64,
        recorded: Option<tokio::task::JoinHandle<mixes::Judgement>>,
        counts: bool,
    ) {
        let when = format!("minute {}", minute + 1);
        self.judge_ends(&when);
        let seen: Vec<Seen> = self
            .world
            .tally
            .classes
            .iter()
            .map(crowd::Class::take)
            .collect();
        let playing = self.world.tally.playing.load(Relaxed);
        for what in wrong_with_players(&seen, playing, self.world.scale.players as u64) {
            self.report.complain(&when, &what);
        }
        let mut medians = Vec::new();
        let mix = judged(&self.world.scale, minute);
        match recorded {
            Some(judgement) => {
                let judgement = judgement.await.expect("no panic while judging");
                medians = judgement.medians;
                for what in judgement.complaints {
                    self.report.complain(&when, &what);
                }
            }
            None => self.report.complain(&when, "no mix was recorded"),
        }
        let rates = self.rates.take();
        for what in rates.complaints {
            self.report.complain(&when, &what);
        }
        let (now, numbers) = match self.counted().await {
            Ok(counted) => counted,
            Err(what) => return self.report.complain(&when, &what),
        };
        for what in wrong_with_counts(&numbers) {
            self.report.complain(&when, &what);
        }
        if counts {
            self.loaded.push(now.resident_kib);
        }
        let late = self.machine.take();
        let line = format!(
            "{when}: {playing} playing; peers p50 {:.0} p99 {:.0} ms, viewers p50 {:.0} p99 {:.0} ms, {} of {} pictures missed; \
             mixes at {:.2} to {:.2} fps; mix{mix} sound {medians:+.0?} ms; {} KiB, {} threads, {} descriptors; the machine up to {late} ms late",
            seen[0].p50_ms,
            seen[0].p99_ms,
            seen[1].p50_ms,
            seen[1].p99_ms,
            seen[0].missed + seen[1].missed,
            seen[0].pictures + seen[1].pictures,
            rates.least,
            rates.most,
            now.resident_kib,
            now.threads,
            now.descriptors,
        );
        let class = |seen: &Seen| {
            json!({
                "pictures": seen.pictures, "missed": seen.missed, "p50_ms": seen.p50_ms,
                "p99_ms": seen.p99_ms, "worst_ms": seen.worst_ms,
            })
        };
        let figures = json!({
            "minute": minute + 1, "playing": playing, "low_latency": class(&seen[0]), "viewers": class(&seen[1]),
            "fps": {"windows": rates.windows, "least": rates.least, "most": rates.most},
            "judged": {"mix": mix, "sound_after_picture_ms": medians},
            "process": now.json(), "machine_late_ms": late,
        });
        self.report.minute(&line, figures);
        while let Some(done) = self.house.try_join_next() {
            if let Err(panic) = done {
                self.report
                    .complain(&when, &format!("somebody gave up: {panic}"));
            }
        }
    }

    /// The process, and all that it counts.
    async fn counted(&self) -> Result<(Figures, Numbers), String> {
        let figures = Figures::of(&self.world).await?;
        Ok((figures, self.world.metrics().await?))
    }

    /// Ends, events, webhooks.
    fn judge_ends(&mut self, when: &str) {
        let mut wrong = self.world.account.complaints();
        wrong.extend(self.deliveries.take(&self.world.hooks.requests()));
        let mut chronicle = self.chronicle.lock().expect("whole");
        wrong.extend(chronicle.complaints());
        wrong.extend(chronicle.overdue(&self.deliveries));
        drop(chronicle);
        for what in wrong {
            self.report.complain(when, &what);
        }
    }

    async fn judge_pushes(&mut self) {
        match self.pushed.all_live(&self.world, &self.cdn_url).await {
            Ok(count) => self.pushes_live = count,
            Err(what) => self.report.complain("the end", &what),
        }
    }

    /// The last word: pushes are live, webhooks are taken, and how much there was of everything.
    async fn close(mut self) -> usize {
        if let Some(what) = figures::risen(&self.loaded) {
            self.report.complain("the end", &what);
        }
        let taken = poll("all webhooks taken", SOON, || async {
            let mut more = Deliveries::default();
            more.take(&self.world.hooks.requests());
            let is_so = self.chronicle.lock().expect("whole").is_delivered(&more);
            is_so.then_some(())
        });
        if let Err(error) = taken.await {
            self.report.complain("the end", &error.to_string());
        }
        self.judge_ends("the end");
        let (epochs, live) = {
            let chronicle = self.chronicle.lock().expect("whole");
            (chronicle.epochs, chronicle.live())
        };
        if live > 0 {
            self.report
                .complain("the end", &format!("{live} epochs have no end"));
        }
        let tally = &self.world.tally;
        let given = [0, 1].map(|class| tally.classes[class].given(FPS));
        let (kicks, kicked) = (tally.kicks.load(Relaxed), tally.kicked.load(Relaxed));
        let mut wrong = wrong_with_all_given(given);
        wrong.extend(wrong_with_kicks(kicks, kicked));
        for what in wrong {
            self.report.complain("the end", &what);
        }
        let counted = match self.world.metrics().await {
            Ok(numbers) => json!({
                "connections_ended": numbers.counted("linkmic_ingest_disconnects_total"),
                "messages_skipped": numbers.counted("linkmic_playback_dropped_messages_total"),
            }),
            Err(what) => json!(what),
        };
        let class = |(given, expected)| json!({"given": given, "expected": expected});
        let totals = json!({
            "acts": self.acts, "epochs": epochs, "ends_explained": self.world.account.explained(),
            "webhooks": self.deliveries.count(), "webhooks_twice": self.deliveries.twice,
            "joins": tally.joins.load(Relaxed), "kicks": kicks, "kicked": kicked,
            "pushes_live": self.pushes_live, "counted": counted,
            "low_latency": class(given[0]), "viewers": class(given[1]),
        });
        self.house.abort_all();
        self.world.server.lock().await.end().await;
        self.report.close(totals)
    }
}

/// How long after everybody is gone figures are looked at. A letter to a back end that says nothing has 20 s: the last of those
/// that were sent before it was [hushed](World::hushed) is given up in this time.
const SETTLE: Duration = Duration::from_secs(25);

/// Who sends what: one anchor each of the first two mixes is ffmpeg.
fn source(scale: &Scale, clips: &Clips, anchor: usize) -> Source {
    let Some(place) = scale
        .mix_of(anchor)
        .map(|mix| anchor - scale.anchors_of(mix).start)
    else {
        return match scale.linked().contains(&anchor) {
            true => Source::Ours(clips.sent[anchor - scale.linked().start].clone()),
            false => Source::Ours(clips.plain.clone()),
        };
    };
    match (scale.mix_of(anchor), place) {
        (Some(0), 0) | (Some(1), 1) => Source::Ffmpeg(clips.files[place].clone()),
        _ => Source::Ours(clips.sent[place].clone()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_for_as_long_as_asked_breaks_no_invariant() {
    if std::env::var_os(WANTED).is_none_or(|value| value.is_empty()) {
        // `./run soak`, and `.ci/run`.
        return;
    }
    let scale =
        Scale::from(|name| std::env::var(name).ok()).unwrap_or_else(|error| panic!("{error}"));
    let _alone = alone().await;
    let whole = Duration::from_secs_f64(60.0 * scale.minutes);
    let mut soak = Soak::begin(scale).await;
    // What the first minutes leave is the working size of the allocator's heaps, and nobody's.
    let minute = Duration::from_secs(60);
    let warm = if whole >= minute * 10 {
        minute * 2
    } else {
        minute
    };
    soak.fill().await;
    soak.live(Duration::ZERO, warm, false).await;
    soak.calm("the end of the warm-up").await;
    let mut from = warm;
    while from + minute <= whole {
        let to = (from + STRETCH).min(whole);
        // Whole minutes.
        let to = from + minute * ((to - from).as_secs() / 60) as u32;
        soak.fill().await;
        soak.live(from, to, true).await;
        if to + minute > whole {
            soak.judge_pushes().await;
        }
        soak.calm(&format!("minute {}", to.as_secs() / 60)).await;
        from = to;
    }
    let wrong = soak.close().await;
    assert_eq!(wrong, 0, "see the report");
}

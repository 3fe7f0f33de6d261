//! The server's binary as a process, whose memory can be read.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use linkmic::config::{Config, Env};
use linkmic::probe::http;
use linkmic::probe::process::{Process, poll};
use serde_json::Value;
use tempfile::TempDir;

use crate::edge::SOON;
use crate::edge::house::{TOKEN, Urls, configuration};
use crate::edge::network::Network;
use crate::numbers::Numbers;

/// What a process may grow by and still count as flat, in bytes.
pub const FLAT: u64 = 2 << 20;
/// How long freed memory may take to be seen as free: connections that linger a second before they close.
const SETTLE: Duration = Duration::from_secs(8);

/// A thread, as the kernel schedules it.
#[cfg(feature = "mixer")]
#[derive(Debug)]
pub struct Scheduled {
    pub name: String,
    pub nice: i32,
    /// `SCHED_RR`.
    pub is_realtime: bool,
    /// `None` where the kernel does not tell.
    pub slice_ns: Option<u64>,
}

/// `linkmic serve` with a configuration of its own.
pub struct Binary {
    pub urls: Arc<Urls>,
    pub control: http::Client,
    config: Config,
    /// The public HTTP listener.
    pub http: SocketAddr,
    /// Where it serves RTMPS, if it does.
    pub rtmps: Option<SocketAddr>,
    process: Process,
    folder: TempDir,
    /// The file in which GStreamer lists its elements, and the folder that it is in.
    #[cfg_attr(
        not(feature = "mixer"),
        expect(dead_code, reason = "only mixes have elements")
    )]
    alive: Option<(TempDir, PathBuf)>,
}

impl Binary {
    /// # Panics
    /// When it does not come to listen; with what it said.
    pub async fn serve(more: &str) -> Self {
        Self::run(&[], "127.0.0.1", more).await
    }

    /// As [`serve`](Self::serve), started by another program whose words are `under`.
    pub async fn serve_under(under: &[&str], more: &str) -> Self {
        Self::run(under, "127.0.0.1", more).await
    }

    /// As [`serve`](Self::serve), with GStreamer's own account of its elements: see [`elements`](Self::elements).
    #[cfg(feature = "mixer")]
    pub async fn serve_counting_elements() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let alive = folder.path().join("alive.log");
        let file = format!("GST_DEBUG_FILE={}", alive.display());
        let under = [
            "env",
            "GST_TRACERS=leaks(filters=GstElement)",
            "GST_LEAKS_TRACER_SIG=1",
            "GST_DEBUG=GST_TRACER:7",
            &file,
        ];
        let mut server = Self::serve_under(&under, "").await;
        server.alive = Some((folder, alive));
        server
    }

    /// What it says when it does not come to listen.
    ///
    /// # Panics
    /// When it does.
    pub async fn fails_under(under: &[&str], more: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        std::fs::write(&file, text(&folder, "", more)).expect("the configuration file");
        let mut process = spawn(under, &file);
        drop(process.stdin());
        process.end(SOON).await.expect("its end");
        process.said()
    }

    /// The writing end of its standard input, once.
    pub fn stdin(&mut self) -> tokio::process::ChildStdin {
        self.process.stdin().expect("it has one")
    }

    /// In another network namespace, where it can be reached by either link.
    ///
    /// # Panics
    /// As [`serve`](Self::serve).
    pub async fn serve_in(network: &Network) -> Self {
        let under = ["ip", "netns", "exec", network.name()];
        let mut server = Self::run(&under, "0.0.0.0", "").await;
        server.relocate(&network.server());
        server
    }

    async fn run(under: &[&str], host: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = text(&folder, "", more).replace("127.0.0.1:0", &format!("{host}:0"));
        let config = Config::parse(&text, "test", &Env::default()).expect("a configuration");
        let file = folder.path().join(FILE);
        std::fs::write(&file, text).expect("the configuration file");
        let process = spawn(under, &file);
        let (rtmp, http, control, rtmps) = poll("the server to listen", SOON, || async {
            process.said().lines().find_map(listening)
        })
        .await
        .unwrap_or_else(|e| panic!("{e}; it said\n{}", process.said()));
        Self {
            urls: Arc::new(Urls::new(rtmp, &config)),
            control: http::Client::new(control, Some(TOKEN)),
            config,
            http,
            rtmps,
            process,
            folder,
            alive: None,
        }
    }

    /// Writes another configuration, with `auth` in `[auth]` and `more` sections, sends SIGHUP and waits for the line
    /// of the log that says what came of it.
    ///
    /// # Panics
    /// When it says nothing.
    pub async fn reload(&self, auth: &str, more: &str) -> String {
        let file = self.folder.path().join(FILE);
        std::fs::write(file, text(&self.folder, auth, more)).expect("the configuration file");
        // The time in it makes each line different.
        let known: HashSet<String> = self.said().lines().map(str::to_owned).collect();
        self.signal("HUP").await;
        let line = poll("a word about the configuration", SOON, || async {
            let said = self.said();
            let new = said.lines().filter(|line| !known.contains(*line));
            let mut about = new.filter(|line| line.contains("reloaded"));
            about.next().map(str::to_owned)
        });
        line.await
            .unwrap_or_else(|e| panic!("{e}\n{}", self.said()))
    }

    /// As [`reload`](Self::reload), through the API: its answer.
    pub async fn reload_by_api(&self, auth: &str, more: &str) -> http::Answer {
        let file = self.folder.path().join(FILE);
        std::fs::write(file, text(&self.folder, auth, more)).expect("the configuration file");
        let answer = self.control.post("/api/v1/reload", &Value::Null).await;
        answer.expect("an answer")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not within that time, or not well.
    pub async fn ended_within(&mut self, within: Duration) {
        let ended = self
            .process
            .end(within)
            .await
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(ended.success(), "{ended}: {}", self.process.said());
    }

    /// It listens on all addresses; this is the one to reach it by.
    fn relocate(&mut self, host: &str) {
        let rtmp = SocketAddr::new(host.parse().expect("an address"), self.urls.rtmp().port());
        self.urls = Arc::new(Urls::new(rtmp, &self.config));
        let control = SocketAddr::new(rtmp.ip(), self.control.address().port());
        self.control = http::Client::new(control, Some(TOKEN));
    }

    /// The URLs, for tasks.
    pub fn urls(&self) -> Arc<Urls> {
        self.urls.clone()
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident(&mut self) -> u64 {
        let kilobytes = self.status("VmRSS:");
        let kilobytes = kilobytes
            .strip_suffix(" kB")
            .and_then(|k| k.parse::<u64>().ok());
        kilobytes.expect("VmRSS") * 1024
    }

    /// Threads alive.
    ///
    /// # Panics
    /// As [`resident`](Self::resident).
    #[cfg(feature = "mixer")]
    pub fn threads(&mut self) -> usize {
        self.status("Threads:").parse().expect("a number")
    }

    /// How each of its threads is scheduled.
    ///
    /// # Panics
    /// As [`resident`](Self::resident).
    #[cfg(feature = "mixer")]
    pub fn scheduled(&mut self) -> Vec<Scheduled> {
        self.assert_alive();
        let id = self.process.id().expect("it runs");
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
        // One that ends meanwhile is left out.
        let read = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).ok()?;
            let (name, fields) = stat.rsplit_once(") ").expect("a name in brackets");
            let (_, name) = name.split_once('(').expect("a name in brackets");
            // proc(5): the niceness is the 19th, and the first after the name is the third.
            let nice = fields.split(' ').nth(19 - 3).expect("19 fields");
            let sched = std::fs::read_to_string(task.join("sched")).unwrap_or_default();
            let slice = sched.lines().find(|line| line.starts_with("se.slice"));
            Some(Scheduled {
                name: name.to_owned(),
                nice: nice.parse().expect("a number"),
                // The 41st: 2 is SCHED_RR.
                is_realtime: fields.split(' ').nth(41 - 3) == Some("2"),
                slice_ns: slice.and_then(|line| line.rsplit(' ').next()?.parse().ok()),
            })
        };
        tasks
            .flatten()
            .filter_map(|task| read(&task.path()))
            .collect()
    }

    /// Files, sockets and pipes that are open.
    ///
    /// # Panics
    /// As [`resident`](Self::resident).
    #[cfg(feature = "mixer")]
    pub fn descriptors(&mut self) -> usize {
        self.assert_alive();
        let id = self.process.id().expect("it runs");
        let open = std::fs::read_dir(format!("/proc/{id}/fd"));
        open.expect("it runs").count()
    }

    /// GStreamer's elements alive, as its tracer lists them when it gets a signal.
    ///
    /// # Panics
    /// Without [`serve_counting_elements`](Self::serve_counting_elements).
    #[cfg(feature = "mixer")]
    pub async fn elements(&self) -> usize {
        const ONE: &str = "object-alive, type-name=(string)Gst";
        let (_, file) = self.alive.as_ref().expect("a server that counts");
        let listed = || {
            let list = std::fs::read_to_string(file).unwrap_or_default();
            list.matches(ONE).count()
        };
        let before = listed();
        self.signal("USR1").await;
        // Nothing says where a list ends: it does when no more comes.
        let (mut last, mut same) = (before, 0);
        let whole = poll("a list of elements", SOON, || {
            let now = listed();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            let whole = (now > before && same >= 5).then_some(now - before);
            std::future::ready(whole)
        });
        whole.await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Sends a signal, by its name without SIG.
    pub async fn signal(&self, name: &str) {
        self.process.signal(name).await.expect("a signal");
    }

    /// A line of the kernel's status of the process.
    fn status(&mut self, key: &str) -> String {
        self.assert_alive();
        let id = self.process.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.expect("a line of it").trim().to_owned()
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Ends it in order.
    pub async fn end(&mut self) {
        self.process.interrupt(SOON).await;
    }

    pub fn assert_alive(&mut self) {
        if let Some(status) = self.process.ended() {
            panic!("the server ended: {status}\n{}", self.process.said());
        }
    }

    /// Fails unless resident memory is, or soon comes to be, at most [`FLAT`] over `before`.
    pub async fn assert_flat(&mut self, before: u64, what: &str) {
        self.assert_grown_at_most(FLAT, before, what).await;
    }

    /// The same with another bound than [`FLAT`].
    pub async fn assert_grown_at_most(&mut self, bound: u64, before: u64, what: &str) {
        let is_within = self.grown_at_most(bound, before, what).await;
        assert!(is_within, "{what}: memory is not flat");
    }

    /// Whether resident memory is, or soon comes to be, at most [`FLAT`] over `before`.
    pub async fn is_flat(&mut self, before: u64, what: &str) -> bool {
        self.grown_at_most(FLAT, before, what).await
    }

    async fn grown_at_most(&mut self, bound: u64, before: u64, what: &str) -> bool {
        let deadline = tokio::time::Instant::now() + SETTLE;
        loop {
            let now = self.resident();
            let is_within = now <= before + bound;
            if is_within || tokio::time::Instant::now() >= deadline {
                let change = (now as i64 - before as i64) / 1024;
                println!("{what}: {change:+} KiB, from {} KiB", before / 1024);
                return is_within;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until no more than `count` RTMP connections are open.
    pub async fn wait_for_connections(&self, count: usize) {
        let seen = poll("connections to be gone", SOON, || async {
            let open = self.metrics().await.value("linkmic_ingest_connections");
            (open <= count as f64).then_some(())
        });
        seen.await.expect("they go");
    }

    /// All numbers, as they are now.
    pub async fn metrics(&self) -> Numbers {
        Numbers::of(&self.control).await.expect("metrics")
    }

    /// Tasks alive, once what asked for them is over: the same number five times in a row.
    pub async fn settled_tasks(&self) -> f64 {
        let deadline = tokio::time::Instant::now() + SOON;
        let (mut last, mut same) = (f64::NAN, 0);
        while same < 5 {
            assert!(tokio::time::Instant::now() < deadline, "tasks come and go");
            let now = self.metrics().await.value("linkmic_runtime_tasks");
            same = if now == last { same + 1 } else { 0 };
            last = now;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        last
    }

    /// Why RTMP connections ended since the start, and how many each; those that never occurred are left out.
    pub async fn ends(&self) -> Vec<(String, u64)> {
        let numbers = self.metrics().await;
        let ends = numbers.counted("linkmic_ingest_disconnects_total");
        let ends = ends.into_iter();
        ends.map(|(reason, count)| (reason.to_owned(), count))
            .collect()
    }

    /// The last lines that it wrote to its log.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Lines of `/metrics` that have a value.
    pub async fn series(&self) -> usize {
        self.metrics().await.lines()
    }
}

/// Waits for the size that a server comes to have when it does the same again and again.
///
/// What the first rounds leave is not held by anybody: the allocator keeps what was freed in the midst of its heaps, of
/// which it has one for each thread, and how much that comes to depends on how much happened to be in use at a time. A
/// leak goes on growing: this never ends well then, or the bound on what follows does not hold.
pub struct WorkingSize {
    most: u64,
    rounds: usize,
}

impl WorkingSize {
    /// Reached when a round leaves at most this much more resident than all those before it...
    const SETTLED: u64 = 256 << 10;
    /// ...which must come to be within so many.
    const ROUNDS: usize = 8;

    pub fn of(server: &mut Binary) -> Self {
        Self {
            most: server.resident(),
            rounds: 0,
        }
    }

    /// After each round: what is resident, in bytes, once it has come to be the size.
    ///
    /// # Panics
    /// When it goes on growing.
    pub fn after_a_round(&mut self, server: &mut Binary) -> Option<u64> {
        let now = server.resident();
        let growth = (now as i64 - self.most as i64) / 1024;
        self.rounds += 1;
        println!(
            "after round {}: {} KiB, {growth:+}",
            self.rounds,
            now / 1024
        );
        if now <= self.most + Self::SETTLED {
            return Some(now);
        }
        assert!(
            self.rounds < Self::ROUNDS,
            "each of {} rounds left more behind than those before it",
            self.rounds
        );
        self.most = now;
        None
    }
}

fn spawn(under: &[&str], file: &Path) -> Process {
    let file = file.display().to_string();
    let mut words = under.to_vec();
    // A busy machine makes encoders late, and every step down would be another header.
    words.extend(["env", "LINKMIC__MIXER__DEGRADE=false"]);
    words.extend([env!("CARGO_BIN_EXE_linkmic"), "serve", "--config", &file]);
    Process::spawn(words[0], &words[1..]).unwrap_or_else(|e| panic!("{e}"))
}

/// The configuration file's name in the server's folder.
const FILE: &str = "linkmic.toml";

fn text(folder: &TempDir, auth: &str, more: &str) -> String {
    let log = "[log]\nformat = \"json\"\nlevel = \"warn,linkmic::server=info\"";
    configuration(folder.path(), auth, &format!("{more}\n{log}"))
}

/// The RTMP, HTTP and control addresses in the server's first word, and that of RTMPS if there is one.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr, SocketAddr, Option<SocketAddr>)> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then_some(())?;
    let first = |key: &str| {
        let list = line[key].as_str()?.strip_prefix('[')?.strip_suffix(']')?;
        list.split(',').next()?.trim().parse().ok()
    };
    Some((
        first("rtmp")?,
        first("http")?,
        first("control")?,
        first("rtmps"),
    ))
}

//! How late the picture is that a viewer looks at, 10 s after joining in the middle of a 3 s GOP.
//!
//! Three ways to join (`squeeze`, `burst`, `wait`), and players as people use them: ffplay with its defaults and with its
//! low-delay flags, librtmp (rtmpdump into ffplay), GStreamer with its own RTMP source. What counts is what is shown:
//! ffplay draws into an X server without a screen, from which pictures are grabbed; GStreamer's sink writes each
//! picture when its clock says so. The numbers burnt into the pictures say when each was handed to the encoder, so
//! encoder and decoder are part of every figure, and grabbing adds up to one picture's time.
//!
//! `cargo bench --bench joins -- [RUNS]`; needs ffmpeg, rtmpdump, GStreamer and xvfb.

use std::path::Path;
use std::time::{Duration, Instant};

use linkmic::config::{Config, Env};
use linkmic::probe::latency::Latencies;
use linkmic::probe::picture;
use linkmic::probe::process::Process;
use linkmic::probe::publisher::{Publisher, Show};
use linkmic::probe::{Colour, picture::Size};
use linkmic::server::Server;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::{sleep, timeout};

const GOP_SECONDS: u32 = 3;
/// From the join to the first picture that counts.
const SETTLED: Duration = Duration::from_secs(10);
/// How long pictures then count.
const LOOK: Duration = Duration::from_secs(2);
/// Pictures grabbed from the screen per second.
const GRABS: u32 = 30;
const SIZE: Size = Size::new(320, 480);
const JOINS: [&str; 3] = ["squeeze", "burst", "wait"];

#[derive(Clone, Copy)]
enum Player {
    Ffplay,
    FfplayLowDelay,
    Librtmp,
    GStreamer,
}

impl Player {
    const ALL: [Player; 4] = [
        Player::Ffplay,
        Player::FfplayLowDelay,
        Player::Librtmp,
        Player::GStreamer,
    ];

    fn name(self) -> &'static str {
        match self {
            Player::Ffplay => "ffplay",
            Player::FfplayLowDelay => "ffplay -fflags nobuffer -flags low_delay",
            Player::Librtmp => "rtmpdump to ffplay",
            Player::GStreamer => "GStreamer rtmp2src",
        }
    }
}

#[tokio::main]
async fn main() {
    // `cargo bench` adds `--bench`.
    let runs = std::env::args().find_map(|argument| argument.parse().ok());
    let runs: usize = runs.unwrap_or(5);
    // A server, a publisher, a player and a screen for each way to join, so that all three meet the same machine.
    let screens = [screen().await, screen().await, screen().await];
    println!(
        "displayed latency 10 s after joining amid a {GOP_SECONDS} s GOP; median (least to most) of {runs} runs, ms"
    );
    println!("| player | {} |", JOINS.join(" | "));
    println!("|---|---|---|---|");
    for player in Player::ALL {
        let mut all = [const { Vec::new() }; 3];
        for _ in 0..runs {
            let [a, b, c] = [0, 1, 2].map(|n| measure(player, JOINS[n], &screens[n].1));
            let (a, b, c) = tokio::join!(a, b, c);
            for (all, one) in all.iter_mut().zip([a, b, c]) {
                all.push(one);
            }
        }
        let mut row = format!("| {} |", player.name());
        for mut all in all {
            all.sort();
            let shown = |at: usize| match all[at] {
                Some(latency) => latency.as_millis().to_string(),
                None => "no picture".to_owned(),
            };
            row += &format!(
                " {} ({} to {}) |",
                shown(runs / 2),
                shown(0),
                shown(runs - 1)
            );
        }
        println!("{row}");
    }
}

/// One join: the median latency of the pictures shown from [`SETTLED`] on; `None` when none could be read.
async fn measure(player: Player, join: &str, display: &str) -> Option<Duration> {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(folder.path(), join).await;
    let url = format!("rtmp://{}/live/a", server.rtmp_addr());
    let show = Show {
        size: SIZE,
        fps: 25,
        gop_seconds: GOP_SECONDS,
        ..Show::sub(Colour::RED, 700.0)
    };
    let publisher = Publisher::start(&url, &show).expect("ffmpeg starts");
    // Into the second GOP, and there to its middle.
    let gop = u64::from(show.fps * GOP_SECONDS);
    while publisher.frames() < gop + gop / 2 {
        sleep(Duration::from_millis(5)).await;
    }
    let begin = Instant::now();
    let mut playing = play(player, &url, display, folder.path());
    let latencies = match player {
        Player::GStreamer => {
            let pictures = playing[0].stdout().expect("its standard output");
            look(pictures, &publisher, begin).await
        }
        _ => {
            let mut grabber = grab(display);
            let pictures = grabber.stdout().expect("its standard output");
            look(pictures, &publisher, begin).await
        }
    };
    drop(playing);
    server.shutdown().await;
    latencies.percentile(50)
}

async fn serve(state: &Path, join: &str) -> Server {
    let text = format!(
        "[rtmp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [control]\nlisten = \"127.0.0.1:0\"\ntoken = \"control-0123456789abcdef\"\n\
         [state]\ndir = \"{}\"\n[auth]\npush = \"open\"\n[classes.viewer]\njoin = \"{join}\"\n",
        state.display()
    );
    let config = Config::parse(&text, "joins", &Env::default()).expect("a configuration");
    Server::start(config).await.expect("it starts")
}

/// An X server without a screen, large enough for one player, and its name.
async fn screen() -> (Process, String) {
    let arguments = format!(
        "-displayfd 1 -screen 0 {}x{}x24 -nolisten tcp",
        SIZE.width, SIZE.height
    );
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut screen = Process::spawn("Xvfb", &arguments).expect("Xvfb starts");
    let said = screen.stdout().expect("its standard output");
    let mut number = String::new();
    let line = BufReader::new(said).read_line(&mut number).await;
    line.expect("the number of the display");
    (screen, format!(":{}", number.trim()))
}

/// Starts the player; the one whose output is looked at comes first.
fn play(player: Player, url: &str, display: &str, folder: &Path) -> Vec<Process> {
    let ffplay = |flags: &str, input: &str| {
        let text = format!(
            "DISPLAY={display} SDL_AUDIODRIVER=dummy ffplay -hide_banner -loglevel error {flags} \
             -noborder -left 0 -top 0 -x {} -y {} {input}",
            SIZE.width, SIZE.height
        );
        spawn("env", &text)
    };
    match player {
        Player::Ffplay => vec![ffplay("", url)],
        Player::FfplayLowDelay => vec![ffplay("-fflags nobuffer -flags low_delay", url)],
        Player::Librtmp => {
            let pipe = folder.join("pipe").display().to_string();
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.is_ok_and(|status| status.success()), "mkfifo");
            vec![
                ffplay("", &pipe),
                spawn(
                    "rtmpdump",
                    &format!("--live --quiet --rtmp {url} --flv {pipe}"),
                ),
            ]
        }
        Player::GStreamer => vec![spawn(
            "gst-launch-1.0",
            &format!(
                "-q rtmp2src location={url} ! flvdemux name=d \
                 d.video ! queue ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=I420 ! \
                 fdsink fd=1 sync=true \
                 d.audio ! queue ! aacparse ! avdec_aac ! audioconvert ! fakesink sync=true"
            ),
        )],
    }
}

/// What is on the screen, again and again.
fn grab(display: &str) -> Process {
    let Size { width, height } = SIZE;
    spawn(
        "ffmpeg",
        &format!(
            "-loglevel error -f x11grab -draw_mouse 0 -framerate {GRABS} -video_size {width}x{height} -i {display} \
             -fps_mode passthrough -threads 1 -f rawvideo -pix_fmt yuv420p -flush_packets 1 pipe:1"
        ),
    )
}

fn spawn(program: &str, arguments: &str) -> Process {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    Process::spawn(program, &arguments).unwrap_or_else(|e| panic!("{e}"))
}

/// Reads pictures as they come until [`SETTLED`] and [`LOOK`] are over.
async fn look(
    mut pictures: impl AsyncRead + Unpin,
    publisher: &Publisher,
    begin: Instant,
) -> Latencies {
    let mut frame = vec![0; SIZE.frame_bytes()];
    let mut latencies = Latencies::default();
    let end = begin + SETTLED + LOOK;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let Ok(Ok(_)) = timeout(left, pictures.read_exact(&mut frame)).await else {
            break;
        };
        let now = Instant::now();
        let counter = picture::read(&frame, SIZE, SIZE.whole()).counter;
        if let Some(fed) = counter.and_then(|counter| publisher.fed_at(counter))
            && now >= begin + SETTLED
        {
            latencies.push(now - fed);
        }
    }
    latencies
}

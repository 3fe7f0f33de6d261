//! Who mixes: a server of ours, or ffmpeg's filter graph beside one.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use linkmic::probe::http::Client;
use linkmic::probe::process::{Process, poll};
use linkmic::probe::{Error, Region, Size};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::clips::SOURCES;

/// How long a server may take to listen, and ffmpeg to make something of four streams.
const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "mix-0123456789abcdef";

pub const CANVAS: Size = SOURCES[0].size;
/// The main's number, across the top, stays free. Each has its source's aspect.
pub const PLACES: [Region; 4] = [
    CANVAS.whole(),
    place(1060, 400, 200, 300),
    place(480, 520, 320, 180),
    place(20, 200, 200, 300),
];
/// Where the first sub moves to, on air.
pub const MOVED: Region = place(700, 200, 200, 300);
const KBPS: u32 = 2500;
const AUDIO_KBPS: u32 = 96;
const GOP_SECONDS: u64 = 2;
/// As the server's encoder: 600 ms.
const BUFFER_KBIT: u32 = KBPS * 6 / 10;

const fn place(x: usize, y: usize, width: usize, height: usize) -> Region {
    Region {
        x,
        y,
        width,
        height,
    }
}

/// A server of ours as shipped, but for addresses and an open door for publishers.
pub struct Server {
    process: Process,
    rtmp: SocketAddr,
    pub api: Client,
    folder: TempDir,
}

impl Server {
    pub async fn start(binary: &str) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(|e| Error::io("a folder", e))?;
        let text = format!(
            "[rtmp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [control]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\n\
             [state]\ndir = \"{}\"\n[auth]\npush = \"open\"\npeer = \"open\"\n\
             [mixer]\nbudget = 10000\ndegrade = false\n\
             [log]\nformat = \"json\"\nlevel = \"warn,linkmic::server=info\"\n",
            folder.path().display()
        );
        let file = folder.path().join("linkmic.toml");
        std::fs::write(&file, text).map_err(|e| Error::io("the configuration", e))?;
        let file = file.display().to_string();
        let process = Process::spawn(binary, &["serve", "--config", &file])?;
        let heard = poll("the first word", SOON, || async {
            process.said().lines().find_map(listening)
        });
        let [rtmp, control] = heard
            .await
            .map_err(|_| Error::Wrong(format!("not ready; it said:\n{}", process.said())))?;
        Ok(Self {
            process,
            rtmp,
            api: Client::new(control, Some(TOKEN)),
            folder,
        })
    }

    /// A folder that goes with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// 0 when it is gone, which no process is.
    pub fn id(&self) -> u32 {
        self.process.id().unwrap_or(0)
    }

    pub fn url(&self, name: &str) -> String {
        format!("rtmp://{}/live/{name}", self.rtmp)
    }

    /// Waits until a stream's picture is known.
    pub async fn on_air(&self, name: &str) -> Result<(), Error> {
        let (what, path) = (
            format!("{name} on air"),
            format!("/api/v1/streams/live/{name}"),
        );
        poll(&what, SOON, || async {
            let answer = self.api.get(&path).await.ok()?.json();
            answer["publisher"]["video"].is_object().then_some(())
        })
        .await
    }

    /// Pushes the main's program to `url`.
    pub async fn push(&self, url: &str) -> Result<(), Error> {
        let target =
            json!({"app": "live", "stream": SOURCES[0].name, "feed": "program", "url": url});
        let answer = self.api.put("/api/v1/pushes/cdn", &target).await?;
        match answer.is_success() {
            true => Ok(()),
            false => Err(Error::Wrong(format!("no push: {}", answer.body))),
        }
    }

    /// Mixes the first `count` sources in place of the main, the subs in `places`.
    pub async fn mix(&self, count: usize, places: &[Region]) -> Result<(), Error> {
        let mut output = json!({
            "stream": SOURCES[0].name, "fps": SOURCES[0].fps, "gop": GOP_SECONDS,
            "video_kbps": KBPS, "audio_kbps": AUDIO_KBPS,
        });
        if count == 1 {
            // What asks for nothing of its own passes.
            output = json!({"stream": SOURCES[0].name});
        }
        self.put("m", count, places, output).await
    }

    /// Mixes all sources to a name of its own: a mix as above, or one of a sixth of its pixels and half its frames.
    pub async fn mix_aside(&self, name: &str, small: bool) -> Result<(), Error> {
        let mut output = aside(name);
        if !small {
            return self.put(name, SOURCES.len(), &PLACES, output).await;
        }
        for (field, value) in [
            ("width", 512),
            ("height", 288),
            ("fps", 15),
            ("video_kbps", 500),
        ] {
            output[field] = value.into();
        }
        self.put(name, 1, &PLACES, output).await
    }

    /// Mixes all sources to a name of its own, with a preset that takes more of a core.
    pub async fn mix_hard(&self, name: &str, preset: &str) -> Result<(), Error> {
        let mut output = aside(name);
        output["preset"] = preset.into();
        self.put(name, SOURCES.len(), &PLACES, output).await
    }

    async fn put(
        &self,
        id: &str,
        count: usize,
        places: &[Region],
        output: Value,
    ) -> Result<(), Error> {
        let inputs = SOURCES.iter().zip(places).take(count).enumerate();
        let inputs = inputs.map(|(n, (source, place))| {
            let mut input = json!({"stream": source.name, "layer": n + 1});
            if n > 0 {
                let Region {
                    x,
                    y,
                    width,
                    height,
                } = *place;
                for (name, value) in [("x", x), ("y", y), ("width", width), ("height", height)] {
                    input[name] = value.into();
                }
            }
            input
        });
        let scene =
            json!({"app": "live", "inputs": inputs.collect::<Vec<Value>>(), "output": output});
        let answer = self.api.put(&format!("/api/v1/mixes/{id}"), &scene).await?;
        match answer.is_success() {
            true => Ok(()),
            false => Err(Error::Wrong(format!("no mix: {}", answer.body))),
        }
    }

    /// What it says of its mix itself.
    pub async fn mixed(&self) -> Result<Value, Error> {
        Ok(self.api.get("/api/v1/mixes/m").await?.json())
    }
}

/// The RTMP and control addresses in the server's first word.
fn listening(line: &str) -> Option<[SocketAddr; 2]> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then_some(())?;
    let first = |key: &str| {
        let list = line[key].as_str()?;
        let list = list.strip_prefix('[').unwrap_or(list);
        let list = list.strip_suffix(']').unwrap_or(list);
        list.split(',').next()?.trim().parse().ok()
    };
    Some([first("rtmp")?, first("control")?])
}

/// ffmpeg's filter graph on the first `count` streams, to x264 at the same bitrate: as little buffering as its options
/// allow, and one thread wherever a second would only cost.
pub fn ffmpeg(server: &Server, output: &str, count: usize) -> Result<Process, Error> {
    let mut line: Vec<String> = [
        "-hide_banner",
        "-nostats",
        "-nostdin",
        "-loglevel",
        "warning",
    ]
    .map(str::to_owned)
    .to_vec();
    for source in SOURCES.iter().take(count) {
        let input = "-fflags nobuffer -flags low_delay -fpsprobesize 0 -analyzeduration 1000000 \
                     -thread_queue_size 512 -threads 1 -i";
        line.extend(input.split_whitespace().map(str::to_owned));
        line.push(server.url(source.name));
    }
    let scaled = (1..count).map(|n| {
        let Region { width, height, .. } = PLACES[n];
        format!("[{n}:v]scale={width}:{height}:flags=bilinear[s{n}]")
    });
    let laid = (1..count).map(|n| {
        let Region { x, y, .. } = PLACES[n];
        let under = if n == 1 {
            "0:v".to_owned()
        } else {
            format!("v{}", n - 1)
        };
        format!("[{under}][s{n}]overlay={x}:{y}[v{n}]")
    });
    let mut graph: Vec<String> = scaled.chain(laid).collect();
    let sounds: String = (0..count).map(|n| format!("[{n}:a]")).collect();
    graph.push(format!("{sounds}amix=inputs={count}:normalize=0[a]"));
    let picture = match count {
        1 => "0:v".to_owned(),
        _ => format!("[v{}]", count - 1),
    };
    let gop = GOP_SECONDS * SOURCES[0].fps;
    line.extend(["-filter_complex_threads".into(), "1".into()]);
    line.extend(["-filter_complex".into(), graph.join(";")]);
    let encoder = format!(
        "-map {picture} -map [a] -c:v libx264 -preset superfast -tune zerolatency -profile:v high -threads 1 \
         -b:v {KBPS}k -maxrate {KBPS}k -bufsize {BUFFER_KBIT}k -g {gop} -sc_threshold 0 \
         -c:a aac -aac_coder fast -b:a {AUDIO_KBPS}k -flush_packets 1 -flvflags no_duration_filesize -f flv"
    );
    line.extend(encoder.split_whitespace().map(str::to_owned));
    line.push(server.url(output));
    Process::spawn("ffmpeg", &line)
}

/// The output of a mix to a name of its own.
fn aside(name: &str) -> Value {
    json!({
        "stream": name, "fps": SOURCES[0].fps, "gop": GOP_SECONDS,
        "video_kbps": KBPS, "audio_kbps": AUDIO_KBPS,
    })
}

//! An ffmpeg that speaks Enhanced RTMP (`tests/requirements.txt`) at both ends: what it sends arrives byte for byte,
//! and what it plays from the middle of a stream it decodes without a complaint.

use std::path::{Path, PathBuf};
use std::time::Duration;

use linkmic::probe::flv::{self, Tag};
use linkmic::probe::process::{self, Process};

use super::super::client::Client;
use super::super::house::House;
use super::*;

/// Making a clip and playing it, for several at once on a busy machine.
const LATER: Duration = Duration::from_secs(90);
const SECONDS: &str = "5";

/// The program.
///
/// # Panics
/// When it is not installed: `./run test` does that.
pub fn ffmpeg() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/python");
    let binaries = folder.join("imageio_ffmpeg/binaries");
    let found = std::fs::read_dir(&binaries).ok().and_then(|entries| {
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("ffmpeg-"))
        })
    });
    found.unwrap_or_else(|| {
        panic!(
            "no ffmpeg in {}; ./run test installs it, or: python3 -m pip install --no-deps \
             --require-hashes --target target/test-tools/python -r tests/requirements.txt",
            binaries.display()
        )
    })
}

/// Codecs of one stream: how to make it, and what the player must call it.
struct Codecs {
    name: &'static str,
    make: &'static str,
    /// Words of the player's report, one for each stream in it.
    streams: &'static [&'static str],
}

const ENHANCED: [Codecs; 4] = [
    Codecs {
        name: "hevc-opus",
        make: "-c:v libx265 -x265-params keyint=25:open-gop=0:pools=none:log-level=error -c:a libopus",
        streams: &["Video: hevc", "Audio: opus"],
    },
    Codecs {
        name: "av1-flac",
        make: "-c:v libaom-av1 -usage realtime -cpu-used 8 -g 25 -c:a flac",
        streams: &["Video: av1", "Audio: flac"],
    },
    Codecs {
        name: "vp9-ac3",
        make: "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -c:a ac3",
        streams: &["Video: vp9", "Audio: ac3"],
    },
    Codecs {
        name: "avc-eac3",
        make: "-c:v libx264 -bf 2 -g 25 -c:a eac3",
        streams: &["Video: h264", "Audio: eac3"],
    },
];

const CLASSIC: [Codecs; 4] = [
    Codecs {
        name: "sorenson-mp3",
        make: "-c:v flv -g 25 -c:a libmp3lame -ar 44100",
        streams: &["Video: flv1", "Audio: mp3"],
    },
    Codecs {
        name: "screen-nellymoser",
        make: "-c:v flashsv -g 25 -c:a nellymoser -ar 22050 -ac 1",
        streams: &["Video: flashsv", "Audio: nellymoser"],
    },
    Codecs {
        name: "screen2-alaw",
        make: "-c:v flashsv2 -g 25 -c:a pcm_alaw -ar 8000 -ac 1",
        streams: &["Video: flashsv2", "Audio: pcm_alaw"],
    },
    Codecs {
        name: "mulaw-alone",
        make: "-vn -c:a pcm_mulaw -ar 8000 -ac 1",
        streams: &["Audio: pcm_mulaw"],
    },
];

/// The second video track has key frames of its own, elsewhere: a player that comes in the middle begins at one of the
/// main track's, and can decode the other only from that one's next.
const MULTITRACK: [Codecs; 1] = [Codecs {
    name: "two-of-each",
    make: "-map 0:v -map 0:v -map 1:a -map 1:a -c:v:0 libx264 -c:v:1 libx265 \
           -x265-params keyint=40:min-keyint=40:scenecut=0:bframes=2:pools=none:log-level=error -g 25 -c:a:0 aac -c:a:1 libopus",
    streams: &["Video: h264", "Video: hevc", "Audio: aac", "Audio: opus"],
}];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enhanced_codecs_arrive_as_sent_and_decode_from_the_middle() {
    through(&ENHANCED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_codecs_of_flash_arrive_as_sent_and_decode_from_the_middle() {
    through(&CLASSIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_tracks_arrive_as_sent_and_decode_from_the_middle() {
    through(&MULTITRACK).await;
}

/// Peers get what was recorded, byte for byte; the program that decodes is a viewer, whose GOP is squeezed.
const RECORDED_FOR_PEERS: &str = "[classes.low_latency]\njoin = \"burst\"\nmax_lag = \"3s\"";

async fn through(all: &[Codecs]) {
    let house = House::open_with("", RECORDED_FOR_PEERS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let passes = all
        .iter()
        .map(|codecs| passes(&house, folder.path(), codecs));
    futures_util::future::join_all(passes).await;
}

async fn passes(house: &House, folder: &Path, codecs: &Codecs) {
    let file = folder.join(format!("{}.flv", codecs.name));
    let sent = make(codecs, &file).await;
    let url = house.urls.plain(codecs.name);
    let exact = house.urls.peer(codecs.name);
    let mut publisher = spawn(&format!(
        "-hide_banner -loglevel error -re -i {} -map 0 -c copy -rtmp_enhanced_codecs hvc1,av01,vp09 \
         -flvflags no_duration_filesize+no_sequence_end -f flv {}",
        file.display(),
        house.urls.push(codecs.name)
    ));
    // Once the second GOP runs, a late player begins in it.
    let mut witness = Client::play(&exact).await.expect("granted");
    let mut seen = vec![witness.media().await];
    while seen.last().is_some_and(|m| m.timestamp < 1_500) {
        seen.push(witness.media().await);
    }
    let mut late = Client::play(&exact).await.expect("granted");
    let mut decoder = spawn(&format!(
        "-hide_banner -loglevel info -nostats -xerror -err_detect explode -rtmp_enhanced_codecs hvc1,av01,vp09 \
         -i {url} -map 0:v? -map 0:a? -f null -"
    ));
    seen.extend(rest(&mut witness).await);
    let joined = rest(&mut late).await;
    let name = codecs.name;
    publisher
        .success(LATER)
        .await
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    decoder
        .success(LATER)
        .await
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    // Its last line is read a moment after its end.
    let summary = || async { decoder.said().contains("speed=").then_some(()) };
    process::poll("the decoder's summary", SOON, summary)
        .await
        .unwrap_or_else(|e| panic!("{name}: {e}: {}", decoder.said()));
    let said = decoder.said();
    // In the input's report and not in the output's, where everything is raw.
    let input: Vec<_> = said
        .lines()
        .take_while(|line| !line.starts_with("Output"))
        .collect();
    for stream in codecs.streams {
        let told = input
            .iter()
            .any(|line| line.contains("Stream #0:") && line.contains(stream));
        assert!(told, "{name}: {stream} in\n{said}");
    }
    let error = said
        .lines()
        .find(|line| line.to_lowercase().contains("error"));
    assert_eq!(error, None, "{name}: {said}");
    assert!(
        frames_decoded(&said) >= 5 || name == "mulaw-alone",
        "{name}: {said}"
    );

    // Both came in the middle; what they saw of each track has no gap and no changed byte. (Between the tracks the
    // publisher itself sends in another order than the file has.)
    for track in [
        (kind::AUDIO, 0),
        (kind::AUDIO, 1),
        (kind::VIDEO, 0),
        (kind::VIDEO, 1),
    ] {
        let sent = of_track(track, sent.iter().map(|tag| (tag.kind, &tag.body[..])));
        for (who, got) in [("the witness", &seen), ("the late player", &joined)] {
            let who = format!("{name}: {who}, {track:?}");
            let got = of_track(track, got.iter().map(|m| (m.type_id, &m.payload[..])));
            let headers = got.iter().take_while(|body| is_sequence(body)).count();
            let (first, media) = got.split_at(headers);
            // Its colours a publisher of VP9 writes anew. That configurations pass untouched is shown in `wire`.
            let alike = |a: &[u8], b: &[u8]| a.len() == b.len() && a[..5] == b[..5];
            let is_sent = |body: &&[u8]| sent.iter().any(|sent| alike(sent, body));
            assert!(first.iter().all(is_sent), "{who}: as sent");
            let has_header = sent.iter().any(|body| is_sequence(body));
            assert_eq!(
                first.len(),
                usize::from(has_header),
                "{who}: the header first"
            );
            let frames = |bodies: &[&[u8]]| -> Vec<Vec<u8>> {
                // With a FLAC header this ffmpeg sends a frame with nothing in it.
                let frames = bodies.iter().filter(|body| !is_header(body));
                let frames = frames.filter(|body| body[..] != b"\x91fLaC"[..]);
                frames.map(|body| body.to_vec()).collect()
            };
            assert!(frames(&sent).ends_with(&frames(media)), "{who}: a gap");
            assert!(media.len() >= sent.len() / 4, "{who}: {}", media.len());
        }
    }
    assert!(
        joined.len() < seen.len(),
        "{name}: the late player came later"
    );
}

/// The bodies of one track: its kind and its number. Metadata (colours, channels) is left out, because the publisher
/// writes it anew.
fn of_track<'a>(track: (u8, u8), all: impl Iterator<Item = (u8, &'a [u8])>) -> Vec<&'a [u8]> {
    let number = |kind: u8, body: &[u8]| match body {
        [0x95, _, _, _, _, _, number, ..] if kind == kind::AUDIO => *number,
        [0x96 | 0xa6, _, _, _, _, _, number, ..] if kind == kind::VIDEO => *number,
        _ => 0,
    };
    all.filter(|(kind, body)| (*kind, number(*kind, body)) == track)
        .map(|(_, body)| body)
        .filter(|body| is_sequence(body) || !is_header(body))
        .collect()
}

/// Whether an FLV body is a configuration, in the classic form or the enhanced one.
fn is_header(body: &[u8]) -> bool {
    let multitrack = body.len() > 1 && matches!(body[0], 0x95 | 0x96);
    match body[0] {
        0x17 | 0xaf => body[1] == 0,
        _ if multitrack => matches!(body[1] & 0x0f, 0 | 4),
        0x90 | 0x94 | 0xd4 => true,
        _ => false,
    }
}

/// Whether it is a decoder configuration.
fn is_sequence(body: &[u8]) -> bool {
    let multitrack = matches!(body[0], 0x95 | 0x96);
    is_header(body) && (multitrack && body[1] & 0x0f == 0 || matches!(body[0], 0x17 | 0xaf | 0x90))
}

/// Media up to the end of the stream.
async fn rest(client: &mut Client) -> Vec<Message> {
    use linkmic::rtmp::session::client::Event;
    let mut all = Vec::new();
    while let Some(Event::Media(message)) = client.event().await {
        all.push(message);
    }
    all
}

/// Makes a clip; returns its tags.
async fn make(codecs: &Codecs, file: &Path) -> Vec<Tag> {
    let text = format!(
        "-hide_banner -loglevel error -y -f lavfi -i testsrc2=size=160x120:rate=25 \
         -f lavfi -i sine=frequency=440:sample_rate=48000 -t {SECONDS} -pix_fmt yuv420p -preset ultrafast \
         {} -flvflags no_duration_filesize+no_sequence_end -f flv {}",
        codecs.make,
        file.display()
    );
    let arguments: Vec<&str> = text.split_whitespace().collect();
    let program = ffmpeg().display().to_string();
    let made = process::output(&program, &arguments, LATER).await;
    made.unwrap_or_else(|e| panic!("{}: {e}", codecs.name));
    flv::tags(&std::fs::read(file).expect("the clip")).expect("FLV")
}

fn spawn(text: &str) -> Process {
    let arguments: Vec<&str> = text.split_whitespace().collect();
    let program = ffmpeg().display().to_string();
    let mut process = Process::spawn(&program, &arguments).unwrap_or_else(|e| panic!("{e}"));
    // An open pipe would let ffmpeg look for keys on it.
    drop(process.stdin());
    process
}

/// How many pictures the decoder says that it had.
fn frames_decoded(said: &str) -> u32 {
    let counts = said.split("frame=").skip(1);
    let counts = counts.filter_map(|rest| rest.split_whitespace().next()?.parse().ok());
    counts.max().unwrap_or(0)
}

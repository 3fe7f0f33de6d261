//! The clients of the field, started the way people start them.

use std::path::Path;

use linkmic::probe::flv::{self, Tag};
use linkmic::probe::process::{self, Process};

use super::SOON;

/// Programs that publish a file in real time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    Ffmpeg,
    /// GStreamer's own RTMP.
    Rtmp2Sink,
    /// librtmp, inside GStreamer's older element: the only publisher over librtmp that Debian has.
    Librtmp,
}

impl Publisher {
    /// # Panics
    /// When the program is not installed; the message names the package.
    pub fn start(self, file: &Path, url: &str) -> Process {
        let file = file.display();
        let sink = match self {
            Publisher::Ffmpeg => {
                return spawn(
                    "ffmpeg",
                    &[
                        "-hide_banner",
                        "-nostats",
                        "-loglevel",
                        "verbose",
                        "-re",
                        "-i",
                        &file.to_string(),
                        "-c",
                        "copy",
                        "-flvflags",
                        "no_duration_filesize",
                        "-f",
                        "flv",
                        url,
                    ],
                );
            }
            Publisher::Rtmp2Sink => format!("rtmp2sink location={url}"),
            Publisher::Librtmp => format!("rtmpsink location={url}"),
        };
        let pipeline = format!(
            "filesrc location={file} ! flvdemux name=d \
             flvmux name=m streamable=true ! {sink} \
             d.video ! queue ! h264parse ! m. d.audio ! queue ! aacparse ! m."
        );
        let mut arguments = vec!["-q"];
        arguments.extend(pipeline.split_whitespace());
        spawn("gst-launch-1.0", &arguments)
    }
}

/// Programs that record what they play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Player {
    Ffmpeg,
    Rtmpdump,
    Rtmp2Src,
}

impl Player {
    pub const ALL: [Player; 3] = [Player::Ffmpeg, Player::Rtmpdump, Player::Rtmp2Src];

    /// Records into `file` until the server says that the stream has ended.
    ///
    /// # Panics
    /// As [`Publisher::start`].
    pub fn start(self, url: &str, file: &Path) -> Process {
        let file = file.display().to_string();
        match self {
            Player::Ffmpeg => spawn(
                "ffmpeg",
                &[
                    "-hide_banner",
                    "-nostats",
                    "-loglevel",
                    "verbose",
                    "-y",
                    "-i",
                    url,
                    "-c",
                    "copy",
                    "-copyts",
                    "-flvflags",
                    "no_duration_filesize",
                    "-f",
                    "flv",
                    &file,
                ],
            ),
            Player::Rtmpdump => spawn(
                "rtmpdump",
                &[
                    "--live",
                    "--verbose",
                    "--timeout",
                    "30",
                    "--rtmp",
                    url,
                    "--flv",
                    &file,
                ],
            ),
            Player::Rtmp2Src => spawn(
                "gst-launch-1.0",
                &[
                    "-q",
                    "rtmp2src",
                    &format!("location={url}"),
                    "!",
                    "filesink",
                    &format!("location={file}"),
                ],
            ),
        }
    }
}

fn spawn(program: &str, arguments: &[&str]) -> Process {
    let mut process = Process::spawn(program, arguments).unwrap_or_else(|e| panic!("{e}"));
    // An open pipe would let ffmpeg look for keys on it.
    drop(process.stdin());
    process
}

/// What was recorded.
pub fn recorded(file: &Path) -> Vec<Tag> {
    let bytes = std::fs::read(file).expect("the recording");
    flv::tags(&bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Decodes all of a file and fails at the first thing ffmpeg calls an error: damage, or pictures and sound whose
/// presentation times do not rise.
pub async fn decode(file: &Path) {
    let file = file.display().to_string();
    // In milliseconds, as FLV counts: by frames, a burst 1 ms apart would all be one frame.
    let text = "-hide_banner -loglevel error -xerror -err_detect explode -copyts -i FILE \
                -fps_mode passthrough -enc_time_base 1:1000 -f null -";
    let arguments: Vec<&str> = text
        .split_whitespace()
        .map(|word| if word == "FILE" { file.as_str() } else { word })
        .collect();
    let mut ffmpeg = spawn("ffmpeg", &arguments);
    ffmpeg
        .success(SOON)
        .await
        .unwrap_or_else(|e| panic!("{file} does not decode: {e}"));
    assert_eq!(ffmpeg.said(), "", "{file} decodes with complaints");
}

/// Whether `program` is known to this machine's ffmpeg under `-protocols`: checked so that a skipped client is a
/// decision and not an oversight.
pub async fn ffmpeg_has_librtmp() -> bool {
    let out = process::output("ffmpeg", &["-v", "error", "-protocols"], SOON).await;
    String::from_utf8_lossy(&out.expect("ffmpeg runs"))
        .lines()
        .any(|line| line.trim() == "librtmp")
}

//! A real ffmpeg, or GStreamer, that plays and decodes; every picture is read and stamped with its time of arrival.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::picture::{self, Colour, Reading, Region, Size};
use super::process::{Log, Process};
use super::publisher::{Publisher, SAMPLE_RATE};
use super::{Error, tone};

/// How to play.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The size of the pictures; others are scaled to it.
    pub size: Size,
    /// The regions of the picture to read; see [`picture::read`].
    pub regions: Vec<Region>,
}

impl Watch {
    /// Reads one picture that fills the frame.
    pub fn whole(size: Size) -> Self {
        Self {
            size,
            regions: vec![size.whole()],
        }
    }
}

/// One decoded picture.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// When its last byte came out of the decoder.
    pub at: Instant,
    /// The stream's own presentation time, in ms; it may come a moment after the picture itself.
    pub pts: Option<i64>,
    /// In the order of [`Watch::regions`].
    pub readings: Vec<Reading>,
}

/// What a player has seen and heard so far. Old pictures are forgotten, see [`Seen::KEPT`].
#[derive(Debug, Default)]
pub struct Seen {
    /// Pictures decoded since the beginning, the forgotten ones included.
    pub total: usize,
    /// The newest pictures, oldest first.
    pub sightings: VecDeque<Sighting>,
    /// The newest picture itself, I420.
    pub picture: Vec<u8>,
    /// The newest sound, mono, at [`SAMPLE_RATE`].
    pub sound: VecDeque<i16>,
    /// What ffmpeg called an error; of a live stream, since the first picture.
    pub errors: Vec<String>,
    /// Errors before the first picture are not the stream's: see [`Input::Live`].
    starts_anywhere: bool,
    /// Presentation times that ffmpeg has announced and whose pictures are not out yet.
    announced: VecDeque<i64>,
    /// Pictures since the beginning that have been given their time.
    timed: usize,
    /// No more pictures will come.
    pub is_over: bool,
}

impl Seen {
    /// Sightings that are kept: two minutes at 30 frames a second.
    pub const KEPT: usize = 3600;
    /// Seconds of sound that are kept.
    const KEPT_SOUND: usize = 2 * SAMPLE_RATE as usize;
    /// Errors that are kept; the first ones say most.
    const KEPT_ERRORS: usize = 50;

    /// The newest sighting in which every region shows a number.
    pub fn newest_complete(&self) -> Option<&Sighting> {
        self.sightings
            .iter()
            .rev()
            .find(|s| s.readings.iter().all(|r| r.counter.is_some()))
    }

    /// Whether a tone of `frequency` (Hz) stands out of the newest half second of sound.
    pub fn hears(&self, frequency: f64) -> bool {
        let half = SAMPLE_RATE as usize / 2;
        let newest: Vec<i16> = self.sound.iter().rev().take(half).copied().collect();
        newest.len() == half && tone::is_present(&newest, SAMPLE_RATE, frequency)
    }

    /// Whether region number `region` has shown `colour` with a number that only ever grew, over at least
    /// `pictures` pictures since `since`: the first and the last number. A picture whose number cannot be
    /// read is passed over; a wrong colour or a step back starts the count anew.
    pub fn advances(
        &self,
        region: usize,
        colour: Colour,
        since: Instant,
        pictures: usize,
    ) -> Option<(u16, u16)> {
        let mut run: Option<(u16, u16, usize)> = None;
        for sighting in self.sightings.iter().filter(|s| s.at >= since) {
            let reading = sighting.readings.get(region)?;
            let Some(counter) = reading.counter else {
                continue;
            };
            // Half way round the numbers is a step back.
            let ahead = |from: u16| picture::distance(from, counter) < picture::COUNTER_MODULUS / 2;
            run = match run {
                _ if reading.colour.name() != colour.name() => None,
                Some((first, last, count)) if ahead(last) => Some((first, counter, count + 1)),
                _ => Some((counter, counter, 1)),
            };
        }
        run.filter(|(first, last, count)| *count >= pictures && first != last)
            .map(|(first, last, _)| (first, last))
    }

    fn add(&mut self, sighting: Sighting, frame: &[u8]) {
        self.total += 1;
        if self.sightings.len() == Self::KEPT {
            self.sightings.pop_front();
        }
        self.sightings.push_back(sighting);
        self.picture.clear();
        self.picture.extend_from_slice(frame);
        self.give_times();
    }

    /// Announcements and pictures come in the same order, over two pipes.
    fn give_times(&mut self) {
        while self.timed < self.total {
            let Some(pts) = self.announced.pop_front() else {
                return;
            };
            let forgotten = self.total - self.sightings.len();
            if let Some(index) = self.timed.checked_sub(forgotten) {
                self.sightings[index].pts = Some(pts);
            }
            self.timed += 1;
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.sound.extend(
            bytes
                .chunks_exact(2)
                .map(|b| i16::from_le_bytes([b[0], b[1]])),
        );
        let surplus = self.sound.len().saturating_sub(Self::KEPT_SOUND);
        self.sound.drain(..surplus);
    }

    /// Reads one line of ffmpeg's log: picture times from `showinfo`, and errors.
    fn listen(&mut self, line: &str) {
        if line.contains("[Parsed_showinfo") {
            let pts = line
                .split_once(" pts:")
                .and_then(|(_, rest)| rest.split_whitespace().next())
                .and_then(|pts| pts.parse().ok());
            if let Some(pts) = pts {
                self.starts_anywhere = false;
                self.announced.push_back(pts);
                self.give_times();
            }
        } else if (line.contains("[error]") || line.contains("[fatal]"))
            && self.errors.len() < Self::KEPT_ERRORS
            && !self.starts_anywhere
        {
            self.errors.push(line.to_owned());
        }
    }
}

/// A program that plays until it is dropped.
#[derive(Debug)]
pub struct Player {
    process: Process,
    seen: Log<Seen>,
    size: Size,
    readers: Vec<JoinHandle<()>>,
}

impl Player {
    /// Starts to play `input`, an RTMP URL or a file, as fast as it comes.
    ///
    /// # Errors
    /// [`Error::Missing`] without ffmpeg.
    pub async fn start(input: &str, watch: Watch) -> Result<Self, Error> {
        Self::open(input, Input::Live, watch).await
    }

    async fn open(input: &str, kind: Input, watch: Watch) -> Result<Self, Error> {
        let sound = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|e| Error::io("a port for the sound", e))?;
        let sound_port = sound
            .local_addr()
            .map_err(|e| Error::io("a port for the sound", e))?
            .port();
        let seen = Log::new(Seen {
            starts_anywhere: kind == Input::Live,
            ..Seen::default()
        });
        let listener = seen.clone();
        let arguments = arguments(input, kind, watch.size, sound_port);
        let mut process = Process::spawn_listening("ffmpeg", &arguments, move |line| {
            listener.change(|seen| seen.listen(line));
        })?;
        drop(process.stdin());
        let pictures = process.stdout().ok_or_else(|| {
            Error::io(
                "standard output of ffmpeg",
                std::io::ErrorKind::BrokenPipe.into(),
            )
        })?;
        let size = watch.size;
        let readers = vec![
            tokio::spawn(look(pictures, watch, seen.clone())),
            tokio::spawn(hear(sound, seen.clone())),
        ];
        Ok(Self {
            process,
            seen,
            size,
            readers,
        })
    }

    /// Starts GStreamer's RTMP client on `url` in place of an ffmpeg. It decodes the sound and keeps none of it; pictures
    /// have no times, and must have the size that is watched.
    ///
    /// # Errors
    /// [`Error::Missing`] without gst-launch-1.0.
    pub fn start_gstreamer(url: &str, watch: Watch) -> Result<Self, Error> {
        let seen = Log::new(Seen::default());
        let listener = seen.clone();
        let location = format!("location={url}");
        let pipeline = "! flvdemux name=d \
            d.video ! queue ! h264parse ! avdec_h264 max-threads=1 ! videoconvert ! video/x-raw,format=I420 ! fdsink fd=1 sync=false \
            d.audio ! queue ! aacparse ! avdec_aac ! fakesink sync=false";
        let arguments: Vec<&str> = ["-q", "rtmp2src", &location]
            .into_iter()
            .chain(pipeline.split_whitespace())
            .collect();
        let mut process = Process::spawn_listening("gst-launch-1.0", &arguments, move |line| {
            if line.starts_with("ERROR") || line.starts_with("WARNING") {
                listener.change(|seen| seen.errors.push(line.to_owned()));
            }
        })?;
        drop(process.stdin());
        let pictures = process.stdout().ok_or_else(|| {
            Error::io(
                "standard output of gst-launch-1.0",
                std::io::ErrorKind::BrokenPipe.into(),
            )
        })?;
        Ok(Self {
            process,
            size: watch.size,
            readers: vec![tokio::spawn(look(pictures, watch, seen.clone()))],
            seen,
        })
    }

    /// Decodes all of `input`, a file, from its first byte.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it has not ended after `within`.
    pub async fn decode(input: &str, watch: Watch, within: Duration) -> Result<Seen, Error> {
        let mut player = Self::open(input, Input::Recorded, watch).await?;
        player.process.end(within).await?;
        player
            .until("the last picture", within, |seen| {
                seen.is_over.then_some(())
            })
            .await?;
        Ok(player.seen.change(std::mem::take))
    }

    /// Looks at what was seen, now and after every picture, until `judge` gives something.
    ///
    /// # Errors
    /// [`Error::Deadline`] with what ffmpeg said last; [`Error::Ended`] when nothing more will come.
    pub async fn until<R>(
        &mut self,
        what: &str,
        within: Duration,
        mut judge: impl FnMut(&Seen) -> Option<R>,
    ) -> Result<R, Error> {
        let verdict = self
            .seen
            .until(what, within, |seen| match judge(seen) {
                None if seen.is_over => Some(None),
                result => result.map(Some),
            })
            .await;
        match verdict {
            Ok(Some(result)) => Ok(result),
            Ok(None) => Err(Error::Ended {
                program: format!("the player, before {what}"),
                status: self
                    .process
                    .ended()
                    .map_or_else(String::new, |s| s.to_string()),
                said: self.last_words(),
            }),
            Err(_) => Err(Error::Deadline {
                what: format!("{what} (the player last said: {})", self.last_words()),
                within,
            }),
        }
    }

    /// What was seen so far.
    pub fn look<R>(&self, look: impl FnOnce(&Seen) -> R) -> R {
        look(&self.seen.lock())
    }

    /// Whether it still plays.
    pub fn is_playing(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// The size of the pictures that it reads.
    pub fn size(&self) -> Size {
        self.size
    }

    /// From a frame's way into `publisher`'s encoder to its way out of our decoder, for every kept
    /// sighting since `since` that shows it in region number `region`. A picture that is seen again
    /// (held, or at a higher frame rate) counts once, when it came first.
    pub fn latencies(
        &self,
        publisher: &Publisher,
        region: usize,
        since: Instant,
    ) -> super::latency::Latencies {
        let seen = self.seen.lock();
        let mut last = None;
        seen.sightings
            .iter()
            .filter(|s| s.at >= since)
            .filter_map(|s| {
                let counter = s.readings.get(region)?.counter?;
                (last.replace(counter) != Some(counter)).then_some(())?;
                s.at.checked_duration_since(publisher.fed_at(counter)?)
            })
            .collect()
    }

    /// The last lines of ffmpeg's log that are not about single pictures.
    fn last_words(&self) -> String {
        let errors = self.seen.lock().errors.join("\n");
        if errors.is_empty() {
            let said = self.process.said();
            let lines: Vec<&str> = said
                .lines()
                .filter(|line| !line.contains("Parsed_showinfo"))
                .collect();
            return lines.join("\n");
        }
        errors
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

async fn look(mut pictures: impl AsyncRead + Unpin, watch: Watch, seen: Log<Seen>) {
    let mut frame = vec![0; watch.size.frame_bytes()];
    while pictures.read_exact(&mut frame).await.is_ok() {
        let at = Instant::now();
        let readings = watch
            .regions
            .iter()
            .map(|region| picture::read(&frame, watch.size, *region))
            .collect();
        seen.change(|seen| {
            seen.add(
                Sighting {
                    at,
                    pts: None,
                    readings,
                },
                &frame,
            );
        });
    }
    seen.change(|seen| seen.is_over = true);
}

async fn hear(listener: TcpListener, seen: Log<Seen>) {
    let Ok((mut sound, _)) = listener.accept().await else {
        return;
    };
    let mut chunk = vec![0; 4096];
    let mut filled = 0;
    while let Ok(read) = sound.read(&mut chunk[filled..]).await {
        if read == 0 {
            return;
        }
        let whole = (filled + read) & !1;
        seen.change(|seen| seen.hear(&chunk[..whole]));
        chunk.copy_within(whole..filled + read, 0);
        filled = filled + read - whole;
    }
}

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// A stream: what ffmpeg has read to find its tracks is thrown away, or it would be shown late for ever. So the
    /// first packet that is decoded may need a key frame that ffmpeg had and dropped.
    Live,
    /// A file, decoded whole.
    Recorded,
}

fn arguments(input: &str, kind: Input, size: Size, sound_port: u16) -> Vec<String> {
    // One thread per codec: even the encoder of raw video works on frames in parallel, and holds one back
    // per thread. No decoder delay. Probing stops when both tracks are known (a server may begin between two key
    // frames, so it may take a GOP): the frame rate is not measured, and the often advised `-probesize 32` is not
    // used, because it loses the video track of a stream that begins with audio.
    let mut all: Vec<String> =
        "-hide_banner -nostats -nostdin -loglevel level+info -copyts -fpsprobesize 0 -analyzeduration 3000000 -flags low_delay -threads 1"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    if kind == Input::Live {
        all.extend(["-fflags", "nobuffer"].map(str::to_owned));
    }
    all.extend(["-i", input].map(str::to_owned));
    let outputs = format!(
        "-map 0:v -vf showinfo=checksum=0 -fps_mode passthrough -enc_time_base 1:1000 -s {}x{} -pix_fmt yuv420p -threads 1 -flush_packets 1 -f rawvideo pipe:1 \
         -map 0:a? -ac 1 -ar {SAMPLE_RATE} -flush_packets 1 -f s16le tcp://127.0.0.1:{sound_port}",
        size.width, size.height
    );
    all.extend(outputs.split_whitespace().map(str::to_owned));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting() -> Sighting {
        Sighting {
            at: Instant::now(),
            pts: None,
            readings: Vec::new(),
        }
    }

    #[test]
    fn pictures_get_their_times_whichever_pipe_is_faster() {
        let line = |pts: i64| {
            format!("[Parsed_showinfo_0 @ 0x5] [info] n:   0 pts:   {pts} pts_time:0.05 pos: 1")
        };
        let mut seen = Seen::default();
        seen.listen(&line(50));
        seen.listen(&line(100));
        seen.add(sighting(), b"");
        seen.add(sighting(), b"");
        seen.add(sighting(), b"");
        seen.listen(&line(150));
        let times: Vec<_> = seen.sightings.iter().map(|s| s.pts).collect();
        assert_eq!(times, [Some(50), Some(100), Some(150)]);
    }

    #[test]
    fn times_of_forgotten_pictures_go_nowhere() {
        let mut seen = Seen::default();
        for _ in 0..Seen::KEPT + 1 {
            seen.add(sighting(), b"");
        }
        for pts in 0..3 {
            seen.announced.push_back(pts);
        }
        seen.give_times();
        assert_eq!(seen.sightings[0].pts, Some(1));
        assert_eq!(seen.sightings[1].pts, Some(2));
    }

    #[test]
    fn a_region_advances_when_its_number_grows_under_its_colour() {
        let began = Instant::now();
        let seen = |shown: &[(Colour, Option<u16>)]| {
            let mut seen = Seen::default();
            for (colour, counter) in shown {
                let readings = vec![Reading {
                    colour: *colour,
                    counter: *counter,
                }];
                seen.add(
                    Sighting {
                        readings,
                        ..sighting()
                    },
                    b"",
                );
            }
            seen.advances(0, Colour::RED, began, 3)
        };
        let red = |counter| (Colour::RED, Some(counter));
        assert_eq!(seen(&[red(1), red(2), red(2), red(4)]), Some((1, 4)));
        assert_eq!(seen(&[red(4094), red(4095), red(0)]), Some((4094, 0)));
        assert_eq!(
            seen(&[red(1), (Colour::RED, None), red(2), red(3)]),
            Some((1, 3))
        );
        assert_eq!(seen(&[red(7), red(7), red(7)]), None, "frozen");
        assert_eq!(seen(&[red(8), red(7), red(8)]), None, "a step back");
        assert_eq!(
            seen(&[red(1), (Colour::BLUE, Some(2)), red(3)]),
            None,
            "another colour"
        );
        assert_eq!(seen(&[red(1), red(2)]), None, "too few");
    }

    #[test]
    fn errors_are_told_from_information() {
        let mut seen = Seen::default();
        seen.listen("[h264 @ 0x5] [error] no frame!");
        seen.listen("[info] Stream mapping:");
        assert_eq!(seen.errors, ["[h264 @ 0x5] [error] no frame!"]);
    }

    #[test]
    fn errors_of_a_live_stream_count_from_its_first_picture() {
        let mut seen = Seen {
            starts_anywhere: true,
            ..Seen::default()
        };
        seen.listen("[h264 @ 0x5] [error] Missing reference picture");
        seen.listen("[Parsed_showinfo_0 @ 0x5] [info] n:   0 pts:   50 pts_time:0.05 pos: 1");
        seen.listen("[h264 @ 0x5] [error] no frame!");
        assert_eq!(seen.errors, ["[h264 @ 0x5] [error] no frame!"]);
    }
}

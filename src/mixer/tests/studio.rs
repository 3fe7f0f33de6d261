//! Real publishers and a real viewer for the mixer's tests: encoders with known colours, counters and tones on one
//! side, decoders on the other, the relay between them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_video as video;

use crate::media::{Feed, Kind, MediaTime, Message, Slot, StreamKey};
use crate::mixer::decode::{child, launch, stop};
use crate::mixer::format;
use crate::relay::{Join, Origin, Publisher, Relay};

/// Polls until `holds`, generously: the machine may be busy with anything.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn key(stream: &str) -> StreamKey {
    StreamKey::new("live", stream).expect("a valid name")
}

/// What a publisher sends.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub fps: u32,
    /// 0xRRGGBB, filling all but the counter.
    pub colour: u32,
    /// Of the bottom right quarter, where that is another.
    pub corner: Option<u32>,
    pub hz: u32,
    pub rate: u32,
}

/// How an anchor's pictures are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coder {
    H264,
    Hevc,
    Av1,
}

impl Coder {
    fn encoder(self, fps: u32) -> String {
        match self {
            Coder::H264 => format!(
                "x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate=800 key-int-max={fps} bframes=0 \
                 ! video/x-h264,stream-format=avc,alignment=au,profile=baseline"
            ),
            Coder::Hevc => format!(
                "x265enc tune=zerolatency speed-preset=ultrafast bitrate=800 key-int-max={fps} \
                 option-string=bframes=0:pools=none:frame-threads=1:log-level=none \
                 ! h265parse ! video/x-h265,stream-format=hvc1,alignment=au"
            ),
            Coder::Av1 => format!(
                "av1enc usage-profile=realtime cpu-used=8 lag-in-frames=0 threads=1 target-bitrate=800 \
                 keyframe-max-dist={fps} ! av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu"
            ),
        }
    }

    fn header(self, config: &[u8]) -> Bytes {
        match self {
            Coder::H264 => format::avc_header(config),
            Coder::Hevc => [&b"\x90hvc1"[..], config].concat().into(),
            Coder::Av1 => [&b"\x90av01"[..], config].concat().into(),
        }
    }

    fn unit(self, key: bool, unit: &[u8]) -> Bytes {
        let enhanced =
            |first: u8, four_cc: &[u8]| -> Bytes { [&[first][..], four_cc, unit].concat().into() };
        match (self, key) {
            (Coder::H264, true) => format::avc_key_frame(&[], &[], unit),
            (Coder::H264, false) => format::avc_frame(&[], unit),
            (Coder::Hevc, true) => enhanced(0x93, b"hvc1"),
            (Coder::Hevc, false) => enhanced(0xa3, b"hvc1"),
            (Coder::Av1, true) => enhanced(0x91, b"av01"),
            (Coder::Av1, false) => enhanced(0xa1, b"av01"),
        }
    }
}

/// Columns of the counter that is drawn over the left half of the top quarter of each picture, one per bit.
const BITS: usize = 8;

/// A publisher with real encoders, in real time. Dropping it is a vanished connection.
pub struct Anchor {
    pipeline: gst::Pipeline,
    publisher: Option<Arc<Publisher>>,
}

impl Anchor {
    pub fn start(relay: &Relay, stream: &str, look: Look) -> Self {
        Self::coded(relay, stream, look, Coder::H264, |message| vec![message])
    }

    /// With another encoder, and on a way that may spoil each message.
    pub fn coded(
        relay: &Relay,
        stream: &str,
        look: Look,
        coder: Coder,
        way: impl FnMut(Message) -> Vec<Message> + Send + 'static,
    ) -> Self {
        let way = Arc::new(Mutex::new(way));
        let publisher = relay
            .publish(&key(stream), Origin::Mix { id: "test".into() })
            .expect("the name is free");
        let publisher = Arc::new(publisher);
        let description = format!(
            "videotestsrc is-live=true pattern=solid-color foreground-color={colour} \
             ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1,colorimetry=bt709 \
             ! identity name=counter \
             ! {encoder} ! appsink name=pictures sync=false \
             audiotestsrc is-live=true wave=sine freq={hz} volume=0.2 samplesperbuffer=1024 \
             ! audio/x-raw,rate={rate},channels=1 ! audioconvert ! avenc_aac bitrate=64000 \
             ! audio/mpeg,mpegversion=4,stream-format=raw ! appsink name=sounds sync=false",
            encoder = coder.encoder(look.fps),
            colour = 0xff00_0000u32 | look.colour,
            width = look.width,
            height = look.height,
            fps = look.fps,
            hz = look.hz,
            rate = look.rate,
        );
        let pipeline = launch(&description).expect("the description is right");
        draw_counter(&pipeline, look);
        for (name, kind) in [("pictures", Kind::Video), ("sounds", Kind::Audio)] {
            let sink: app::AppSink = child(&pipeline, name).expect("it is there");
            let to = Arc::downgrade(&publisher);
            let mut header_sent = false;
            let way = way.clone();
            let send = move |sink: &app::AppSink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let (Some(to), Some(buffer)) = (to.upgrade(), sample.buffer()) else {
                    return Ok(gst::FlowSuccess::Ok);
                };
                let segment = sample
                    .segment()
                    .unwrap()
                    .downcast_ref::<gst::ClockTime>()
                    .unwrap();
                let time = segment.to_running_time(buffer.pts().unwrap()).unwrap();
                let dts = MediaTime(time.mseconds() as i64);
                if !std::mem::replace(&mut header_sent, true) {
                    let caps = sample.caps().unwrap().structure(0).unwrap();
                    // AV1 has all in band; its record says main profile, 4:2:0.
                    let config = match caps.get::<gst::Buffer>("codec_data") {
                        Ok(config) => config.map_readable().unwrap().to_vec(),
                        Err(_) => vec![0x81, 0, 0x0c, 0],
                    };
                    let payload = match kind {
                        Kind::Video => coder.header(&config),
                        _ => format::aac_header(&config),
                    };
                    for message in (way.lock().unwrap())(Message::new(kind, dts, payload)) {
                        to.publish(message, Instant::now());
                    }
                }
                let unit = buffer.map_readable().unwrap();
                let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                let payload = match kind {
                    Kind::Video => coder.unit(key, &unit),
                    _ => format::aac_frame(&unit),
                };
                for message in (way.lock().unwrap())(Message::new(kind, dts, payload)) {
                    to.publish(message, Instant::now());
                }
                Ok(gst::FlowSuccess::Ok)
            };
            sink.set_callbacks(app::AppSinkCallbacks::builder().new_sample(send).build());
        }
        pipeline.set_state(gst::State::Playing).expect("it plays");
        Self {
            pipeline,
            publisher: Some(publisher),
        }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        stop(&self.pipeline);
        let publisher = self.publisher.take().and_then(Arc::into_inner);
        publisher
            .expect("callbacks hold it weakly")
            .vanish(crate::reason::Reason::Disconnected);
    }
}

fn draw_counter(pipeline: &gst::Pipeline, look: Look) {
    let identity: gst::Element = child(pipeline, "counter").expect("it is there");
    let pad = identity.static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let caps = pad.current_caps().unwrap();
        let layout = video::VideoInfo::from_caps(&caps).unwrap();
        let buffer = info.buffer_mut().unwrap().make_mut();
        // From its time, so that counters of one publisher stay comparable however late it draws.
        let count = buffer.pts().unwrap().nseconds() * u64::from(look.fps) + 500_000_000;
        let count = (count / 1_000_000_000) as usize;
        let (width, height) = (layout.width() as usize, layout.height() as usize);
        let stride = layout.stride()[0] as usize;
        let mut map = buffer.map_writable().unwrap();
        for row in 0..height / 4 {
            for x in 0..width / 2 {
                let bit = (count >> (2 * x * BITS / width)) & 1;
                map[row * stride + x] = if bit == 1 { 235 } else { 16 };
            }
        }
        for (plane, value) in look
            .corner
            .iter()
            .flat_map(|&c| yuv(c).into_iter().enumerate())
        {
            let shift = usize::from(plane > 0);
            let (width, height) = (width >> shift, height >> shift);
            let (offset, stride) = (layout.offset()[plane], layout.stride()[plane] as usize);
            for row in height / 2..height {
                let row = offset + row * stride;
                map[row + width / 2..row + width].fill(value.round() as u8);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// A message as a viewer got it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub message: Message,
    pub at: Instant,
}

/// The SPS that x264 makes for pictures of that size, profile and pixel aspect.
pub fn encoder_sets(width: u32, height: u32, profile: &str, aspect: &str) -> Vec<u8> {
    let record = encoder_record(width, height, profile, aspect);
    format::parameter_set(&record).expect("a set").to_vec()
}

/// The decoder configuration record that x264 makes for the same.
pub fn encoder_record(width: u32, height: u32, profile: &str, aspect: &str) -> Vec<u8> {
    gst::init().expect("GStreamer is installed");
    let pipeline = launch(&format!(
        "videotestsrc num-buffers=1 ! video/x-raw,format=I420,width={width},height={height},framerate=20/1,\
           pixel-aspect-ratio={aspect} \
         ! x264enc tune=zerolatency speed-preset=ultrafast \
         ! video/x-h264,stream-format=avc,alignment=au,profile={profile} ! appsink name=sets sync=false"
    ))
    .expect("the description is right");
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let sink: app::AppSink = child(&pipeline, "sets").expect("it is there");
    let sample = sink.pull_sample().expect("a picture");
    let caps = sample.caps().unwrap().structure(0).unwrap();
    let record = caps.get::<gst::Buffer>("codec_data").unwrap();
    let record = record.map_readable().unwrap().to_vec();
    stop(&pipeline);
    record
}

/// A viewer of the program feed that keeps all it gets.
pub struct Viewer {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::AbortHandle,
}

impl Viewer {
    pub fn attach(relay: &Relay, stream: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (to, mut subscriber) = (seen.clone(), relay.watch(&key(stream), Feed::Program));
        let task = tokio::spawn(async move {
            subscriber.join(Join::Burst);
            let mut items = Vec::new();
            loop {
                subscriber.read(64, &mut items).await;
                let at = Instant::now();
                let mut seen = to.lock().unwrap();
                for item in items.drain(..) {
                    if let Some(headers) = item.headers().filter(|_| seen.is_empty()) {
                        seen.extend(headers.iter().map(|h| Seen {
                            message: (**h).clone(),
                            at,
                        }));
                    }
                    seen.push(Seen {
                        message: item.message().clone(),
                        at,
                    });
                }
            }
        });
        Self {
            seen,
            task: task.abort_handle(),
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Time of the newest message.
    pub fn now_ms(&self) -> i64 {
        self.seen
            .lock()
            .unwrap()
            .last()
            .map_or(0, |s| s.message.dts.0)
    }

    /// Lets that much media time pass.
    pub async fn watch_for(&self, ms: i64) {
        let until = self.now_ms() + ms;
        eventually("media time passes", || self.now_ms() >= until).await;
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Waits for that many more messages and gives all from now on.
    pub async fn next(&self, messages: usize) -> Vec<Seen> {
        let from = self.count();
        eventually("more messages", || self.count() >= from + messages).await;
        self.seen().split_off(from)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Is it a decoder's header?
pub fn is_sequence(message: &Message) -> bool {
    matches!(message.role, crate::media::Role::Header(h) if h.slot == Slot::Sequence)
}

/// 0xRRGGBB in BT.709, limited range.
fn yuv(rgb: u32) -> [f64; 3] {
    let [r, g, b] = [16, 8, 0].map(|shift| f64::from(rgb >> shift & 0xff) / 255.0);
    let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    [
        16.0 + 219.0 * luma,
        128.0 + 224.0 * (b - luma) / 1.8556,
        128.0 + 224.0 * (r - luma) / 1.5748,
    ]
}

/// A decoded picture.
pub struct Frame {
    pub pts_ms: i64,
    pub width: u32,
    pub height: u32,
    buffer: gst::Buffer,
    info: video::VideoInfo,
}

impl Frame {
    /// Y, U and V at that pixel.
    pub fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let map = self.buffer.map_readable().unwrap();
        [0, 1, 2].map(|plane| {
            let shift = u32::from(plane > 0);
            let row = (y >> shift) as usize * self.info.stride()[plane] as usize;
            map[self.info.offset()[plane] + row + (x >> shift) as usize]
        })
    }

    /// Is the colour at that pixel about 0xRRGGBB (BT.709, limited range)?
    pub fn is_colour(&self, x: u32, y: u32, rgb: u32) -> bool {
        let wanted = yuv(rgb);
        let got = self.at(x, y);
        wanted
            .iter()
            .zip(got)
            .all(|(w, g)| (w - f64::from(g)).abs() < 12.0)
    }

    /// The counter in the picture that fills that box.
    pub fn counter(&self, x: u32, y: u32, width: u32, height: u32) -> usize {
        (0..BITS)
            .map(|bit| {
                let column = x + width * (2 * bit as u32 + 1) / (4 * BITS as u32);
                usize::from(self.at(column, y + height / 8)[0] > 126) << bit
            })
            .sum()
    }
}

/// What a viewer's decoders made of some messages.
pub struct Film {
    pub frames: Vec<Frame>,
    /// Mono at 48 kHz.
    pub sound: Vec<f32>,
    /// Time of the first sample.
    pub sound_from_ms: i64,
}

impl Film {
    /// The part between two times.
    pub fn between(&self, from_ms: i64, to_ms: i64) -> (Vec<&Frame>, &[f32]) {
        let inside = |f: &&Frame| (from_ms..to_ms).contains(&f.pts_ms);
        let sample = |ms: i64| {
            let at = (ms - self.sound_from_ms).max(0) as usize * 48;
            at.min(self.sound.len())
        };
        let sound = &self.sound[sample(from_ms)..sample(to_ms)];
        (self.frames.iter().filter(inside).collect(), sound)
    }
}

/// Decodes messages from their first headers and key frame on.
pub fn decode(seen: &[Seen]) -> Film {
    let pipeline = launch(
        "appsrc name=video format=time max-bytes=0 ! avdec_h264 ! videoconvert ! video/x-raw,format=I420 \
         ! appsink name=pictures sync=false \
         appsrc name=audio format=time max-bytes=0 ! avdec_aac ! audioconvert ! audioresample \
         ! audio/x-raw,format=F32LE,layout=interleaved,channels=1,rate=48000 ! appsink name=sounds sync=false",
    )
    .expect("the description is right");
    let sources = [Kind::Audio, Kind::Video].map(|kind| {
        let name = if kind == Kind::Audio {
            "audio"
        } else {
            "video"
        };
        child::<app::AppSrc>(&pipeline, name).expect("it is there")
    });
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let mut begun = [false; 2];
    let mut sound_from_ms = None;
    for message in seen
        .iter()
        .map(|s| &s.message)
        .filter(|m| m.kind != Kind::Data)
    {
        let source = &sources[message.kind.index()];
        let body = format::body(message).expect("the mixer's own formats");
        if is_sequence(message) {
            source.set_caps(Some(&caps(message.kind, body)));
            begun[message.kind.index()] = true;
        } else if begun[message.kind.index()] {
            if message.kind == Kind::Audio {
                sound_from_ms.get_or_insert(message.dts.0);
            }
            let mut buffer = gst::Buffer::from_slice(body);
            let time = gst::ClockTime::from_mseconds(message.dts.0 as u64);
            buffer.make_mut().set_pts(time);
            source.push_buffer(buffer).expect("it takes everything");
        }
    }
    for source in &sources {
        source.end_of_stream().expect("it ends");
    }
    let pictures: app::AppSink = child(&pipeline, "pictures").unwrap();
    let mut frames = Vec::new();
    while let Ok(sample) = pictures.pull_sample() {
        let info = video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let buffer = sample.buffer_owned().unwrap();
        frames.push(Frame {
            pts_ms: buffer.pts().unwrap().mseconds() as i64,
            width: info.width(),
            height: info.height(),
            buffer,
            info,
        });
    }
    let sounds: app::AppSink = child(&pipeline, "sounds").unwrap();
    let mut sound = Vec::new();
    while let Ok(sample) = sounds.pull_sample() {
        let map = sample.buffer().unwrap().map_readable().unwrap();
        let (quads, _) = map.as_chunks::<4>();
        sound.extend(quads.iter().map(|&q| f32::from_le_bytes(q)));
    }
    stop(&pipeline);
    Film {
        frames,
        sound,
        sound_from_ms: sound_from_ms.unwrap_or(0),
    }
}

fn caps(kind: Kind, config: Bytes) -> gst::Caps {
    let format = format::audio_config(&config).map(|c| c.format);
    let config = gst::Buffer::from_slice(config);
    match kind {
        Kind::Video => gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("alignment", "au")
            .field("codec_data", config)
            .build(),
        _ => gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 4i32)
            .field("stream-format", "raw")
            .field("framed", true)
            .field("rate", format.unwrap().rate as i32)
            .field("channels", format.unwrap().channels as i32)
            .field("codec_data", config)
            .build(),
    }
}

/// Amplitudes of a tone in each 40 ms of mono samples at 48 kHz. A short window with soft edges, so that resampling by a
/// percent does not look like a lost tone, nor the next tone like this one.
pub fn levels(samples: &[f32], hz: u32) -> Vec<f64> {
    samples
        .chunks_exact(1_920)
        .map(|window| level(window, hz))
        .collect()
}

/// A single bin of a DFT under a Hann window.
fn level(samples: &[f32], hz: u32) -> f64 {
    use std::f64::consts::TAU;
    let (mut re, mut im, mut sum) = (0.0, 0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        let weight = 0.5 - 0.5 * (TAU * n as f64 / samples.len() as f64).cos();
        let phase = TAU * f64::from(hz) * n as f64 / 48_000.0;
        re += weight * f64::from(sample) * phase.cos();
        im += weight * f64::from(sample) * phase.sin();
        sum += weight;
    }
    2.0 * re.hypot(im) / sum
}

/// A picture of one colour, 0xAARRGGBB, as a file of that form (`png` or `jpeg`).
pub fn image(form: &str, width: u32, height: u32, argb: u32) -> Vec<u8> {
    let info = video::VideoInfo::builder(video::VideoFormat::Argb, width, height)
        .build()
        .unwrap();
    let pixels: Vec<u8> = (0..width * height)
        .flat_map(|_| argb.to_be_bytes())
        .collect();
    // JPEG is BT.601 of full range, whatever its encoder says.
    let format = if form == "png" {
        "RGBA"
    } else {
        "I420,colorimetry=1:4:0:0"
    };
    let pipeline = launch(&format!(
        "appsrc name=raw format=time ! videoconvert ! video/x-raw,format={format} ! {form}enc ! appsink name=file sync=false"
    ))
    .expect("the description is right");
    let source: app::AppSrc = child(&pipeline, "raw").expect("it is there");
    source.set_caps(Some(&info.to_caps().unwrap()));
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let mut buffer = gst::Buffer::from_mut_slice(pixels);
    buffer.make_mut().set_pts(gst::ClockTime::ZERO);
    source.push_buffer(buffer).expect("it takes it");
    source.end_of_stream().expect("it ends");
    let sink: app::AppSink = child(&pipeline, "file").expect("it is there");
    let sample = sink.pull_sample().expect("a file");
    let file = sample.buffer().unwrap().map_readable().unwrap().to_vec();
    stop(&pipeline);
    file
}

/// Threads of decoders, program pipelines and mixes in this process.
pub fn mixing_threads() -> usize {
    let ours = ["mix", "video:src", "audio:src", "sound:src", "canvas:src"];
    std::fs::read_dir("/proc/self/task")
        .expect("Linux")
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|comm| ours.contains(&comm.trim()) || comm.starts_with("appsrc"))
        .count()
}

//! Still pictures: PNG and JPEG files by id or from an address, decoded once, ready to be scaled.
//!
//! Every bound is looked at before it costs anything: the file's size before it is read, the picture's sides before it
//! is decoded. Blocking: called while a request for a mix is answered, never from a mix's thread.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_video as video;

use super::decode::{Failure, child, launch, stop};
use super::fetch;
use super::picture::{Cut, Raw, Scaler};
use super::scene::Picture;

/// Largest file: a PNG of a full canvas that hardly compresses.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Longest side: a canvas has up to 3000, and a photo of that size is cut from a larger one now and then.
const MAX_SIDE: u32 = 4_096;
/// For a picture to come from its address, and again for it to be decoded.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no picture {0:?} under [mixer.pictures] of the configuration")]
    Unknown(String),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: String },
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    #[error("more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("neither PNG nor JPEG")]
    Format,
    #[error("{width}x{height} is outside 1x1 to {MAX_SIDE}x{MAX_SIDE}")]
    Sides { width: u32, height: u32 },
    #[error("cannot be decoded: {0}")]
    Broken(String),
}

/// Where still pictures come from.
#[derive(Debug, Clone)]
pub struct Gallery {
    files: BTreeMap<String, PathBuf>,
    policy: fetch::Policy,
}

impl Gallery {
    /// `files` by their ids; `networks`: the internal ones from which pictures may be fetched.
    pub fn new(files: BTreeMap<String, PathBuf>, networks: Vec<ipnet::IpNet>) -> Self {
        let policy = fetch::Policy {
            networks,
            max_bytes: MAX_BYTES,
            time: PATIENCE,
        };
        Self { files, policy }
    }

    /// The picture, decoded.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn get(&self, picture: &Picture) -> Result<Raw, Error> {
        let bytes = match picture {
            Picture::File(id) => self.file(id)?,
            Picture::Url(address) => self.policy.get(&address.0)?,
        };
        decode(bytes)
    }

    fn file(&self, id: &str) -> Result<Vec<u8>, Error> {
        let path = self.files.get(id);
        let path = path.ok_or_else(|| Error::Unknown(id.to_owned()))?;
        let failed = |error: std::io::Error| Error::File {
            path: path.clone(),
            error: error.to_string(),
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLong);
        }
        Ok(bytes)
    }
}

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Png,
    Jpeg,
}

/// Form and sides of a picture, without decoding it.
fn measure(bytes: &[u8]) -> Option<(Form, u32, u32)> {
    // PNG (ISO/IEC 15948, 5.2 and 11.2.2): the signature, then always a chunk with the sides.
    if let Some(rest) = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n") {
        let header = rest.get(4..16)?.strip_prefix(b"IHDR")?;
        let (width, height) = header.split_first_chunk::<4>()?;
        let height = height.first_chunk::<4>()?;
        let sides = (u32::from_be_bytes(*width), u32::from_be_bytes(*height));
        return Some((Form::Png, sides.0, sides.1));
    }
    // JPEG (ITU-T T.81, annex B): marker segments up to the start of a frame.
    let mut rest = bytes.strip_prefix(b"\xff\xd8")?;
    loop {
        let (&mark, after) = rest.split_first()?;
        if mark != 0xff {
            return None;
        }
        let (&kind, after) = after.split_first()?;
        match kind {
            // Fill bytes, and markers that stand alone.
            0xff => {
                rest = rest.get(1..)?;
                continue;
            }
            0x01 | 0xd0..=0xd7 => {
                rest = after;
                continue;
            }
            // Frames of all kinds: the precision, then height and width.
            0xc0..=0xcf if !matches!(kind, 0xc4 | 0xc8 | 0xcc) => {
                let sides = after.get(3..7)?;
                let side =
                    |n: usize| Some(u16::from_be_bytes([*sides.get(n)?, *sides.get(n + 1)?]));
                return Some((Form::Jpeg, side(2)?.into(), side(0)?.into()));
            }
            _ => {}
        }
        let length = u16::from_be_bytes(*after.first_chunk::<2>()?);
        rest = after.get(usize::from(length)..)?;
    }
}

fn decode(bytes: Vec<u8>) -> Result<Raw, Error> {
    let (form, width, height) = measure(&bytes).ok_or(Error::Format)?;
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(Error::Sides { width, height });
    }
    let (caps, decoders) = match form {
        Form::Png => ("image/png", ["pngdec", "avdec_png"]),
        Form::Jpeg => ("image/jpeg", ["jpegdec", "avdec_mjpeg"]),
    };
    let decoder = decoders
        .into_iter()
        .find(|name| gst::ElementFactory::find(name).is_some())
        .ok_or_else(|| {
            let missing = decoders.join(" or ");
            Error::Broken(format!("GStreamer has no {missing} here; on Debian and Ubuntu: apt-get install gstreamer1.0-plugins-good"))
        })?;
    let raw = run(bytes, caps, decoder).map_err(Error::Broken)?;
    // Into the canvas's colours once, not each time it is scaled.
    let size = raw.seen();
    let cut = Cut { part: None, size };
    Scaler::default().scale(&raw, cut).map_err(Error::Broken)
}

fn run(bytes: Vec<u8>, caps: &str, decoder: &str) -> Result<Raw, String> {
    let pipeline = launch(&format!(
        "appsrc name=file format=time caps={caps},framerate=(fraction)1/1 ! {decoder} ! video/x-raw \
         ! appsink name=picture sync=false max-buffers=1"
    ))?;
    let failure = Arc::new(Failure::default());
    failure.watch(&pipeline);
    let picture = first_picture(&pipeline, bytes);
    stop(&pipeline);
    match (picture, failure.take()) {
        (Ok(Some(picture)), _) => Ok(picture),
        (Err(error), _) | (Ok(None), Some(error)) => Err(error),
        (Ok(None), None) => Err(format!("no picture within {} s", PATIENCE.as_secs())),
    }
}

fn first_picture(pipeline: &gst::Pipeline, bytes: Vec<u8>) -> Result<Option<Raw>, String> {
    let source: app::AppSrc = child(pipeline, "file")?;
    let sink: app::AppSink = child(pipeline, "picture")?;
    pipeline
        .set_state(gst::State::Playing)
        .map_err(|e| e.to_string())?;
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    buffer.make_mut().set_pts(gst::ClockTime::ZERO);
    source.push_buffer(buffer).map_err(|e| e.to_string())?;
    source.end_of_stream().map_err(|e| e.to_string())?;
    let patience = gst::ClockTime::from_nseconds(PATIENCE.as_nanos() as u64);
    let Some(sample) = sink.try_pull_sample(patience) else {
        return Ok(None);
    };
    let format = sample
        .caps()
        .and_then(|caps| video::VideoInfo::from_caps(caps).ok());
    Ok(sample
        .buffer_owned()
        .zip(format)
        .map(|(buffer, format)| Raw::new(buffer, Arc::new(format))))
}

#[cfg(test)]
mod tests {
    use super::super::tests::studio::image;
    use super::*;

    fn gallery(files: &[(&str, &std::path::Path)]) -> Gallery {
        let files = files
            .iter()
            .map(|(id, path)| ((*id).to_owned(), path.to_path_buf()));
        Gallery::new(files.collect(), vec![])
    }

    #[test]
    fn png_and_jpeg_are_decoded_in_the_canvas_colours() {
        gst::init().unwrap();
        for (form, tolerance) in [("png", 2), ("jpeg", 3)] {
            let raw = decode(image(form, 64, 48, 0xff_ff_00_00)).unwrap();
            assert_eq!((raw.seen().width, raw.seen().height), (64, 48));
            let middle = raw.read(|planes| {
                let at = |n: usize, x: usize, y: usize| {
                    planes.colours[n].data[y * planes.colours[n].stride + x]
                };
                [at(0, 32, 24), at(1, 16, 12), at(2, 16, 12)]
            });
            let near = |(got, wanted): (u8, u8)| got.abs_diff(wanted) <= tolerance;
            // Red in BT.709.
            let middle = middle.unwrap();
            assert!(
                middle.into_iter().zip([63, 102, 240]).all(near),
                "{form}: {middle:?}"
            );
        }
    }

    #[test]
    fn a_png_keeps_its_alpha() {
        gst::init().unwrap();
        let raw = decode(image("png", 32, 32, 0x80_00_ff_00)).unwrap();
        let alpha = raw.read(|planes| planes.alpha.map(|a| a.data[16 * a.stride + 16]));
        let alpha = alpha.unwrap().expect("it has alpha");
        assert!(alpha.abs_diff(0x80) <= 1, "{alpha}");
    }

    #[test]
    fn what_is_no_picture_is_told_so() {
        gst::init().unwrap();
        assert_eq!(decode(b"GIF89a".to_vec()).unwrap_err(), Error::Format);
        assert_eq!(decode(vec![]).unwrap_err(), Error::Format);
        let mut huge = image("png", 16, 16, 0xff_00_00_00);
        huge[16..20].copy_from_slice(&100_000u32.to_be_bytes());
        let error = decode(huge).unwrap_err();
        assert_eq!(error.to_string(), "100000x16 is outside 1x1 to 4096x4096");
        for form in ["png", "jpeg"] {
            let mut cut = image(form, 200, 200, 0xff_12_34_56);
            cut.truncate(cut.len() / 2);
            // Half a picture is an error or half a picture, never a wait or a crash.
            if let Err(error) = decode(cut) {
                assert!(matches!(error, Error::Broken(_) | Error::Format), "{error}");
            }
        }
    }

    #[test]
    fn every_beginning_of_a_file_is_measured_without_a_crash() {
        gst::init().unwrap();
        for form in ["png", "jpeg"] {
            let whole = image(form, 40, 30, 0xff_ff_ff_ff);
            for length in 0..whole.len().min(700) {
                if let Some((_, width, height)) = measure(&whole[..length]) {
                    assert_eq!((width, height), (40, 30), "{form} at {length}");
                }
            }
            assert!(measure(&whole).is_some());
        }
    }

    #[test]
    fn files_are_known_by_their_ids_alone() {
        gst::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logo.png");
        std::fs::write(&path, image("png", 20, 10, 0xff_00_00_ff)).unwrap();
        let long = dir.path().join("long.png");
        std::fs::write(&long, vec![0; MAX_BYTES + 1]).unwrap();
        let absent = dir.path().join("absent.png");
        let gallery = gallery(&[("logo", &path), ("long", &long), ("absent", &absent)]);
        let get = |id: &str| gallery.get(&Picture::File(id.into()));
        assert_eq!(get("logo").unwrap().seen().width, 20);
        assert_eq!(get("long").unwrap_err(), Error::TooLong);
        assert!(matches!(get("absent").unwrap_err(), Error::File { .. }));
        let error = get("other").unwrap_err().to_string();
        assert_eq!(
            error,
            "no picture \"other\" under [mixer.pictures] of the configuration"
        );
    }
}

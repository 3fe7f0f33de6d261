//! Uncompressed pictures: what decoders give, and the same cut and scaled for its place.
//!
//! Owns the conversion to the canvas's colours and the memory that scaled pictures live in. Knows no layouts and no
//! clocks. Called from decoders' threads through [`input`](super::input), and by [`stage`](super::stage) for what they
//! could not scale in time.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as video;
use gstreamer_video::prelude::*;

use super::canvas::{Plane, Planes};
use super::layout::{Rect, Size};
use super::recolour::Recolour;

/// A picture in memory. Cheap to clone: the pixels are shared.
#[derive(Debug, Clone)]
pub struct Raw {
    buffer: gst::Buffer,
    info: Arc<video::VideoInfo>,
}

/// What is wanted of a picture: a part of it, in the pixels in which it is meant to be seen (`None`: all), in a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub part: Option<Rect>,
    pub size: Size,
}

impl Raw {
    pub fn new(buffer: gst::Buffer, info: Arc<video::VideoInfo>) -> Self {
        Self { buffer, info }
    }

    /// Width and height with the pixels' own aspect applied to the width.
    pub fn seen(&self) -> Size {
        seen(&self.info)
    }

    /// Does it let through what is under it?
    pub fn has_alpha(&self) -> bool {
        self.info.format_info().has_alpha()
    }

    /// Are these the same pixels in memory?
    pub fn is(&self, other: &Self) -> bool {
        self.buffer.as_ptr() == other.buffer.as_ptr()
    }

    /// Calls `with` with the planes of a picture in the canvas's format; `None` when the memory cannot be read or the
    /// format is another.
    pub fn read<T>(&self, with: impl FnOnce(&Planes<'_>) -> T) -> Option<T> {
        use video::VideoFormat::{A420, I420};
        let has_alpha = match self.info.format() {
            I420 => false,
            A420 => true,
            _ => return None,
        };
        let frame =
            video::VideoFrameRef::from_buffer_ref_readable(self.buffer.as_ref(), &self.info)
                .ok()?;
        let plane = |n: usize| {
            Some(Plane {
                data: frame.plane_data(n as u32).ok()?,
                stride: usize::try_from(*frame.plane_stride().get(n)?).ok()?,
            })
        };
        let planes = Planes {
            size: Size {
                width: self.info.width(),
                height: self.info.height(),
            },
            colours: [plane(0)?, plane(1)?, plane(2)?],
            alpha: if has_alpha { Some(plane(3)?) } else { None },
        };
        Some(with(&planes))
    }
}

/// The size at which pictures of that format are meant to be seen.
fn seen(info: &video::VideoInfo) -> Size {
    let aspect = info.par();
    let (numer, denom) = (aspect.numer().max(1), aspect.denom().max(1));
    let width = u64::from(info.width()) * numer as u64 / denom as u64;
    Size {
        width: u32::try_from(width).unwrap_or(info.width()).max(1),
        height: info.height(),
    }
}

/// Are they the canvas's colours already?
fn is_ready(info: &video::VideoInfo) -> bool {
    let colours = info.colorimetry();
    info.format() == video::VideoFormat::I420
        && colours.matrix() == video::VideoColorMatrix::Bt709
        && colours.range() == video::VideoColorRange::Range16_235
}

/// Are they a standard-definition camera's: BT.601, else as the canvas has them?
fn is_smpte(info: &video::VideoInfo) -> bool {
    let colours = info.colorimetry();
    info.format() == video::VideoFormat::I420
        && colours.matrix() == video::VideoColorMatrix::Bt601
        && colours.range() == video::VideoColorRange::Range16_235
}

/// Cuts and scales pictures of one source. Keeps what it needs for the next picture like the last one.
#[derive(Debug, Default)]
pub struct Scaler {
    path: Option<Path>,
}

#[derive(Debug)]
struct Path {
    from: Arc<video::VideoInfo>,
    cut: Cut,
    /// What comes out, and how the converter sees it.
    to: Arc<video::VideoInfo>,
    made: video::VideoInfo,
    converter: video::VideoConverter,
    /// What the converter leaves to be done.
    recolour: Option<Recolour>,
    pool: Pool,
}

impl Scaler {
    /// The cut of `raw` in the canvas's colours, with alpha if the source has it. The picture itself where there is
    /// nothing to do.
    ///
    /// # Errors
    /// The conversion is not known, or there is no memory.
    pub fn scale(&mut self, raw: &Raw, cut: Cut) -> Result<Raw, String> {
        let whole = cut.part.is_none_or(|part| part == raw.seen().into());
        let own = (raw.info.width(), raw.info.height());
        if whole && own == (cut.size.width, cut.size.height) && is_ready(&raw.info) {
            return Ok(raw.clone());
        }
        let kept = self.path.take().filter(|path| {
            path.cut == cut && (Arc::ptr_eq(&path.from, &raw.info) || path.from == raw.info)
        });
        let path = match kept {
            Some(path) => path,
            None => Path::new(&raw.info, cut).map_err(|e| e.to_string())?,
        };
        let scaled = path.run(raw).map_err(|e| e.to_string());
        self.path = Some(path);
        scaled
    }
}

impl Path {
    fn new(from: &Arc<video::VideoInfo>, cut: Cut) -> Result<Self, gst::glib::BoolError> {
        let format = if from.format_info().has_alpha() {
            video::VideoFormat::A420
        } else {
            video::VideoFormat::I420
        };
        let frame = |colours: &video::VideoColorimetry| {
            video::VideoInfo::builder(format, cut.size.width, cut.size.height)
                .fps(from.fps())
                .interlace_mode(from.interlace_mode())
                .colorimetry(colours)
                .chroma_site(video::VideoChromaSite::MPEG2)
                .build()
        };
        let to = frame(&"bt709".parse()?)?;
        // The converter would unpack each pixel to three full samples for that, at more than twice the cost of scaling.
        let recolour = is_smpte(from).then(Recolour::bt601_to_bt709);
        let made = match recolour {
            Some(_) => frame(&from.colorimetry())?,
            None => to.clone(),
        };
        let mut config = video::VideoConverterConfig::new();
        config.set_resampler_method(video::VideoResamplerMethod::Linear);
        if let Some(part) = cut.part {
            let part = coded(part, from);
            config.set_src_x(part.x as i32);
            config.set_src_y(part.y as i32);
            config.set_src_width(Some(part.width as i32));
            config.set_src_height(Some(part.height as i32));
        }
        Ok(Self {
            converter: video::VideoConverter::new(from, &made, Some(config))?,
            pool: Pool::new(&to)?,
            from: from.clone(),
            to: Arc::new(to),
            made,
            recolour,
            cut,
        })
    }

    fn run(&self, raw: &Raw) -> Result<Raw, gst::glib::BoolError> {
        let source =
            video::VideoFrameRef::from_buffer_ref_readable(raw.buffer.as_ref(), &raw.info)?;
        let mut buffer = self.pool.take()?;
        {
            let mut target =
                video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &self.made)?;
            self.converter.frame_ref(&source, &mut target);
            if let Some(recolour) = &self.recolour {
                let mut strides = [0; 3];
                for (stride, of) in strides.iter_mut().zip(target.plane_stride()) {
                    *stride = usize::try_from(*of).unwrap_or(0);
                }
                let [luma, u, v, _] = target.planes_data_mut();
                recolour.run([luma, u, v], strides);
            }
        }
        Ok(Raw::new(buffer, self.to.clone()))
    }
}

/// A part of a picture as it is seen, in the pixels it is coded in, with even edges, inside it whatever was asked for.
fn coded(part: Rect, info: &video::VideoInfo) -> Rect {
    let wide = u64::from(seen(info).width);
    let across = |v: u32| (u64::from(v) * u64::from(info.width()) / wide) as u32 & !1;
    let (width, height) = (info.width().max(2) & !1, info.height().max(2) & !1);
    let x = across(part.x).min(width - 2);
    let y = (part.y & !1).min(height - 2);
    Rect {
        x,
        y,
        width: across(part.width).clamp(2, width - x),
        height: (part.height & !1).clamp(2, height - y),
    }
}

/// Memory for pictures of one size, used again and again.
#[derive(Debug)]
pub struct Pool(gst::BufferPool);

impl Pool {
    /// # Errors
    /// GStreamer takes no pool of that size.
    pub fn new(info: &video::VideoInfo) -> Result<Self, gst::glib::BoolError> {
        let pool = gst::BufferPool::new();
        let size = u32::try_from(info.size()).map_err(|_| gst::glib::bool_error!("too large"))?;
        let mut config = pool.config();
        config.set_params(Some(&info.to_caps()?), size, 0, 0);
        pool.set_config(config)?;
        pool.set_active(true)?;
        Ok(Self(pool))
    }

    /// A buffer that nobody else has.
    ///
    /// # Errors
    /// No memory.
    pub fn take(&self) -> Result<gst::Buffer, gst::glib::BoolError> {
        self.0
            .acquire_buffer(None)
            .map_err(|_| gst::glib::bool_error!("no memory for a picture"))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Buffers still out there are freed when they come back.
        let _ = self.0.set_active(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left half one luma, right half another; chroma of grey.
    fn halves(width: u32, height: u32, left: u8, right: u8) -> Raw {
        let info = video::VideoInfo::builder(video::VideoFormat::I420, width, height)
            .colorimetry(&"bt709".parse().unwrap())
            .build()
            .unwrap();
        let mut bytes = vec![128u8; info.size()];
        let stride = info.stride()[0] as usize;
        for row in 0..height as usize {
            for x in 0..width as usize {
                bytes[row * stride + x] = if x < width as usize / 2 { left } else { right };
            }
        }
        Raw::new(gst::Buffer::from_mut_slice(bytes), Arc::new(info))
    }

    fn luma(raw: &Raw, x: usize, y: usize) -> u8 {
        raw.read(|planes| planes.colours[0].data[y * planes.colours[0].stride + x])
            .unwrap()
    }

    const fn cut(part: Option<Rect>, width: u32, height: u32) -> Cut {
        let size = Size { width, height };
        Cut { part, size }
    }

    #[test]
    fn a_picture_that_fits_is_not_copied() {
        gst::init().unwrap();
        let raw = halves(64, 32, 40, 200);
        let same = Scaler::default().scale(&raw, cut(None, 64, 32)).unwrap();
        assert!(same.is(&raw));
    }

    #[test]
    fn the_part_is_taken_before_it_is_scaled() {
        gst::init().unwrap();
        let raw = halves(64, 32, 40, 200);
        let right = Rect {
            x: 40,
            y: 8,
            width: 16,
            height: 16,
        };
        let mut scaler = Scaler::default();
        let scaled = scaler.scale(&raw, cut(Some(right), 32, 8)).unwrap();
        assert_eq!((scaled.seen().width, scaled.seen().height), (32, 8));
        for x in [0, 15, 31] {
            assert_eq!(luma(&scaled, x, 4), 200);
        }
        // The whole of it after that: another way.
        let whole = scaler.scale(&raw, cut(None, 32, 16)).unwrap();
        assert_eq!((luma(&whole, 2, 8), luma(&whole, 29, 8)), (40, 200));
    }

    #[test]
    fn parts_are_given_in_pixels_as_they_are_seen() {
        gst::init().unwrap();
        let info = video::VideoInfo::builder(video::VideoFormat::I420, 64, 32)
            .par(gst::Fraction::new(2, 1))
            .build()
            .unwrap();
        assert_eq!(seen(&info).width, 128);
        let part = |x, width| Rect {
            x,
            y: 0,
            width,
            height: 400,
        };
        let right_half = coded(part(64, 64), &info);
        assert_eq!(
            (right_half.x, right_half.width, right_half.height),
            (32, 32, 32)
        );
        let outside = coded(part(900, 900), &info);
        assert_eq!((outside.x, outside.width), (62, 2));
    }
}

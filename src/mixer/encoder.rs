//! Which video encoder makes the mixes' pictures, by configuration and by what works on this machine.
//!
//! Owns the choice only: how an encoder is set up is `program::video_encoder`'s matter, how dear it is `cost`'s.

use std::fmt;

use gstreamer as gst;

use super::program::trial;

/// How the encoder is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// One in hardware, if there is one and it works; else x264.
    #[default]
    Auto,
    /// That one, or none.
    Only(Kind),
}

/// A family of encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    X264,
    OpenH264,
    /// NVIDIA's cards.
    Nvenc,
    /// Intel's and AMD's, over VA-API.
    Vaapi,
    /// Intel's, over oneVPL or the Media SDK.
    Qsv,
}

/// Those in hardware, in the order in which `auto` tries them.
const HARDWARE: [Kind; 3] = [Kind::Nvenc, Kind::Qsv, Kind::Vaapi];

impl Choice {
    /// The choice by its word in the configuration.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "auto" => Self::Auto,
            "x264" => Self::Only(Kind::X264),
            "openh264" => Self::Only(Kind::OpenH264),
            "nvenc" => Self::Only(Kind::Nvenc),
            "vaapi" => Self::Only(Kind::Vaapi),
            "qsv" => Self::Only(Kind::Qsv),
            _ => return None,
        })
    }
}

impl Kind {
    /// GStreamer elements of that family, the better ones first.
    fn elements(self) -> &'static [&'static str] {
        match self {
            Self::X264 => &["x264enc"],
            Self::OpenH264 => &["openh264enc"],
            Self::Nvenc => &["nvh264enc"],
            Self::Vaapi => &["vah264enc", "vaapih264enc"],
            Self::Qsv => &["qsvh264enc"],
        }
    }

    /// Elements besides it that its packets need, and the Debian package of all.
    fn needs(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::X264 => (&[], "gstreamer1.0-plugins-ugly"),
            // Those in hardware take NV12 and have to be given a copy in it.
            Self::Vaapi | Self::Qsv => (
                &["h264parse", "videoconvert"],
                "gstreamer1.0-plugins-bad and gstreamer1.0-vaapi",
            ),
            Self::OpenH264 | Self::Nvenc => (&["h264parse"], "gstreamer1.0-plugins-bad"),
        }
    }

    /// Its word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::X264 => "x264",
            Self::OpenH264 => "openh264",
            Self::Nvenc => "nvenc",
            Self::Vaapi => "vaapi",
            Self::Qsv => "qsv",
        }
    }

    /// Does it run on the processor, where the mixes' other work is done?
    pub fn is_software(self) -> bool {
        matches!(self, Self::X264 | Self::OpenH264)
    }
}

/// Why a family has no encoder for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// What is missing, and what has it.
    Missing(String),
    /// What does not work, and why.
    Broken(String),
}

/// An encoder that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoder {
    pub kind: Kind,
    /// Name of its GStreamer element.
    pub element: &'static str,
}

impl fmt::Display for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind.word(), self.element)
    }
}

impl Encoder {
    pub const X264: Self = Self {
        kind: Kind::X264,
        element: "x264enc",
    };

    /// Finds the encoder of that choice. One that is not x264 has to encode a few frames first, which takes some ms, and
    /// seconds if its driver hangs.
    ///
    /// # Errors
    /// The one that was chosen is not there or does not work; the text says which and why.
    pub fn find(choice: Choice) -> Result<Self, String> {
        let found = match choice {
            Choice::Only(kind) => return Self::working(kind),
            Choice::Auto => HARDWARE.iter().find_map(|&kind| {
                let missing = kind.elements().iter().all(|name| !exists(name));
                if missing {
                    return None;
                }
                Self::working(kind)
                    .inspect_err(|error| tracing::warn!(error, "an encoder is not used"))
                    .ok()
            }),
        };
        Ok(found.unwrap_or(Self::X264))
    }

    fn working(kind: Kind) -> Result<Self, String> {
        Self::look(kind).map_err(|fault| match fault {
            Fault::Missing(why) | Fault::Broken(why) => why,
        })
    }

    /// The encoder of that family that is there and has encoded a few frames.
    ///
    /// # Errors
    /// What is missing, or does not work.
    pub fn look(kind: Kind) -> Result<Self, Fault> {
        let (needs, package) = kind.needs();
        if let Some(missing) = needs.iter().find(|name| !exists(name)) {
            return Err(Fault::Missing(format!(
                "{}: GStreamer element {missing} is missing; on Debian and Ubuntu: apt-get install {package}",
                kind.word()
            )));
        }
        let mut fault = Fault::Missing(format!(
            "{}: GStreamer element {} is missing, or its driver is; on Debian and Ubuntu: apt-get install {package}",
            kind.word(),
            kind.elements().join(" or ")
        ));
        for &element in kind.elements().iter().filter(|name| exists(name)) {
            let encoder = Self { kind, element };
            match trial::run(encoder) {
                Ok(()) => return Ok(encoder),
                Err(why) => fault = Fault::Broken(format!("{encoder} does not work here: {why}")),
            }
        }
        Err(fault)
    }
}

fn exists(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_is_found_when_it_works_and_missed_by_name_when_not() {
        gst::init().unwrap();
        let find = |word| Encoder::find(Choice::from_word(word).unwrap());
        for word in ["x264", "openh264"] {
            assert_eq!(find(word).unwrap().kind.word(), word);
        }
        // Without a card these are missing, or their trial says what is.
        for word in ["nvenc", "qsv", "vaapi"] {
            match find(word) {
                Ok(encoder) => assert_eq!(encoder.kind.word(), word),
                Err(error) => assert!(error.contains(word) && error.len() > 20, "{error}"),
            }
        }
        let auto = find("auto").unwrap().kind;
        assert!(auto != Kind::OpenH264, "{auto:?}");
        assert_eq!(Choice::from_word("h264"), None);
    }
}

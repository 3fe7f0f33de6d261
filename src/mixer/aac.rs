//! Which AAC encoder makes a mix's sound, and by how much that makes it later.
//!
//! Owns the choice among GStreamer's encoders and what is known of each. Called when a program pipeline is built.

use gstreamer as gst;

use super::format::AudioFormat;

/// The encoder that a mix asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AudioEncoder {
    /// The one with the least delay of those that are installed and can make the output's format.
    #[default]
    Auto,
    /// VisualOn's, of GStreamer's "bad" plugins: 1,600 samples late.
    Voaacenc,
    /// libavcodec's: 2,048 samples late.
    Avenc,
}

impl AudioEncoder {
    /// Whether the better one is installed.
    pub(super) fn has_voaacenc() -> bool {
        gst::ElementFactory::find(ENCODERS[0].element).is_some()
    }
}

/// An encoder that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoder {
    /// Its element, which is also its name in the configuration.
    pub element: &'static str,
    properties: &'static str,
    /// So many samples after the one that its first frame is said to begin with, the sound put in first begins.
    pub delay: u32,
    /// Bits per sample of each channel at most, and kbit/s in all; more is not refused but makes it worse than less.
    most: Option<(u32, u32)>,
}

/// By delay, least first. Measured with noise and a tone of 997 Hz at all rates (docs/performance.md has the figures).
const ENCODERS: [Encoder; 2] = [
    Encoder {
        element: "voaacenc",
        properties: "",
        // The overlap, and what it looks ahead for transients. Each block gives its frame at once.
        delay: 1_600,
        most: Some((6, 320)),
    },
    Encoder {
        element: "avenc_aac",
        properties: "aac-coder=fast",
        // The overlap. Besides it looks a whole block ahead: a frame comes out only with the block after its own.
        delay: 1_024,
        most: None,
    },
];

impl Encoder {
    /// The encoder for that choice and output; where it is not the one asked for, why. An encoder that was asked for
    /// and is missing or cannot make the format is replaced by another.
    pub fn choose(choice: AudioEncoder, format: AudioFormat, kbps: u32) -> (Self, Option<String>) {
        let is_installed = |encoder: &Self| gst::ElementFactory::find(encoder.element).is_some();
        Self::choose_of(choice, format, kbps, is_installed)
    }

    fn choose_of(
        choice: AudioEncoder,
        format: AudioFormat,
        kbps: u32,
        is_installed: impl Fn(&Self) -> bool,
    ) -> (Self, Option<String>) {
        let [voaacenc, avenc] = ENCODERS;
        let objection = match choice {
            AudioEncoder::Avenc => return (avenc, None),
            AudioEncoder::Auto | AudioEncoder::Voaacenc if is_installed(&voaacenc) => {
                voaacenc.objection(format, kbps)
            }
            AudioEncoder::Auto | AudioEncoder::Voaacenc => Some(
                "voaacenc is not installed; on Debian and Ubuntu: apt-get install gstreamer1.0-plugins-bad"
                    .to_owned(),
            ),
        };
        match objection {
            None => (voaacenc, None),
            // Checked at the start (`Mixer::new`): without it there is no mixer.
            objection => (avenc, objection),
        }
    }

    /// Why it cannot make that; `None`: it can.
    fn objection(&self, AudioFormat { rate, channels }: AudioFormat, kbps: u32) -> Option<String> {
        let name = self.element;
        let (bits, in_all) = self.most?;
        let most = (bits * rate * channels / 1_000).min(in_all);
        (kbps > most).then(|| {
            format!(
                "{name} makes at most {most} kbit/s of {channels} channels at {rate} Hz, not {kbps}"
            )
        })
    }

    /// The element as a pipeline's description has it.
    pub fn description(&self, kbps: u32) -> String {
        let Self {
            element,
            properties,
            ..
        } = self;
        format!("{element} {properties} bitrate={}", kbps * 1_000)
    }

    /// What its frames are late by, ns at `rate` samples a second.
    pub fn delay_ns(&self, rate: u32) -> u64 {
        u64::from(self.delay) * 1_000_000_000 / u64::from(rate.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(
        choice: AudioEncoder,
        rate: u32,
        channels: u32,
        kbps: u32,
        here: bool,
    ) -> (&'static str, Option<String>) {
        let format = AudioFormat { rate, channels };
        let (encoder, objection) = Encoder::choose_of(choice, format, kbps, |_| here);
        (encoder.element, objection)
    }

    #[test]
    fn the_least_delay_is_chosen_among_those_that_are_there_and_can() {
        use AudioEncoder::{Auto, Avenc, Voaacenc};
        let ours = ("voaacenc", None);
        for choice in [Auto, Voaacenc] {
            assert_eq!(chosen(choice, 48_000, 2, 96, true), ours);
            assert_eq!(chosen(choice, 16_000, 1, 96, true), ours);
            assert_eq!(chosen(choice, 48_000, 2, 320, true), ours);
            let missing = "voaacenc is not installed; on Debian and Ubuntu: apt-get install gstreamer1.0-plugins-bad";
            let cases = [
                (48_000, 2, 96, false, missing),
                (
                    48_000,
                    2,
                    321,
                    true,
                    "voaacenc makes at most 320 kbit/s of 2 channels at 48000 Hz, not 321",
                ),
                (
                    11_025,
                    1,
                    96,
                    true,
                    "voaacenc makes at most 66 kbit/s of 1 channels at 11025 Hz, not 96",
                ),
            ];
            for (rate, channels, kbps, here, why) in cases {
                let expected = ("avenc_aac", Some(why.to_owned()));
                assert_eq!(chosen(choice, rate, channels, kbps, here), expected);
            }
        }
        assert_eq!(chosen(Avenc, 48_000, 2, 96, true), ("avenc_aac", None));
    }
}

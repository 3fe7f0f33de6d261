//! What mixes tell while they run, as it happens.

use std::time::Duration;

/// Told about every output frame, on the mixes' own threads: must be cheap and must not block.
pub trait Observer: Send + Sync {
    /// A frame with a new picture of the main was published that long after the picture's arrival.
    fn added_latency(&self, latency: Duration);
    /// A frame was published.
    fn frame(&self);
    /// A frame had to repeat the one before because the machine was too slow.
    fn skip(&self);
    /// A new picture of a mix's main was in that stage for so long.
    fn stage(&self, stage: Stage, took: Duration);
    /// The sound of an input is heard by so much later than its new picture is seen, compared with the source; negative:
    /// earlier.
    fn av_offset_us(&self, by: i64);
    /// A mix took a step down, or up, because its encoder could not carry what was asked for.
    fn stepped(&self, down: bool);
    /// A mix's pipeline failed and is made anew.
    fn restarted(&self);
}

/// The stages of a picture's way through a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From its message's arrival to the decoded and scaled picture.
    Decode,
    /// Until it is due on the mix's clock, which takes out the network's jitter.
    Hold,
    /// Until the output's beat takes it.
    Beat,
    /// Drawing the frame, encoding and publishing it.
    Encode,
}

impl Stage {
    /// Its word in the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Hold => "hold",
            Self::Beat => "beat",
            Self::Encode => "encode",
        }
    }
}

//! Beeps, found again by the AAC frame in which they begin.

use linkmic::probe::Error;

use super::clips;

/// Samples of an AAC frame.
const FRAME: usize = 1024;
/// Half of a beep's amplitude, and far above all else.
const LOUD: i16 = 8_000;
/// Between two beeps it is quiet for longer, samples.
const QUIET: usize = 20_000;

/// The frames of a file's sound, counted from its first, in which beeps begin. A decoder gives a frame's worth of
/// samples for each frame, so that the place of a sample tells the frame that completed it.
pub async fn onsets(file: &str) -> Result<Vec<usize>, Error> {
    let samples = clips::samples(file).await?;
    let mut onsets = Vec::new();
    // What is cut off at the file's beginning is no beginning.
    let mut last = 0;
    for (at, sample) in samples.iter().enumerate() {
        if sample.unsigned_abs() > LOUD.unsigned_abs() {
            if at - last > QUIET {
                onsets.push(at / FRAME);
            }
            last = at;
        }
    }
    Ok(onsets)
}

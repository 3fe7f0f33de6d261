//! Which tones are in a sound: Goertzel's filter at the frequencies one asks for.

/// How loud `frequency` (Hz) is in mono `samples` at `rate` samples a second, in dB below a full-scale
/// sine (0 dB). Silence and empty input are -120 dB.
///
/// A Hann window keeps a loud tone from showing at the places of others: 40 dB down from four
/// bins (`4 × rate / samples.len()` Hz) away.
pub fn level(samples: &[i16], rate: u32, frequency: f64) -> f64 {
    let n = samples.len() as f64;
    let step = std::f64::consts::TAU * frequency / f64::from(rate);
    let coefficient = 2.0 * step.cos();
    let (mut s1, mut s2) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let window = 0.5 - 0.5 * (std::f64::consts::TAU * at as f64 / n).cos();
        let s = f64::from(*sample) / 32768.0 * window + coefficient * s1 - s2;
        (s2, s1) = (s1, s);
    }
    let power = s1 * s1 + s2 * s2 - coefficient * s1 * s2;
    // The window halves the amplitude, and a sine has half its amplitude in each of two bins.
    let amplitude = power.max(0.0).sqrt() * 4.0 / n.max(1.0);
    (20.0 * amplitude.log10()).max(-120.0)
}

/// Whether a tone of `frequency` stands out: at least -50 dB and 15 dB above both its surroundings,
/// 12 % below and above, where no other tone of the set may lie.
pub fn is_present(samples: &[i16], rate: u32, frequency: f64) -> bool {
    let here = level(samples, rate, frequency);
    let beside = level(samples, rate, frequency * 0.88).max(level(samples, rate, frequency * 1.12));
    here > -50.0 && here - beside > 15.0
}

/// Where mono `samples` at `rate` drop out for a moment, in samples from their beginning: 5 ms that are more than 6 dB
/// under the loudest of the 20 ms before and of the 20 ms after.
pub fn dips(samples: &[i16], rate: u32) -> Vec<usize> {
    let window = rate as usize / 200;
    let energy = |of: &[i16]| of.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
    let windows: Vec<f64> = samples.chunks_exact(window).map(energy).collect();
    let loudest = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
    let dips = |at: &usize| {
        let (before, after) = (&windows[at - 4..*at], &windows[at + 1..at + 5]);
        // A quarter of the energy is 6 dB.
        windows[*at] * 4.0 < loudest(before).min(loudest(after))
    };
    let last = windows.len().saturating_sub(4);
    (4..last).filter(dips).map(|at| at * window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;

    fn sines(tones: &[(f64, f64)]) -> Vec<i16> {
        (0..RATE / 2)
            .map(|at| {
                let t = f64::from(at) / f64::from(RATE);
                let sum: f64 = tones
                    .iter()
                    .map(|(frequency, amplitude)| {
                        amplitude * (std::f64::consts::TAU * frequency * t).sin()
                    })
                    .sum();
                (sum * 32767.0) as i16
            })
            .collect()
    }

    #[test]
    fn a_sine_has_its_own_level() {
        // 20·log10(0.5) = -6.02 dB, 20·log10(0.1) = -20 dB
        for (amplitude, expected) in [(0.5, -6.02), (0.1, -20.0)] {
            let got = level(&sines(&[(440.0, amplitude)]), RATE, 440.0);
            assert!((got - expected).abs() < 0.2, "{got} is not {expected}");
        }
    }

    #[test]
    fn a_hole_of_5_ms_is_a_dip_and_a_tone_that_comes_or_goes_is_none() {
        let mut samples = sines(&[(400.0, 0.2)]);
        assert!(dips(&samples, RATE).is_empty());
        samples[10_000..10_480].fill(0);
        let found = dips(&samples, RATE);
        assert!(found.iter().all(|at| (9_800..10_480).contains(at)) && !found.is_empty());
        let louder = sines(&[(400.0, 0.2), (700.0, 0.5)]);
        let change: Vec<i16> = [&samples[..9_600], &louder[9_600..]].concat();
        assert!(dips(&change, RATE).is_empty());
    }

    #[test]
    fn tones_of_a_mix_are_told_apart() {
        let mix = sines(&[(400.0, 0.2), (700.0, 0.02), (1700.0, 0.1)]);
        for frequency in [400.0, 700.0, 1700.0] {
            assert!(is_present(&mix, RATE, frequency), "{frequency} Hz");
        }
        assert!(!is_present(&mix, RATE, 1100.0));
    }

    #[test]
    fn neither_silence_nor_noise_is_a_tone() {
        assert_eq!(level(&[], RATE, 440.0), -120.0);
        assert!(!is_present(&vec![0; 4800], RATE, 440.0));
        let mut state = 1u32;
        let noise: Vec<i16> = (0..RATE)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 18) as i16
            })
            .collect();
        assert!(!is_present(&noise, RATE, 440.0));
    }
}

//! What mixing takes and whether this machine has it: for whoever looks before the server is started.
//!
//! Answers from the same lists and trials as [`Mixer::new`](super::Mixer::new), so that what is found good here is found good there.

use gstreamer as gst;

use super::encoder::{self, Encoder, Kind};
use super::{AudioEncoder, ELEMENTS, Error};

/// A part of the equipment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equipment {
    /// Its name, as in the configuration where it stands there: `nvenc`, or a Debian package.
    pub name: &'static str,
    /// Nothing is mixed without it.
    pub needed: bool,
    pub state: Fitness,
}

/// Whether it can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fitness {
    /// It is there; encoders have encoded a few frames. Says what was found.
    Works(String),
    /// It is not there. Says what is missing and what has it.
    Missing(String),
    /// It is there, and does not work. Says why.
    Broken(String),
}

/// Looks at everything, which takes as long as encoding a few frames with each encoder that is there: some 100 ms, or seconds where a
/// driver hangs. Blocks for that long.
///
/// # Errors
/// When GStreamer does not start.
pub fn equipment(chosen: encoder::Choice) -> Result<Vec<Equipment>, Error> {
    gst::init().map_err(|e| Error::Unavailable(format!("GStreamer does not start: {e}")))?;
    let mut all = vec![Equipment {
        name: "GStreamer",
        needed: true,
        state: Fitness::Works(gst::version_string().into()),
    }];
    all.extend(ELEMENTS.iter().map(|&(package, elements)| Equipment {
        name: package,
        needed: true,
        state: elements_of(package, elements),
    }));
    let kinds = [
        Kind::X264,
        Kind::OpenH264,
        Kind::Nvenc,
        Kind::Vaapi,
        Kind::Qsv,
    ];
    all.extend(kinds.map(|kind| Equipment {
        name: kind.word(),
        // Where another one is chosen, or fails, mixes fall back to it.
        needed: kind == Kind::X264 || chosen == encoder::Choice::Only(kind),
        state: match Encoder::look(kind) {
            Ok(encoder) => Fitness::Works(format!("{} encodes", encoder.element)),
            Err(encoder::Fault::Missing(why)) => Fitness::Missing(why),
            Err(encoder::Fault::Broken(why)) => Fitness::Broken(why),
        },
    }));
    all.push(Equipment {
        name: "voaacenc",
        needed: false,
        state: match AudioEncoder::has_voaacenc() {
            true => Fitness::Works("voaacenc encodes the sound".into()),
            false => Fitness::Missing(
                "GStreamer element voaacenc is missing, so sound is encoded by avenc_aac, later and worse; on Debian and Ubuntu: \
                 apt-get install gstreamer1.0-plugins-bad"
                    .into(),
            ),
        },
    });
    Ok(all)
}

fn elements_of(package: &str, elements: &[&str]) -> Fitness {
    let missing: Vec<_> = elements
        .iter()
        .filter(|name| gst::ElementFactory::find(name).is_none())
        .copied()
        .collect();
    match missing[..] {
        [] => Fitness::Works(elements.join(", ")),
        _ => Fitness::Missing(format!(
            "GStreamer element {} is missing; on Debian and Ubuntu: apt-get install {package}",
            missing.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_mixes_has_all_that_is_needed_and_its_encoders_have_encoded() {
        let all = equipment(encoder::Choice::Auto).unwrap();
        for part in all.iter().filter(|part| part.needed) {
            assert!(matches!(part.state, Fitness::Works(_)), "{part:?}");
        }
        let x264 = all.iter().find(|part| part.name == "x264").unwrap();
        assert_eq!(x264.state, Fitness::Works("x264enc encodes".into()));
    }

    #[test]
    fn a_chosen_encoder_is_needed() {
        let all = equipment(encoder::Choice::Only(Kind::Nvenc)).unwrap();
        let nvenc = all.iter().find(|part| part.name == "nvenc").unwrap();
        assert!(nvenc.needed);
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        gst::init().unwrap();
        let state = elements_of("some-package", &["capsfilter", "no-such-element"]);
        let Fitness::Missing(why) = state else {
            panic!("{state:?}");
        };
        assert!(
            why.contains("no-such-element") && why.contains("some-package"),
            "{why}"
        );
    }
}

//! Who plays: four anchors that look and sound different, and the house they play in.

use crate::probe::publisher::Show;
use crate::probe::{Colour, Region, Size};

/// One anchor.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// What the story calls it.
    pub name: &'static str,
    /// Its stream, in application [`APP`].
    pub stream: &'static str,
    pub show: Show,
    /// Where the official linkmic layout of a 540×960 main puts it.
    pub place: Region,
}

pub const APP: &str = "live";

/// The main's picture, and the mix's.
pub const CANVAS: Size = Size::new(540, 960);

/// Main first. The tones are no harmonics of each other.
pub fn anchors() -> [Anchor; 4] {
    // 160×240 at x = 380, y = 960 − 240 − 90 − i·240.
    let place = |i: usize| Region {
        x: 380,
        y: 630 - 240 * i,
        width: 160,
        height: 240,
    };
    let sub = |name, stream, colour, tone, i| Anchor {
        name,
        stream,
        show: Show::sub(colour, tone),
        place: place(i),
    };
    [
        Anchor {
            name: "A",
            stream: "8888_streamA",
            show: Show::main(Colour::BLUE, 400.0),
            place: CANVAS.whole(),
        },
        sub("B", "8888_streamB", Colour::RED, 700.0, 0),
        sub("C", "8888_streamC", Colour::GREEN, 1100.0, 1),
        sub("D", "8888_streamD", Colour::YELLOW, 1700.0, 2),
    ]
}

/// Good for nothing but this demo, on loopback.
const PUSH_KEY: &str = "demo-key-for-loopback-only-00001";
pub const TOKEN: &str = "demo-token-for-loopback-only";

/// RTMP, public HTTP and control as everybody knows them.
pub const USUAL_PORTS: [u16; 3] = [1935, 8080, 1985];
/// Whichever are free.
pub const ANY_PORTS: [u16; 3] = [0; 3];

/// The embedded configuration; `state` is a folder of our own.
pub fn configuration(state: &str, [rtmp, http, control]: [u16; 3]) -> String {
    // A TOML literal string takes any path as it is; one with a quote in it is not worth supporting here.
    format!(
        "[rtmp]\nlisten = \"127.0.0.1:{rtmp}\"\n\
         [http]\nlisten = \"127.0.0.1:{http}\"\n\
         [control]\nlisten = \"127.0.0.1:{control}\"\ntoken = \"{TOKEN}\"\n\
         [auth]\npush_keys = [{{ id = \"demo\", secret = \"{PUSH_KEY}\" }}]\n\
         [state]\ndir = '{state}'\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Env};

    #[test]
    fn the_embedded_configuration_has_no_mistake() {
        let text = configuration("/tmp/demo", ANY_PORTS);
        let config = Config::parse(&text, "demo", &Env::default()).expect("valid");
        assert!(config.app(APP).is_some());
    }

    #[test]
    fn anchors_are_told_apart_and_keep_off_the_mains_number_and_colour() {
        let anchors = anchors();
        for (i, a) in anchors.iter().enumerate() {
            for b in &anchors[i + 1..] {
                assert_ne!(a.show.colour.name(), b.show.colour.name());
                let ratio = b.show.tone / a.show.tone;
                assert!(
                    (ratio - ratio.round()).abs() > 0.05,
                    "{} {}",
                    a.name,
                    b.name
                );
            }
        }
        for sub in &anchors[1..] {
            // The main's number ends at 2 × 54 px, its colour is read left of 50 %.
            assert!(sub.place.y >= 108 && sub.place.x >= 270, "{}", sub.name);
        }
    }
}

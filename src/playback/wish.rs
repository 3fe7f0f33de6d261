//! What a player asks for while it plays: a pause, and either of its tracks. Pure.

use crate::media::{Kind, Message};

/// A change of mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing at all; later on from the live edge.
    Pause(bool),
    Audio(bool),
    Video(bool),
}

/// What a player wants now. All of it, until it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    paused: bool,
    audio: bool,
    video: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            paused: false,
            audio: true,
            video: true,
        }
    }
}

impl Wishes {
    /// Whether that is a change.
    pub fn change(&mut self, wish: Wish) -> bool {
        let before = *self;
        match wish {
            Wish::Pause(on) => self.paused = on,
            Wish::Audio(on) => self.audio = on,
            Wish::Video(on) => self.video = on,
        }
        before != *self
    }

    pub fn are_all(&self) -> bool {
        *self == Self::default()
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub fn audio(&self) -> bool {
        self.audio
    }

    pub fn video(&self) -> bool {
        self.video
    }

    /// Is the message wanted? Audio's configuration is kept without audio, because nothing repeats it when audio
    /// is wanted again; video's comes with the key frame at which video goes on.
    pub fn want(&self, message: &Message) -> bool {
        !self.paused
            && match message.kind {
                Kind::Audio => self.audio || message.is_header(),
                Kind::Video => self.video,
                Kind::Data => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::MediaTime;
    use bytes::Bytes;

    #[test]
    fn each_wish_leaves_out_what_it_says() {
        let message =
            |kind, payload| Message::new(kind, MediaTime::ZERO, Bytes::from_static(payload));
        let all = [
            message(Kind::Audio, &[0xaf, 0]),
            message(Kind::Audio, &[0xaf, 1]),
            message(Kind::Video, &[0x17, 0, 0, 0, 0]),
            message(Kind::Video, &[0x17, 1, 0, 0, 0]),
            message(Kind::Data, &[2]),
        ];
        let wanted = |wish| {
            let mut wishes = Wishes::default();
            assert!(wishes.are_all() && wishes.change(wish) && !wishes.change(wish));
            all.each_ref().map(|message| wishes.want(message))
        };
        assert_eq!(wanted(Wish::Pause(true)), [false; 5]);
        assert_eq!(wanted(Wish::Audio(false)), [true, false, true, true, true]);
        assert_eq!(wanted(Wish::Video(false)), [true, true, false, false, true]);
    }
}

//! A slot: the few newest decoded pictures of one input, and which of them is on screen.
//!
//! Pure, and generic over the picture. Filled by the decoder's callback, read once per output frame.

use std::collections::VecDeque;

/// Pictures that wait for their time at most: what B-frames and a little clock error ask for.
const CAPACITY: usize = 12;

/// Pictures by rising due time, and the one on screen.
#[derive(Debug)]
pub struct Slot<P> {
    waiting: VecDeque<(i64, P)>,
    current: Option<(i64, P)>,
    /// The one on screen came there before its time, and nobody has looked since.
    early: bool,
    dropped: u64,
}

impl<P> Default for Slot<P> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            current: None,
            early: false,
            dropped: 0,
        }
    }
}

impl<P> Slot<P> {
    /// Adds a picture due at `due_us`. When too many wait, the oldest comes on screen before its time: a clock that puts
    /// them all too late would otherwise have none ever shown. Those due later than a newcomer go, since the input's clock
    /// was set back.
    pub fn push(&mut self, due_us: i64, picture: P) {
        while self.waiting.back().is_some_and(|&(due, _)| due >= due_us) {
            self.waiting.pop_back();
            self.dropped += 1;
        }
        if self.waiting.len() == CAPACITY {
            self.dropped += u64::from(self.early);
            self.current = self.waiting.pop_front();
            self.early = true;
        }
        self.waiting.push_back((due_us, picture));
    }

    /// Brings the newest picture due at or before `until_us` on screen, skipping all older ones, so that one late
    /// output frame never leaves a lasting lag. `true` when the picture on screen changed. `past` is told the due time
    /// of each, skipped or shown.
    pub fn advance(&mut self, until_us: i64, mut past: impl FnMut(i64)) -> bool {
        let mut advanced = std::mem::take(&mut self.early);
        while self
            .waiting
            .front()
            .is_some_and(|&(due, _)| due <= until_us)
        {
            self.dropped += u64::from(advanced);
            self.current = self.waiting.pop_front();
            self.current.iter().for_each(|(due, _)| past(*due));
            advanced = true;
        }
        advanced
    }

    /// The picture on screen and when it was due.
    pub fn current(&self) -> Option<&(i64, P)> {
        self.current.as_ref()
    }

    /// Due time of the newest picture, on screen or waiting.
    pub fn newest_us(&self) -> Option<i64> {
        self.waiting.back().or(self.current.as_ref()).map(|p| p.0)
    }

    /// Pictures that were never on screen.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_due_picture_is_shown_and_held() {
        let mut slot = Slot::default();
        for n in 0..4 {
            slot.push(n * 10, n);
        }
        assert!(slot.advance(25, |_| ()));
        assert_eq!(slot.current(), Some(&(20, 2)));
        assert!(!slot.advance(29, |_| ()));
        assert_eq!(slot.current(), Some(&(20, 2)));
        assert_eq!((slot.newest_us(), slot.dropped()), (Some(30), 2));
        assert!(slot.advance(1_000, |_| ()) && !slot.advance(2_000, |_| ()));
        assert_eq!(slot.current(), Some(&(30, 3)));
    }

    #[test]
    fn pictures_that_nobody_asks_for_do_not_pile_up() {
        let mut slot = Slot::default();
        for n in 0..100 {
            slot.push(n, n);
        }
        // One is on screen.
        assert_eq!(slot.dropped(), 100 - CAPACITY as u64 - 1);
        assert!(slot.advance(100, |_| ()));
        assert_eq!(slot.current(), Some(&(99, 99)));
        assert_eq!(slot.dropped(), 99);
    }

    #[test]
    fn pictures_of_a_clock_that_puts_them_all_too_late_are_shown_early_and_not_never() {
        // 60 a second, each due a quarter of a second after it comes, looked at 20 times a second.
        let mut slot = Slot::default();
        let mut shown = Vec::new();
        for n in 0..120i64 {
            let now = n * 16_667;
            slot.push(now + 250_000, n);
            if n % 3 == 2 && slot.advance(now, |_| ()) {
                shown.extend(slot.current().map(|(_, n)| *n));
            }
        }
        assert!(shown.len() >= 34, "{shown:?}");
        assert!(
            shown.windows(2).all(|pair| pair[1] == pair[0] + 3),
            "{shown:?}"
        );
    }

    #[test]
    fn a_clock_set_back_does_not_freeze_the_picture() {
        let mut slot = Slot::default();
        slot.push(5_000, "old clock");
        slot.push(100, "new clock");
        assert!(slot.advance(150, |_| ()));
        assert_eq!(slot.current(), Some(&(100, "new clock")));
    }
}

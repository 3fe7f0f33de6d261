//! (room playback)

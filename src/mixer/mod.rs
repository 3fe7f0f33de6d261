//! (room mixer)

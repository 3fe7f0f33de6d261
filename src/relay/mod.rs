//! (room relay)

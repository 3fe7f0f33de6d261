//! (room push)

//! (room rtmp)
pub mod frame;

//! (room rtmp)

//! (room ingest)

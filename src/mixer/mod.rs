//! Mixes.
mod audio;
mod clock;
mod layout;
pub mod scene;
mod slot;
mod tick;

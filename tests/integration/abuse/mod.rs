//! Strangers that send nonsense, too much, or nothing at all, against the real binary in a process of its own:
//! it lives, its memory stays where it was, and those beside them notice nothing.

pub mod binary;
pub mod healthy;
pub mod raw;

mod absent;
mod descriptors;
mod hostile;
mod opening;
mod panics;
mod siege;
mod silent;
mod slow;

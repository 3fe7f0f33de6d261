//! Cloud mixing as the vendor's documents have it, whichever form it was asked for in.
//!
//! | source | covered |
//! |---|---|
//! | the "MixStreamV2" document (2017 to 2019) and its demo scripts | fields, ranges, templates, session rules, codes |
//! | the v3 "CreateCommonMixStream" and "CancelCommonMixStream" pages | the same in other spelling, output parameters, error names |
//!
//! Pure: a request ([`Ask`], read by [`legacy`] or by the v3 form), an account and what is known of streams and mixes
//! ([`Facts`]) become a [`Plan`] or a [`Refusal`]. A plan's scene is the native JSON of a mix, so that what the mixer does
//! with it is what it does with any. Where the documents leave a choice, docs/compat.md says what was chosen.

mod ask;
mod canvas;
mod code;
mod facts;
pub(super) mod legacy;
mod plan;
mod scene;
#[cfg(test)]
mod tests;

pub(super) use ask::{Ask, Crop, Encoding, Input, Kind, LEGACY, Output, V3};
pub(super) use code::{Code, Refusal};
pub(super) use facts::{Facts, Mix, Stream};
pub(super) use plan::{Plan, cancel, no_session, start};

/// Most inputs of a mix, and the highest layer.
pub(super) const MAX_INPUTS: usize = 16;
/// Longest id of a stream, a session or a canvas, in bytes.
pub(super) const MAX_ID: usize = 80;
/// Mixes that one stream may be in.
pub(super) const MAX_MIXES: usize = 20;

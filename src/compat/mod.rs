//! The vendor's linkmic interface, for apps and back ends that were written against it.
//!
//! So far: who may call.

mod account;
mod digest;

pub use account::{Account, Credentials, Picture};

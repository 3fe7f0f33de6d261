//! What back ends are told and asked: real receivers, over HTTP and HTTPS, and real clients of RTMP and HTTP-FLV.

mod asked;
mod events;
mod kills;
pub mod receiver;
mod told;

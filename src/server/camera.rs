//! The mixer's snapshots behind the API's trait.

use std::sync::Arc;

use crate::api::{Camera, Developing, Picture, PictureError};
use crate::media::{Feed, StreamKey};
use crate::mixer::{Mixer, SnapshotError};

/// [`Camera`] over the mixer's handle.
pub struct Decoding(pub Arc<Mixer>);

impl Camera for Decoding {
    fn picture<'a>(&'a self, key: &'a StreamKey, feed: Feed, width: Option<u32>) -> Developing<'a> {
        let (mixer, key) = (self.0.clone(), key.clone());
        Box::pin(async move {
            // Decoding takes milliseconds: not on the threads that carry media.
            let made = tokio::task::spawn_blocking(move || mixer.snapshot(&key, feed, width));
            let made = made.await.map_err(|_| {
                PictureError::Unavailable("the snapshot failed half way".to_owned())
            })?;
            match made {
                Ok(made) => Ok(Picture {
                    jpeg: made.jpeg,
                    age: made.age,
                }),
                Err(error @ SnapshotError::None(_)) => Err(PictureError::None(error.to_string())),
                Err(error) => Err(PictureError::Undecodable(error.to_string())),
            }
        })
    }
}

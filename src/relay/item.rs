//! One message as a ring keeps it, with its RTMP framing built once on demand.

use std::sync::{Arc, OnceLock};

use crate::media::{Headers, Message};
use crate::rtmp::frame::{Framed, MEDIA_STREAM_ID};

/// A message in a ring. Shared by every reader; the payload is stored once and the framing is a few
/// header bytes beside it.
#[derive(Debug)]
pub struct Item {
    message: Arc<Message>,
    /// Headers that belong to this message, when a reader may begin here.
    headers: Option<Arc<Headers>>,
    rtmp: OnceLock<Framed>,
}

impl Item {
    pub fn new(message: Arc<Message>, headers: Option<Arc<Headers>>) -> Self {
        Self {
            message,
            headers,
            rtmp: OnceLock::new(),
        }
    }

    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The header set to send before this message to a reader that begins here; `None` where nobody may begin.
    pub fn headers(&self) -> Option<&Arc<Headers>> {
        self.headers.as_ref()
    }

    /// The message as RTMP chunks on [`MEDIA_STREAM_ID`].
    pub fn rtmp(&self) -> &Framed {
        self.rtmp.get_or_init(|| {
            Framed::new(
                self.message.kind.type_id(),
                self.message.dts.wire(),
                MEDIA_STREAM_ID,
                self.message.payload.clone(),
            )
        })
    }
}

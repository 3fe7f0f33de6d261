//! How large a stream's pictures are, as its headers tell it before anybody decodes them.

use super::layout::Size;
use super::scene::MAX_SIDE;
use super::{Mixer, format, sps};
use crate::media::{Codec, Feed, Headers, Kind, Slot, StreamKey};
use crate::rtmp::amf;

impl Mixer {
    /// Of the stream's source feed; `None` while it is not known, and when nobody publishes it.
    pub fn picture_size(&self, key: &StreamKey) -> Option<Size> {
        let relay = &self.shared.context.relay;
        relay.stream_info(key)?.publisher?;
        told(&relay.watch(key, Feed::Source).headers())
    }
}

/// By the parameter set where it is H.264's, else by what the publisher says in its metadata.
fn told(headers: &Headers) -> Option<Size> {
    let video = headers.find(Kind::Video, Slot::Sequence)?;
    let record = format::body(video).filter(|_| video.codec == Codec::H264);
    let size = record.and_then(|record| sps::size(format::parameter_set(&record)?));
    size.or_else(|| said(headers))
}

fn said(headers: &Headers) -> Option<Size> {
    let metadata = headers.find(Kind::Data, Slot::Metadata)?;
    let values = amf::decode(&metadata.payload).ok()?;
    let side = |key| {
        let value = values.iter().find_map(|value| amf::property(value, key))?;
        let side = amf::number(value)?.round();
        // Strangers write it.
        (1.0..=f64::from(MAX_SIDE))
            .contains(&side)
            .then_some(side as u32)
    };
    Some(Size {
        width: side("width")?,
        height: side("height")?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::media::{MediaTime, Message};

    fn metadata(width: f64, height: f64) -> Arc<Message> {
        let mut amf = amf::Writer::new();
        amf.string("onMetaData").object();
        amf.key("width").number(width).key("height").number(height);
        amf.end();
        Arc::new(Message::new(Kind::Data, MediaTime(0), amf.finish()))
    }

    fn header(payload: &'static [u8]) -> Arc<Message> {
        let payload = Bytes::from_static(payload);
        Arc::new(Message::new(Kind::Video, MediaTime(0), payload))
    }

    #[test]
    fn without_a_parameter_set_that_can_be_read_the_metadata_counts() {
        // Enhanced RTMP: sequence start of hvc1.
        let hevc = header(b"\x90hvc1\x01");
        let size = |width, height| {
            let headers = Headers::default().with(&hevc);
            told(&headers.with(&metadata(width, height)))
        };
        let (width, height) = (540, 960);
        assert_eq!(size(540.0, 960.0), Some(Size { width, height }));
        for (width, height) in [(0.0, 960.0), (1e9, 960.0), (f64::NAN, 1.0)] {
            assert_eq!(size(width, height), None);
        }
        assert_eq!(told(&Headers::default().with(&hevc)), None);
        // Without pictures metadata says nothing of their size.
        let sound = Headers::default().with(&metadata(540.0, 960.0));
        assert_eq!(told(&sound), None);
    }
}

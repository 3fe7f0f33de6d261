use bytes::Bytes;
pub const MEDIA_STREAM_ID: u32 = 1;
#[derive(Debug)]
pub struct Framed {
    pub p: Bytes,
}
impl Framed {
    pub fn new(_t: u8, _ts: u32, _s: u32, payload: Bytes) -> Self {
        Self { p: payload }
    }
    pub fn len(&self) -> usize {
        self.p.len()
    }
}

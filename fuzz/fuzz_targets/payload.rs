//! Any bytes are some payload: described without a panic, moved in time it stays what it is.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use linkmic::media::{Kind, MediaTime, Message, Role};

fuzz_target!(|data: &[u8]| {
    for kind in [Kind::Video, Kind::Audio, Kind::Data] {
        let message = Message::new(kind, MediaTime(1_000), Bytes::copy_from_slice(data));
        assert!((-0x80_0000..0x80_0000).contains(&message.composition_ms));
        assert!(kind == Kind::Video || message.composition_ms == 0);
        if let Role::Header(slot) = message.role {
            assert_eq!(slot.kind, kind);
        }
        assert!(message.role != Role::Key || kind == Kind::Video);
        for pts in [i64::MIN / 2, -1, 1_040, i64::MAX / 2] {
            let moved = message.timed(MediaTime(1_000), MediaTime(pts));
            // A packet that left its composition time out may have to say it.
            assert!([0, 3].contains(&(moved.payload.len() - data.len())));
            let again = Message::new(kind, MediaTime(1_000), moved.payload.clone());
            assert_eq!(
                (again.role, again.codec, again.composition_ms),
                (moved.role, moved.codec, moved.composition_ms)
            );
        }
    }
});

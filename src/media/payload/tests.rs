use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// What a payload is said to be, in short: role, codec, track, composition time.
fn said(kind: Kind, payload: &[u8]) -> (Role, Codec, u8, i32) {
    let d = describe(kind, payload);
    (d.role, d.codec, d.track, d.composition_ms)
}

fn sequence(kind: Kind, track: u8) -> Role {
    header(kind, track, Slot::Sequence)
}

fn metadata(kind: Kind, track: u8) -> Role {
    header(kind, track, Slot::Metadata)
}

#[test]
fn classic_video_is_told_apart() {
    type Case = (&'static str, &'static [u8], Role, Codec, i32);
    let configured = sequence(Kind::Video, 0);
    let cases: [Case; 16] = [
        (
            "avc header",
            &[0x17, 0, 0, 0, 0, 1],
            configured,
            Codec::H264,
            0,
        ),
        (
            "avc key frame",
            &[0x17, 1, 0, 0, 80],
            Role::Key,
            Codec::H264,
            80,
        ),
        (
            "avc, shown before decoded",
            &[0x27, 1, 0xff, 0xff, 0xd8],
            Role::Frame,
            Codec::H264,
            -40,
        ),
        (
            "avc end of sequence",
            &[0x17, 2, 0, 0, 0],
            Role::Frame,
            Codec::H264,
            0,
        ),
        (
            "a seek begins: no avc header",
            &[0x57, 0],
            Role::Frame,
            Codec::H264,
            0,
        ),
        (
            "a seek ends: no avc frame",
            &[0x57, 1, 1, 1, 1],
            Role::Frame,
            Codec::H264,
            0,
        ),
        (
            "hevc header under id 12",
            &[0x1c, 0, 0, 0, 0, 1],
            configured,
            Codec::Hevc,
            0,
        ),
        (
            "hevc key frame under id 12",
            &[0x1c, 1, 0, 0, 40],
            Role::Key,
            Codec::Hevc,
            40,
        ),
        (
            "hevc frame under id 12",
            &[0x2c, 1, 0, 0, 0],
            Role::Frame,
            Codec::Hevc,
            0,
        ),
        (
            "sorenson key frame",
            &[0x12, 0, 0, 0x84],
            Role::Key,
            Codec::Sorenson,
            0,
        ),
        (
            "sorenson frame",
            &[0x22, 0, 0, 0x84],
            Role::Frame,
            Codec::Sorenson,
            0,
        ),
        (
            "disposable sorenson frame",
            &[0x32, 0, 0, 0x84],
            Role::Frame,
            Codec::Sorenson,
            0,
        ),
        (
            "screen video key frame",
            &[0x13, 0x30],
            Role::Key,
            Codec::Screen,
            0,
        ),
        (
            "screen video 2 frame",
            &[0x26, 0x30],
            Role::Frame,
            Codec::Screen,
            0,
        ),
        ("vp6 key frame", &[0x14, 0, 1], Role::Key, Codec::Vp6, 0),
        (
            "vp6 with alpha, key frame",
            &[0x15, 0, 1],
            Role::Key,
            Codec::Vp6,
            0,
        ),
    ];
    for (name, payload, role, codec, composition) in cases {
        assert_eq!(
            said(Kind::Video, payload),
            (role, codec, 0, composition),
            "{name}"
        );
    }
}

#[test]
fn classic_audio_is_told_apart_and_only_aac_has_a_header() {
    let configured = sequence(Kind::Audio, 0);
    let cases: [(&[u8], Role, Codec); 14] = [
        (&[0xaf, 0, 0x11, 0x90], configured, Codec::Aac),
        (&[0xaf, 1, 0x21], Role::Frame, Codec::Aac),
        (&[0x2e, 0xff, 0xfb], Role::Frame, Codec::Mp3),
        (&[0xe2, 0, 0xfb], Role::Frame, Codec::Mp3),
        (&[0x72, 0, 1], Role::Frame, Codec::G711A),
        (&[0x82, 0, 1], Role::Frame, Codec::G711U),
        (&[0xb2, 0, 1], Role::Frame, Codec::Speex),
        (&[0x42, 0, 1], Role::Frame, Codec::Nellymoser),
        (&[0x52, 0, 1], Role::Frame, Codec::Nellymoser),
        (&[0x6a, 0, 1], Role::Frame, Codec::Nellymoser),
        (&[0x3e, 0, 1], Role::Frame, Codec::Pcm),
        (&[0x0e, 0, 1], Role::Frame, Codec::Pcm),
        (&[0x1e, 0, 1], Role::Frame, Codec::Adpcm),
        (&[0xf0, 0, 1], Role::Frame, Codec::Other),
    ];
    for (payload, role, codec) in cases {
        assert_eq!(
            said(Kind::Audio, payload),
            (role, codec, 0, 0),
            "{payload:02x?}"
        );
    }
}

#[test]
fn enhanced_video_is_told_apart() {
    type Case = (&'static str, &'static [u8], Role, Codec, i32);
    let cases: [Case; 14] = [
        (
            "hevc header",
            b"\x90hvc1xx",
            sequence(Kind::Video, 0),
            Codec::Hevc,
            0,
        ),
        (
            "avc header",
            b"\x90avc1xx",
            sequence(Kind::Video, 0),
            Codec::H264,
            0,
        ),
        (
            "vp9 header",
            b"\x90vp09xx",
            sequence(Kind::Video, 0),
            Codec::Vp9,
            0,
        ),
        (
            "vp8 header",
            b"\x90vp08xx",
            sequence(Kind::Video, 0),
            Codec::Vp8,
            0,
        ),
        (
            "av1 header in MPEG-2 TS form",
            b"\x95av01\x80\x04",
            sequence(Kind::Video, 0),
            Codec::Av1,
            0,
        ),
        (
            "hdr metadata, whatever the frame type",
            b"\xd4hvc1\x02",
            metadata(Kind::Video, 0),
            Codec::Hevc,
            0,
        ),
        (
            "hevc key frame with offset",
            b"\x91hvc1\0\0\x21x",
            Role::Key,
            Codec::Hevc,
            33,
        ),
        (
            "hevc frame, shown before decoded",
            b"\xa1hvc1\xff\xff\xd8x",
            Role::Frame,
            Codec::Hevc,
            -40,
        ),
        (
            "avc key frame without offset",
            b"\x93avc1\0\0\x21x",
            Role::Key,
            Codec::H264,
            0,
        ),
        (
            "av1 frame: no offset in av1",
            b"\xa1av01\0\0\x21x",
            Role::Frame,
            Codec::Av1,
            0,
        ),
        ("vp9 key frame", b"\x91vp09\x82I", Role::Key, Codec::Vp9, 0),
        ("end of sequence", b"\x92hvc1", Role::Frame, Codec::Hevc, 0),
        (
            "a packet type of tomorrow",
            b"\x9ahvc1",
            Role::Frame,
            Codec::Hevc,
            0,
        ),
        ("a command", b"\xd1\x00xxxxx", Role::Frame, Codec::Other, 0),
    ];
    for (name, payload, role, codec, composition) in cases {
        assert_eq!(
            said(Kind::Video, payload),
            (role, codec, 0, composition),
            "{name}"
        );
    }
}

#[test]
fn enhanced_audio_is_told_apart() {
    type Case = (&'static [u8], Role, Codec);
    let cases: [Case; 9] = [
        (b"\x90OpusOpusHead", sequence(Kind::Audio, 0), Codec::Opus),
        (b"\x90fLaC\x04\x00", sequence(Kind::Audio, 0), Codec::Flac),
        (b"\x90ac-3", sequence(Kind::Audio, 0), Codec::Ac3),
        (b"\x90mp4a\x11\x90", sequence(Kind::Audio, 0), Codec::Aac),
        (b"\x94ec-3\x01\x01", metadata(Kind::Audio, 0), Codec::Eac3),
        (b"\x91ec-3\x0bw", Role::Frame, Codec::Eac3),
        (b"\x91.mp3\xff\xfb", Role::Frame, Codec::Mp3),
        (b"\x92Opus", Role::Frame, Codec::Opus),
        (b"\x97\x02\0\0\x07\x01Opusx", Role::Frame, Codec::Opus),
    ];
    for (payload, role, codec) in cases {
        assert_eq!(
            said(Kind::Audio, payload),
            (role, codec, 0, 0),
            "{payload:02x?}"
        );
    }
}

/// A message of several tracks that share a codec.
fn many(first: u8, packet: u8, codec: &[u8; 4], tracks: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![first, 0x10 | packet];
    bytes.extend(codec);
    for (id, body) in tracks {
        bytes.push(*id);
        bytes.extend(&(body.len() as u32).to_be_bytes()[1..]);
        bytes.extend(*body);
    }
    bytes
}

/// A message of several tracks with a codec each.
fn mixed(first: u8, packet: u8, tracks: &[(&[u8; 4], u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![first, 0x20 | packet];
    for (codec, id, body) in tracks {
        bytes.extend(*codec);
        bytes.push(*id);
        bytes.extend(&(body.len() as u32).to_be_bytes()[1..]);
        bytes.extend(*body);
    }
    bytes
}

const KEY: u8 = 0x96;
const INTER: u8 = 0xa6;

#[test]
fn a_message_of_one_track_belongs_to_it_and_only_the_main_track_makes_key_frames() {
    let video = |payload| said(Kind::Video, payload);
    assert_eq!(
        video(b"\x96\x00avc1\x03x"),
        (sequence(Kind::Video, 3), Codec::H264, 3, 0)
    );
    assert_eq!(
        video(b"\x96\x04hvc1\x03x"),
        (metadata(Kind::Video, 3), Codec::Hevc, 3, 0)
    );
    assert_eq!(
        video(b"\x96\x01hvc1\x00\0\0\x28x"),
        (Role::Key, Codec::Hevc, 0, 40)
    );
    assert_eq!(
        video(b"\x96\x01hvc1\x01\0\0\x28x"),
        (Role::Frame, Codec::Hevc, 1, 40)
    );
    assert_eq!(
        video(b"\xa6\x03hvc1\x00x"),
        (Role::Frame, Codec::Hevc, 0, 0)
    );
    let audio = said(Kind::Audio, b"\x95\x00Opus\x01OpusHead");
    assert_eq!(audio, (sequence(Kind::Audio, 1), Codec::Opus, 1, 0));
}

#[test]
fn a_message_of_several_tracks_is_a_key_frame_when_the_main_track_is_in_it() {
    let (one, two): (&[u8], &[u8]) = (b"\0\0\x28one", b"\0\0\x50two");
    let video = |payload: &[u8]| said(Kind::Video, payload);
    // The offset is the main track's own, wherever it stands.
    assert_eq!(
        video(&many(KEY, 1, b"avc1", &[(0, one), (1, two)])),
        (Role::Key, Codec::H264, 0, 40)
    );
    assert_eq!(
        video(&many(KEY, 1, b"avc1", &[(1, two), (0, one)])),
        (Role::Key, Codec::H264, 0, 40)
    );
    assert_eq!(
        video(&many(KEY, 1, b"avc1", &[(1, two), (2, one)])),
        (Role::Frame, Codec::H264, 1, 80)
    );
    assert_eq!(
        video(&many(INTER, 1, b"avc1", &[(0, one), (1, two)])),
        (Role::Frame, Codec::H264, 0, 40)
    );
    let codecs = mixed(KEY, 1, &[(b"av01", 2, b"abc"), (b"hvc1", 0, one)]);
    assert_eq!(video(&codecs), (Role::Key, Codec::Hevc, 0, 40));
}

#[test]
fn a_header_for_several_tracks_speaks_of_each() {
    let header = many(KEY, 0, b"avc1", &[(0, b"a"), (1, b"bb"), (5, b"")]);
    assert_eq!(
        describe(Kind::Video, &header).role,
        sequence(Kind::Video, 0)
    );
    assert_eq!(
        tracks(Kind::Video, &header),
        [0, 1, 5].into_iter().collect()
    );
    let header = mixed(0x95, 0, &[(b"Opus", 4, b"x"), (b"fLaC", 2, b"yy")]);
    assert_eq!(
        describe(Kind::Audio, &header).role,
        sequence(Kind::Audio, 4)
    );
    assert_eq!(tracks(Kind::Audio, &header), [4, 2].into_iter().collect());
    // Everything else speaks of track 0.
    for payload in [&b"\x17\0\0\0\0"[..], b"\x90hvc1"] {
        assert_eq!(tracks(Kind::Video, payload), Tracks::only(0));
    }
}

#[test]
fn prefixes_are_skipped_to_the_packet_behind_them() {
    // A nanosecond offset of 7 (3 bytes, type 0), then a key frame with its composition time.
    let nano = b"\x97\x02\x00\x00\x07\x01avc1\0\0\x28data";
    assert_eq!(said(Kind::Video, nano), (Role::Key, Codec::H264, 0, 40));
    // Two prefixes, the second of 257 bytes, then a header of track 1.
    let mut long = b"\x97\x02\x00\x00\x07\x07\xff\x01\x00".to_vec();
    long.extend([0; 257]);
    long.extend(b"\x06\x00hvc1\x01xx");
    assert_eq!(
        said(Kind::Video, &long),
        (sequence(Kind::Video, 1), Codec::Hevc, 1, 0)
    );
}

#[test]
fn where_no_track_is_0_the_lowest_makes_key_frames() {
    let mut main = MainTrack::default();
    let mut role = |payload: Vec<u8>| main.read(Kind::Video, MediaTime(5), payload.into()).role;
    let key = |id| many(KEY, 1, b"avc1", &[(id, b"\0\0\0x")]);
    role(many(KEY, 0, b"avc1", &[(2, b"a"), (1, b"b")]));
    assert_eq!(role(key(1)), Role::Key);
    assert_eq!(role(key(2)), Role::Frame);
    // A track 0 comes up after all.
    assert_eq!(role(key(0)), Role::Key);
    assert_eq!(role(key(1)), Role::Frame);
    let classic = main.read(
        Kind::Video,
        MediaTime(9),
        Bytes::from_static(b"\x17\x01\0\0\0"),
    );
    assert_eq!((classic.role, classic.dts), (Role::Key, MediaTime(9)));
}

#[test]
fn frames_beside_the_main_track_are_told_apart() {
    use Beside::{Frames, Keys, Nothing};
    const INTER: u8 = 0xa6;
    let both = |first, packet| many(first, packet, b"avc1", &[(0, b"a"), (1, b"b")]);
    let one = |first, packet, id| vec![first, packet, b'v', b'p', b'0', b'9', id, b'x'];
    for (name, payload, expected) in [
        ("classic", b"\x17\x01\0\0\0K".to_vec(), Nothing),
        ("a FourCC", b"\x93avc1K".to_vec(), Nothing),
        ("track 0 alone", one(KEY, 1, 0), Nothing),
        ("key frame of track 1", one(KEY, 1, 1), Keys),
        ("the same without offset", one(KEY, 3, 1), Keys),
        ("frame of track 1", one(INTER, 1, 1), Frames),
        ("disposable frame of track 1", one(0xb6, 3, 1), Frames),
        ("end of track 1", one(KEY, 2, 1), Nothing),
        ("header of track 1", one(KEY, 0, 1), Nothing),
        ("key frames of both", both(KEY, 1), Keys),
        ("frames of both", both(INTER, 1), Nothing),
        (
            "frames of two others",
            many(INTER, 1, b"avc1", &[(1, b"a"), (2, b"b")]),
            Frames,
        ),
    ] {
        assert_eq!(describe(Kind::Video, &payload).beside, expected, "{name}");
    }
    // Sound builds on nothing.
    let sound = many(0x95, 1, b"Opus", &[(1, b"a")]);
    assert_eq!(describe(Kind::Audio, &sound).beside, Nothing);
}

#[test]
fn composition_times_are_rewritten_where_they_stand_and_said_where_they_were_implied() {
    type Case = (&'static [u8], i32, Option<&'static [u8]>);
    let cases: [Case; 9] = [
        (b"\x27\x01\0\0\x28x", 40, Some(b"\x27\x01\0\0\x50x")),
        (b"\x27\x01\0\0\x28x", -80, Some(b"\x27\x01\xff\xff\xd8x")),
        (b"\xa1hvc1\0\0\x28x", 1, Some(b"\xa1hvc1\0\0\x29x")),
        (b"\xa3hvc1x", 40, Some(b"\xa1hvc1\0\0\x28x")),
        (b"\xa6\x03avc1\x07x", 40, Some(b"\xa6\x01avc1\x07\0\0\x28x")),
        (
            b"\xa7\x02\0\0\x07\x03avc1x",
            1,
            Some(b"\xa7\x02\0\0\x07\x01avc1\0\0\x01x"),
        ),
        (b"\xa1av01x", 40, None),
        (b"\x17\x00\0\0\0conf", 40, None),
        (b"\x57\x01\0\0\0", 40, None),
    ];
    for (payload, delta, expected) in cases {
        assert_eq!(
            recomposed(payload, delta).as_deref(),
            expected,
            "{payload:02x?}"
        );
    }
    // Tracks that ride together keep their distance.
    let both = many(INTER, 1, b"avc1", &[(0, b"\0\0\x01a"), (1, b"\0\0\x02bb")]);
    let later = many(INTER, 1, b"avc1", &[(0, b"\0\0\x06a"), (1, b"\0\0\x07bb")]);
    assert_eq!(recomposed(&both, 5), Some(later));
}

#[test]
fn sets_of_tracks_contain_each_other() {
    let set: Tracks = [0, 63, 64, 255].into_iter().collect();
    assert!(set.contains(255) && !set.contains(1) && set.lowest() == Some(0));
    assert!(Tracks::only(64).is_within(&set) && !set.is_within(&Tracks::only(64)));
    assert!(!Tracks::only(1).is_within(&set));
    assert_eq!(Tracks::default().lowest(), None);
}

proptest! {
    #[test]
    fn any_bytes_are_described_and_recomposed_to_what_is_described(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80),
        lead in prop_oneof![Just(0x17u8), Just(0x96), Just(0x97), Just(0x91), Just(0x95), any::<u8>()],
        delta in -1000i32..1000,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = lead;
        }
        for kind in [Kind::Audio, Kind::Video, Kind::Data] {
            describe(kind, &bytes);
            prop_assert!(tracks(kind, &bytes).lowest().is_some() || bytes.len() < 12 || lead & 0x80 != 0);
        }
        let before = describe(Kind::Video, &bytes);
        if let Some(changed) = recomposed(&bytes, delta) {
            let after = describe(Kind::Video, &changed);
            prop_assert_eq!((after.role, after.codec, after.track), (before.role, before.codec, before.track));
        }
    }
}

#[test]
fn audio_without_a_sound_in_it_is_hollow_and_headers_and_ends_are_not() {
    for (name, kind, payload, hollow) in [
        ("nothing", Kind::Video, b"".as_slice(), true),
        ("aac, its two bytes", Kind::Audio, &[0xaf, 1], true),
        ("aac, cut", Kind::Audio, &[0xaf], true),
        ("aac, a byte", Kind::Audio, &[0xaf, 1, 0x21], false),
        ("aac header", Kind::Audio, &[0xaf, 0, 0x11, 0x90], false),
        ("mp3, its one byte", Kind::Audio, &[0x2f], true),
        ("mp3, a byte", Kind::Audio, &[0x2f, 0xff], false),
        ("opus without a frame", Kind::Audio, b"\x91Opus", true),
        ("opus, a byte", Kind::Audio, b"\x91Opus\xfc", false),
        ("opus, the end", Kind::Audio, b"\x92Opus", false),
        ("tracks, all empty", Kind::Audio, b"\x95\x01Opus\x01", true),
        (
            "tracks, a byte",
            Kind::Audio,
            b"\x95\x01Opus\x01\xfc",
            false,
        ),
        ("avc, the end", Kind::Video, &[0x17, 2, 0, 0, 0], false),
        ("metadata", Kind::Data, b"\x02\x00\x01x", false),
    ] {
        assert_eq!(is_hollow(kind, payload), hollow, "{name}");
    }
}

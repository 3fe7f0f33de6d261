//! The handshake with digests, against numbers that another implementation gave.
//!
//! Both ends put an HMAC-SHA256 of their packet somewhere inside it, at a place that four bytes of it give: those at 8
//! (first scheme) or at 772 (second scheme). The answer to such a packet is signed with a key that its digest gives.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::*;

const PLAYER: &[u8] = b"Genuine Adobe Flash Player 001";
const SERVER: &[u8] = b"Genuine Adobe Flash Media Server 001";
/// What is behind both names in the keys of answers.
const TAIL: [u8; 32] = [
    0xf0, 0xee, 0xc2, 0x4a, 0x80, 0x68, 0xbe, 0xe8, 0x2e, 0x00, 0xd0, 0xd1, 0x02, 0x9e, 0x7e, 0x57,
    0x6e, 0xec, 0x5d, 0x2d, 0x29, 0x80, 0x6f, 0xab, 0x93, 0xb8, 0xe6, 0x36, 0xcf, 0xeb, 0x31, 0xae,
];
/// Where the bytes stand that give the digest's place, in each scheme.
const SCHEMES: [usize; 2] = [8, 772];
const PACKET: usize = 1536;

/// C1 as [`packet`] makes it: scheme, sum of the four bytes, and the digest under the player's name, from the `hmac`
/// module of Python 3.11.
const VECTORS: [(usize, usize, &str); 8] = [
    (
        8,
        0,
        "8ce486befa4d782109742b1830b30fca924d2adb026191a6e901290e2513efe1",
    ),
    (
        8,
        100,
        "01856c51739818c1eecea5f783e2b5c9c22819661674c50efce9e70d87d53f92",
    ),
    (
        8,
        727,
        "fabf4d082536c84f42a9f329ffb1e8ace736c0232b0e513776f596109b7e489e",
    ),
    (
        8,
        1019,
        "fa347c693322dc5293a01d2deada9835043d74eb4607cd1e2a12ff71936d231b",
    ),
    (
        772,
        0,
        "0ad6a8488ea6c42f90d17c8f236db626519d474b9307397656c0956768b81e42",
    ),
    (
        772,
        100,
        "8543239f738bfb8dfd795ecc2e7b7906dda1bf7e1e9b3ec3f0e4b09295daa228",
    ),
    (
        772,
        727,
        "084d89f6ae27fbf15ef047885627607fdf36f3a2451713ed8d2cd4eca5c52f5d",
    ),
    (
        772,
        1019,
        "2aeb06bcc92b70f6667eb2341c14cca18977bb94c6ff3018d9adbd3cd54a8b55",
    ),
];

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let hash = suite.common.hash_provider.hash(&parts.concat());
    hash.as_ref().try_into().unwrap()
}

/// RFC 2104, with blocks of 64 bytes.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&sha256(&[key])),
    }
    let inner = sha256(&[&block.map(|b| b ^ 0x36), &parts.concat()]);
    sha256(&[&block.map(|b| b ^ 0x5c), &inner])
}

/// A packet of a version that has digests, whose four bytes at `scheme` sum up to `sum`, without its digest.
fn packet(scheme: usize, sum: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..PACKET).map(|i| (i * 31 + i / 7) as u8).collect();
    packet[..8].copy_from_slice(&[0, 0, 0, 9, 9, 0, 124, 2]);
    let mut rest = sum;
    for byte in &mut packet[scheme..scheme + 4] {
        *byte = rest.min(255) as u8;
        rest -= usize::from(*byte);
    }
    packet
}

/// Where the digest is, and what it is to be under `key`.
fn digest(packet: &[u8], scheme: usize, key: &[u8]) -> (usize, [u8; 32]) {
    let sum: usize = packet[scheme..scheme + 4]
        .iter()
        .map(|&b| usize::from(b))
        .sum();
    let at = scheme + 4 + sum % 728;
    (at, hmac(key, &[&packet[..at], &packet[at + 32..]]))
}

fn signed(scheme: usize, sum: usize, key: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let mut packet = packet(scheme, sum);
    let (at, digest) = digest(&packet, scheme, key);
    packet[at..at + 32].copy_from_slice(&digest);
    (packet, digest)
}

/// The digest in `packet`, if one of the schemes has it.
fn found(packet: &[u8], key: &[u8]) -> Option<[u8; 32]> {
    SCHEMES.into_iter().find_map(|scheme| {
        let (at, digest) = digest(packet, scheme, key);
        (packet[at..at + 32] == digest).then_some(digest)
    })
}

/// Is `answer` signed for the packet that had `digest`, by the end of that `name`?
fn is_signed_for(answer: &[u8], digest: &[u8; 32], name: &[u8]) -> bool {
    let key = hmac(&[name, TAIL.as_slice()].concat(), &[digest]);
    answer.len() == PACKET && answer[PACKET - 32..] == hmac(&key, &[&answer[..PACKET - 32]])
}

/// The first byte and a packet.
fn with_version(version: u8, packet: &[u8]) -> Vec<u8> {
    [&[version], packet].concat()
}

#[test]
fn digests_are_where_and_what_another_implementation_says() {
    for (scheme, sum, expected) in VECTORS {
        let (_, digest) = digest(&packet(scheme, sum), scheme, PLAYER);
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, expected, "scheme {scheme}, sum {sum}");
    }
}

#[test]
fn a_client_with_a_digest_of_either_scheme_is_answered_with_a_signature() {
    for (scheme, sum, _) in VECTORS {
        let name = format!("scheme {scheme}, sum {sum}");
        let (c1, digest) = signed(scheme, sum, PLAYER);
        for step in [1, 1537, PEER_BYTES] {
            let mut server = Server::new();
            let mut reply = Vec::new();
            for part in with_version(3, &c1).chunks(step) {
                reply.extend(server.receive(part).unwrap().reply);
            }
            assert_eq!(reply.len(), PEER_BYTES, "{name}");
            assert_eq!(reply[0], VERSION, "{name}");
            let (s1, s2) = reply[1..].split_at(PACKET);
            let own = found(s1, SERVER).unwrap_or_else(|| panic!("{name}: S1 without a digest"));
            assert!(is_signed_for(s2, &digest, SERVER), "{name}: S2");
            assert!(
                !is_signed_for(s2, &own, SERVER),
                "{name}: a check that cannot fail"
            );
            // C2 as such a client makes it, and the first bytes behind it.
            let mut c2 = vec![0x5a; PACKET];
            let key = hmac(&[PLAYER, TAIL.as_slice()].concat(), &[&own]);
            let signature = hmac(&key, &[&c2[..PACKET - 32]]);
            c2[PACKET - 32..].copy_from_slice(&signature);
            c2.extend([2, 0, 0]);
            let progress = server.receive(&c2).unwrap();
            assert_eq!(progress.reply, Bytes::new(), "{name}");
            assert_eq!(progress.done.as_deref(), Some(&[2, 0, 0][..]), "{name}");
        }
    }
}

#[test]
fn a_client_without_a_digest_that_holds_hears_its_own_packet() {
    let (good, _) = signed(772, 100, PLAYER);
    let broken = |at: usize| {
        let mut packet = good.clone();
        packet[at] ^= 1;
        packet
    };
    let mut simple = packet(8, 100);
    simple[4..8].fill(0);
    for (name, c1) in [
        ("the version of the specification", simple),
        ("a version without a digest", packet(8, 100)),
        ("a digest with a wrong bit", broken(876)),
        ("a packet with a wrong bit", broken(1_000)),
        ("a server's digest", signed(8, 100, SERVER).0),
        ("nothing but zeroes", vec![0; PACKET]),
        ("nothing but ones", vec![0xff; PACKET]),
    ] {
        let mut server = Server::new();
        let reply = server.receive(&with_version(3, &c1)).unwrap().reply;
        assert_eq!(reply.len(), PEER_BYTES, "{name}");
        assert_eq!(reply[1 + PACKET..], c1, "{name}");
        let s1 = reply[1..=PACKET].to_vec();
        assert!(server.receive(&s1).unwrap().done.is_some(), "{name}");
    }
}

#[test]
fn our_client_opens_with_a_digest_and_signs_its_answer_to_one() {
    for (scheme, sum, _) in VECTORS {
        let name = format!("scheme {scheme}, sum {sum}");
        let (mut client, opening) = Client::new();
        assert_eq!((opening.len(), opening[0]), (1 + PACKET, VERSION));
        let own = found(&opening[1..], PLAYER).expect("C1 has a digest");
        let (s1, digest) = signed(scheme, sum, SERVER);
        let mut c2 = client
            .receive(&with_version(3, &s1))
            .unwrap()
            .reply
            .to_vec();
        assert!(is_signed_for(&c2, &digest, PLAYER), "{name}");
        assert!(
            !is_signed_for(&c2, &own, PLAYER),
            "{name}: a check that cannot fail"
        );
        // S2, whatever is in it, and the first bytes behind it.
        let progress = client
            .receive(&[&[7; PACKET][..], &[2, 0]].concat())
            .unwrap();
        c2.extend(&progress.reply);
        assert_eq!(c2.len(), PACKET, "{name}");
        assert_eq!(progress.done.as_deref(), Some(&[2, 0][..]), "{name}");
    }
}

#[test]
fn our_client_repeats_the_packet_of_a_simple_server_and_refuses_another_version() {
    let mut simple = packet(8, 100);
    simple[4..8].fill(0);
    for (name, s1) in [
        ("simple", simple),
        ("a player's digest", signed(8, 100, PLAYER).0),
    ] {
        let (mut client, opening) = Client::new();
        // A simple server's whole answer in one piece.
        let all = [&with_version(3, &s1), &opening[1..]].concat();
        let progress = client.receive(&all).unwrap();
        assert_eq!(progress.reply[..], s1, "{name}");
        assert_eq!(progress.done, Some(Bytes::new()), "{name}");
    }
    for version in [0, 2, 6, 8, 9, b'H', 0xff] {
        let (mut client, _) = Client::new();
        let refused = client.receive(&with_version(version, &packet(8, 0)));
        assert_eq!(refused, Err(Error::Version(version)));
        let refused = Server::new().receive(&with_version(version, &signed(8, 0, PLAYER).0));
        assert_eq!(
            refused,
            Err(Error::Version(version)),
            "with a digest that holds"
        );
    }
}

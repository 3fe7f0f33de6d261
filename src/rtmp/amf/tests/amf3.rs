//! AMF3 as Flash wrote it, and as strangers might.

use bytes::Bytes;

use super::*;

/// A string that has not been sent before.
fn text3(text: &str) -> Vec<u8> {
    assert!(text.len() < 64);
    [&[(text.len() as u8) << 1 | 1], text.as_bytes()].concat()
}

fn object(properties: &[(&str, Value)]) -> Value {
    let properties = properties.iter();
    Value::Object(
        properties
            .map(|(k, v)| (k.to_string(), v.clone()))
            .collect(),
    )
}

fn string(text: &str) -> Value {
    Value::Utf8String(text.into())
}

/// One value in AMF3, where AMF0 says that one follows.
fn decode_one(bytes: &[u8]) -> Result<Vec<Value>, Error> {
    decode(&[&[0x11], bytes].concat())
}

#[test]
fn every_type_is_read_as_its_nearest_in_amf0() {
    let double = 2.5f64.to_be_bytes();
    let cases: Vec<(&str, Vec<u8>, Value)> = vec![
        ("undefined", vec![0], Value::Undefined),
        ("null", vec![1], Value::Null),
        ("false", vec![2], Value::Boolean(false)),
        ("true", vec![3], Value::Boolean(true)),
        ("integer of one byte", vec![4, 0x7f], Value::Number(127.0)),
        (
            "integer of two bytes",
            vec![4, 0x81, 0],
            Value::Number(128.0),
        ),
        (
            "integer of four bytes",
            vec![4, 0x80, 0xc0, 0x80, 0],
            Value::Number(2_097_152.0),
        ),
        (
            "largest integer",
            vec![4, 0xbf, 0xff, 0xff, 0xff],
            Value::Number(268_435_455.0),
        ),
        (
            "minus one",
            vec![4, 0xff, 0xff, 0xff, 0xff],
            Value::Number(-1.0),
        ),
        ("double", [&[5], &double[..]].concat(), Value::Number(2.5)),
        ("string", [vec![6], text3("é")].concat(), string("é")),
        (
            "XML document",
            [vec![7], text3("<a/>")].concat(),
            string("<a/>"),
        ),
        ("XML", [vec![11], text3("<a/>")].concat(), string("<a/>")),
        ("date", [&[8, 1], &double[..]].concat(), Value::Number(2.5)),
        ("byte array", vec![12, 7, 9, 9, 9], Value::Undefined),
        (
            "array",
            vec![9, 5, 1, 4, 1, 3],
            Value::StrictArray(vec![Value::Number(1.0), Value::Boolean(true)]),
        ),
        (
            "array with names",
            [vec![9, 3], text3("a"), vec![3, 1, 4, 9]].concat(),
            object(&[("a", Value::Boolean(true)), ("0", Value::Number(9.0))]),
        ),
        (
            "vector of int",
            vec![13, 5, 0, 255, 255, 255, 255, 0, 0, 0, 2],
            Value::StrictArray(vec![Value::Number(-1.0), Value::Number(2.0)]),
        ),
        (
            "vector of uint",
            vec![14, 3, 0, 255, 255, 255, 255],
            Value::StrictArray(vec![Value::Number(4_294_967_295.0)]),
        ),
        (
            "vector of double",
            [&[15, 3, 1], &double[..]].concat(),
            Value::StrictArray(vec![Value::Number(2.5)]),
        ),
        (
            "vector of objects",
            [vec![16, 3, 0], text3("C"), vec![1]].concat(),
            Value::StrictArray(vec![Value::Null]),
        ),
        (
            "dictionary: keys and values in turn",
            [vec![17, 3, 0, 6], text3("k"), vec![4, 5]].concat(),
            Value::StrictArray(vec![string("k"), Value::Number(5.0)]),
        ),
        (
            "anonymous object",
            [
                vec![10, 0x0b, 1],
                text3("app"),
                vec![6],
                text3("live"),
                vec![1],
            ]
            .concat(),
            object(&[("app", string("live"))]),
        ),
        (
            "object of a class",
            [
                vec![10, 0x23],
                text3("C"),
                text3("x"),
                text3("y"),
                vec![4, 1, 4, 2],
            ]
            .concat(),
            object(&[("x", Value::Number(1.0)), ("y", Value::Number(2.0))]),
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(decode_one(&bytes), Ok(vec![expected]), "{name}");
        for end in 0..bytes.len() {
            assert!(decode_one(&bytes[..end]).is_err(), "{name}, cut at {end}");
        }
    }
}

#[test]
fn strings_and_classes_are_referred_to() {
    // Two objects of one class; the second value of each is the first string again.
    let one = [
        vec![10, 0x23],
        text3("C"),
        text3("x"),
        text3("y"),
        vec![4, 1, 6, 2],
    ]
    .concat();
    let two = vec![10, 1, 6, 4, 4, 7];
    let array = [vec![9, 5, 1], one, two].concat();
    let expected = Value::StrictArray(vec![
        object(&[("x", Value::Number(1.0)), ("y", string("x"))]),
        object(&[("x", string("y")), ("y", Value::Number(7.0))]),
    ]);
    assert_eq!(decode_one(&array), Ok(vec![expected]));
    // A reference to a whole object is not followed.
    let itself = [vec![10, 0x0b, 1], text3("me"), vec![10, 0, 1]].concat();
    assert_eq!(
        decode_one(&itself),
        Ok(vec![object(&[("me", Value::Undefined)])])
    );
    // Tables begin anew with each value.
    let twice = [vec![0x11, 6], text3("a"), vec![0x11, 6, 0]].concat();
    assert_eq!(decode(&twice), Err(Error::Reference { at: 7 }));
}

#[test]
fn values_around_and_inside_amf0_keep_their_places() {
    let bytes = [
        Writer::new().string("onMetaData").finish().to_vec(),
        vec![3],
        key("a"),
        vec![0x11, 4, 5],
        key("b"),
        vec![1, 1, 0, 0, 9],
        vec![0x11, 3],
    ]
    .concat();
    let inner = object(&[("a", Value::Number(5.0)), ("b", Value::Boolean(true))]);
    assert_eq!(
        decode(&bytes),
        Ok(vec![string("onMetaData"), inner, Value::Boolean(true)])
    );
    assert_eq!(check(&bytes), Ok(()));
}

#[test]
fn messages_that_say_amf3_are_read_in_each_form() {
    let amf0 = Writer::new().string("connect").number(1.0).finish();
    let amf3 = [vec![6], text3("connect"), vec![4, 1]].concat();
    let expected = Ok(vec![string("connect"), Value::Number(1.0)]);
    for body in [&amf0[..], &amf3] {
        assert_eq!(decode3(body), expected);
        assert_eq!(decode3(&[&[0], body].concat()), expected);
        let plain = plain3(&[&[0], body].concat().into()).unwrap();
        assert_eq!(plain, amf0);
    }
}

#[test]
fn amf0_without_amf3_in_it_is_passed_on_as_it_is() {
    // A date, latin-1 text and a long string stay what they are.
    let odd = [&[11], &[0; 10][..], &[2, 0, 1, 0xe9, 12, 0, 0, 0, 1, b'x']].concat();
    let odd = Bytes::from(odd);
    assert_eq!(plain(&odd).unwrap().as_ptr(), odd.as_ptr());
    assert!(plain(&Bytes::from_static(&[3, 0])).is_err());
}

#[test]
fn monsters_are_refused_within_the_limits() {
    // 20,000 arrays in one another.
    let deep = [9, 3, 1].repeat(20_000);
    assert!(matches!(decode_one(&deep), Err(Error::TooDeep { .. })));
    // The limit holds for both languages together.
    let both = [
        [10, 0, 0, 0, 1].repeat(20),
        vec![0x11],
        [9, 3, 1].repeat(20),
    ]
    .concat();
    assert!(matches!(decode(&both), Err(Error::TooDeep { .. })));
    let deepest = [
        [10, 0, 0, 0, 1].repeat(16),
        vec![0x11],
        [9, 3, 1].repeat(16),
        vec![1],
    ]
    .concat();
    assert!(decode(&deepest).is_ok());
    // Masses of values, of names without an object, and counts without anything behind them.
    let many = [vec![9, 0x80 | 0x7f, 0x7f, 1], vec![1; 16_000]].concat();
    assert!(matches!(decode_one(&many), Err(Error::TooMany { .. })));
    let names = [vec![10, 0xff, 0xff, 0x03, 1], [3, b'a'].repeat(30_000)].concat();
    assert!(matches!(decode_one(&names), Err(Error::TooMany { .. })));
    for lie in [
        [9, 0xff, 0xff, 0xff, 0xff],
        [13, 0xff, 0xff, 0xff, 0xff],
        [12, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert!(decode_one(&lie).is_err());
    }
    // One long string, referred to 2,400 times, would come out as 144 MB.
    let long = [vec![6, 0x87, 0xa9, 0x41], vec![b'x'; 60_000]].concat();
    let bomb = [vec![9, 0xa5, 0x43, 1], long, [6, 0].repeat(2_400)].concat();
    assert!(matches!(decode_one(&bomb), Err(Error::TooLong { .. })));
    // What only its own class can read.
    let external = [vec![10, 7], text3("flex.messaging.io.ArrayCollection")].concat();
    let error = decode_one(&external).unwrap_err();
    assert!(matches!(error, Error::External { .. }), "{error}");
    assert_eq!(error.reason(), Reason::Amf);
}

proptest! {
    #[test]
    fn any_amf3_is_decoded_or_refused(bytes in proptest::collection::vec(0u8..20, 0..400)) {
        let _ = decode_one(&bytes);
        let _ = decode3(&bytes);
        let whole = Bytes::from(bytes);
        if let Ok(plain) = plain3(&whole) {
            prop_assert!(plain.len() <= 2 * MAX_BYTES);
            prop_assert!(check(&plain).is_ok());
        }
    }
}

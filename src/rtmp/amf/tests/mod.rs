mod amf3;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn key(name: &str) -> Vec<u8> {
    [&(name.len() as u16).to_be_bytes()[..], name.as_bytes()].concat()
}

#[test]
fn what_the_writer_writes_is_decoded_again() {
    let bytes = Writer::new()
        .string("connect")
        .number(1.0)
        .object()
        .key("app")
        .string("live")
        .key("fpad")
        .boolean(false)
        .key("fourCcList")
        .strings(&["hvc1".into(), "av01".into()])
        .end()
        .null()
        .finish();
    let list = ["hvc1", "av01"].map(|t| Value::Utf8String(t.into()));
    assert_eq!(
        decode(&bytes).unwrap(),
        [
            Value::Utf8String("connect".into()),
            Value::Number(1.0),
            Value::Object(HashMap::from([
                ("app".into(), Value::Utf8String("live".into())),
                ("fpad".into(), Value::Boolean(false)),
                ("fourCcList".into(), Value::StrictArray(list.into())),
            ])),
            Value::Null,
        ]
    );
}

#[test]
fn rarer_types_are_read_as_their_nearest_common_one() {
    let number = 1.5f64.to_be_bytes();
    let object = HashMap::from([("a".to_string(), Value::Null)]);
    let body = [key("a"), vec![5, 0, 0, 9]].concat();
    for (name, bytes, expected) in [
        (
            "date",
            [&[11], &number[..], &[0, 0]].concat(),
            Value::Number(1.5),
        ),
        (
            "long string",
            vec![12, 0, 0, 0, 2, b'h', b'i'],
            Value::Utf8String("hi".into()),
        ),
        (
            "xml",
            vec![15, 0, 0, 0, 1, b'x'],
            Value::Utf8String("x".into()),
        ),
        ("unsupported", vec![13], Value::Undefined),
        ("reference", vec![7, 0, 1], Value::Undefined),
        (
            "ecma array",
            [&[8, 0, 0, 0, 99], &body[..]].concat(),
            Value::Object(object.clone()),
        ),
        (
            "typed object",
            [&[16, 0, 1, b'C'], &body[..]].concat(),
            Value::Object(object),
        ),
    ] {
        check(&bytes).unwrap();
        assert_eq!(decode(&bytes).unwrap(), [expected], "{name}");
    }
}

#[test]
fn ten_thousand_levels_are_refused_without_recursion() {
    let objects = [vec![3], key("a")].concat().repeat(10_000);
    let arrays = [10, 0, 0, 0, 1].repeat(10_000);
    for bytes in [objects, arrays] {
        assert!(matches!(
            decode(&bytes),
            Err(Error::TooDeep {
                limit: MAX_DEPTH,
                ..
            })
        ));
        assert!(matches!(check(&bytes), Err(Error::TooDeep { .. })));
    }
}

#[test]
fn the_deepest_nesting_allowed_is_decoded() {
    let mut bytes = [10, 0, 0, 0, 1].repeat(MAX_DEPTH);
    bytes.push(5);
    assert!(decode(&bytes).is_ok());
}

#[test]
fn masses_of_values_are_refused() {
    assert_eq!(
        decode(&vec![5; 16 << 20]),
        Err(Error::TooLong {
            bytes: 16 << 20,
            limit: MAX_BYTES
        })
    );
    assert!(matches!(
        decode(&vec![5; MAX_BYTES]),
        Err(Error::TooMany { .. })
    ));
    assert_eq!(decode(&[5; MAX_VALUES]).unwrap().len(), MAX_VALUES);
    // An array of four thousand million that ends after one.
    assert!(matches!(
        decode(&[10, 255, 255, 255, 255, 5]),
        Err(Error::Truncated { .. })
    ));
}

#[test]
fn broken_bytes_are_refused_with_the_place() {
    for (name, bytes, expected) in [
        ("short number", vec![0, 1, 2], Error::Truncated { at: 1 }),
        (
            "short string",
            vec![2, 0, 9, b'a'],
            Error::Truncated { at: 3 },
        ),
        (
            "lying long string",
            vec![12, 255, 0, 0, 0],
            Error::Truncated { at: 5 },
        ),
        (
            "open object",
            vec![3, 0, 1, b'a', 5],
            Error::Truncated { at: 5 },
        ),
        ("empty key", vec![3, 0, 0, 5], Error::EmptyKey { at: 3 }),
        (
            "AMF3 without a value",
            vec![5, 0x11],
            Error::Truncated { at: 2 },
        ),
        (
            "unknown type",
            vec![5, 0x12],
            Error::Marker {
                marker: 0x12,
                at: 1,
            },
        ),
        ("stray end", vec![9], Error::Marker { marker: 9, at: 0 }),
        ("latin-1", vec![2, 0, 1, 0xe9], Error::NotUtf8 { at: 3 }),
    ] {
        assert_eq!(decode(&bytes), Err(expected), "{name}");
    }
}

#[test]
fn the_shape_check_takes_text_in_any_encoding() {
    assert_eq!(check(&[2, 0, 1, 0xe9]), Ok(()));
}

#[test]
fn an_over_long_string_is_cut_between_characters() {
    let bytes = Writer::new().string(&"é".repeat(40_000)).finish();
    // 2 * 32,767 = 65,534: one byte more would be half a character.
    assert_eq!(bytes.len(), 3 + 65_534);
    assert_eq!(bytes[1..3], 65_534u16.to_be_bytes());
    assert!(std::str::from_utf8(&bytes[3..]).is_ok());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(|n| Value::Number(n.into())),
        any::<bool>().prop_map(Value::Boolean),
        ".{0,20}".prop_map(Value::Utf8String),
        Just(Value::Null),
        Just(Value::Undefined),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::StrictArray),
            proptest::collection::hash_map(".{1,8}", inner, 0..6).prop_map(Value::Object),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_survives_the_guard(values in proptest::collection::vec(value(), 0..6)) {
        let bytes = rml_amf0::serialize(&values).unwrap();
        check(&bytes).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), values);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(0u8..20, 0..400)) {
        let shape = check(&bytes);
        if let Ok(values) = decode(&bytes) {
            prop_assert!(shape.is_ok());
            prop_assert!(values.len() <= MAX_VALUES);
        }
    }
}

//! What the guard lets through can be decoded, or has text that is not UTF-8; what it does not is never decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linkmic::rtmp::amf::{self, Error, MAX_DEPTH, Value};

fuzz_target!(|data: &[u8]| {
    match (amf::check(data), amf::decode(data)) {
        (Ok(()), Ok(values)) => {
            for value in &values {
                assert!(depth(value) <= MAX_DEPTH + 1);
            }
            // Nulls cost a byte; nothing costs more values than bytes.
            assert!(values.len() <= data.len());
        }
        (Ok(()), Err(Error::NotUtf8 { .. })) => {}
        (Err(checked), Err(decoded)) => {
            let text = matches!(decoded, Error::NotUtf8 { .. });
            assert!(text || checked == decoded, "{checked} but {decoded}");
        }
        (checked, decoded) => panic!("the guard says {checked:?}, the decoder {decoded:?}"),
    }
});

fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Object(properties) => properties.values().map(depth).max(),
        Value::StrictArray(values) => values.iter().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

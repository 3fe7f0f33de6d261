//! AMF0, and AMF3 inside it: reads what strangers send without trusting it, and writes the little our own commands need.
//!
//! Values and their decoding are `rml_amf0`'s. Its decoder recurses without limit, takes short reads for whole ones
//! and knows seven types, so everything passes a [guard](check) first, which walks the bytes without recursion and
//! rewrites the rarer types, and whatever is in AMF3, into those seven. Called by [`command`](crate::rtmp::command) and the sessions, and by
//! whoever wants to read metadata.

mod amf3;
mod guard;

use std::io::Cursor;

use bytes::{BufMut, BytesMut};

pub use guard::{MAX_BYTES, MAX_DEPTH, MAX_VALUES, check};
/// One AMF0 value. ECMA arrays and typed objects are objects, dates are numbers (milliseconds since 1970).
pub use rml_amf0::Amf0Value as Value;

use crate::reason::Reason;

/// Why bytes were not taken as AMF0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("AMF of {bytes} bytes exceeds the limit of {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("AMF nested deeper than {limit} levels at byte {at}")]
    TooDeep { at: usize, limit: usize },
    #[error("AMF with more than {limit} values at byte {at}")]
    TooMany { at: usize, limit: usize },
    #[error("AMF ends inside a value that began before byte {at}")]
    Truncated { at: usize },
    #[error("AMF type {marker:#04x} at byte {at} is not known")]
    Marker { marker: u8, at: usize },
    #[error("AMF object has an empty property name at byte {at}")]
    EmptyKey { at: usize },
    #[error("AMF3 refers before byte {at} to something that was not sent")]
    Reference { at: usize },
    #[error("AMF3 object before byte {at} is in a form of its own class")]
    External { at: usize },
    #[error("AMF string at byte {at} is not UTF-8")]
    NotUtf8 { at: usize },
    #[error("AMF could not be decoded: {0}")]
    Decode(String),
}

impl Error {
    /// The reason under which this end is counted and reported.
    pub fn reason(&self) -> Reason {
        match self {
            Error::TooLong { .. } | Error::TooDeep { .. } | Error::TooMany { .. } => {
                Reason::TooLarge
            }
            _ => Reason::Amf,
        }
    }
}

/// Decodes a sequence of values in AMF0, up to the end of `bytes`; where AMF0 says that a value in AMF3 follows, that too.
///
/// # Errors
/// When the bytes are not well-formed AMF within [`MAX_BYTES`], [`MAX_DEPTH`] and [`MAX_VALUES`], or a string in
/// them is not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<Vec<Value>, Error> {
    decode_plain(guard::rewrite(bytes)?)
}

/// Decodes a sequence of values of a message that says it is AMF3 (types 15 and 17). What such messages hold is AMF0
/// behind one byte 0, with single values in AMF3, as Flash sends it; AMF0 alone; or AMF3 throughout.
///
/// # Errors
/// As [`decode`].
pub fn decode3(bytes: &[u8]) -> Result<Vec<Value>, Error> {
    match body3(bytes) {
        Body::Amf0(body) => decode(body),
        Body::Amf3(body) => decode_plain(guard::rewrite3(body)?),
    }
}

/// As [`plain`], of a message that says it is AMF3 (see [`decode3`]).
///
/// # Errors
/// As [`plain`].
pub fn plain3(bytes: &bytes::Bytes) -> Result<bytes::Bytes, Error> {
    match body3(bytes) {
        Body::Amf0(body) => plain(&bytes.slice_ref(body)),
        Body::Amf3(body) => Ok(guard::rewrite3(body)?.into()),
    }
}

/// The same AMF0 without values in AMF3 among it: `bytes` itself where there is none, else rewritten.
///
/// # Errors
/// As [`decode`]; text in AMF0 may be in any encoding, as in [`check`].
pub fn plain(bytes: &bytes::Bytes) -> Result<bytes::Bytes, Error> {
    Ok(match guard::without_amf3(bytes)? {
        Some(rewritten) => rewritten.into(),
        None => bytes.clone(),
    })
}

enum Body<'a> {
    Amf0(&'a [u8]),
    Amf3(&'a [u8]),
}

/// What stands in a message that says it is AMF3. Commands and data begin with a string, whose type numbers differ.
fn body3(bytes: &[u8]) -> Body<'_> {
    let body = bytes.strip_prefix(&[0]).unwrap_or(bytes);
    match body.first() {
        Some(&amf3::STRING) => Body::Amf3(body),
        _ => Body::Amf0(body),
    }
}

fn decode_plain(plain: Vec<u8>) -> Result<Vec<Value>, Error> {
    rml_amf0::deserialize(&mut Cursor::new(plain)).map_err(|e| Error::Decode(e.to_string()))
}

/// The value's text, when it is a string.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Utf8String(text) => Some(text),
        _ => None,
    }
}

/// The value's number, when it is one.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

/// The property of an object, when it is an object and has it.
pub fn property<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(properties) => properties.get(key),
        _ => None,
    }
}

/// Writes values one after the other, keeping the order of properties (some clients read `_result` by position).
///
/// Strings longer than 65,535 bytes are cut at a character's edge: nothing we send comes near.
#[derive(Debug, Default)]
pub struct Writer(BytesMut);

impl Writer {
    /// An empty sequence.
    pub fn new() -> Self {
        Self(BytesMut::with_capacity(256))
    }

    /// Appends a number.
    pub fn number(&mut self, value: f64) -> &mut Self {
        self.0.put_u8(guard::NUMBER);
        self.0.put_f64(value);
        self
    }

    /// Appends a boolean.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.0.put_slice(&[guard::BOOLEAN, value.into()]);
        self
    }

    /// Appends a string.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.0.put_u8(guard::STRING);
        self.bare_string(value);
        self
    }

    /// Appends null.
    pub fn null(&mut self) -> &mut Self {
        self.0.put_u8(guard::NULL);
        self
    }

    /// Opens an object: [`Writer::key`] and a value, repeated, then [`Writer::end`].
    pub fn object(&mut self) -> &mut Self {
        self.0.put_u8(guard::OBJECT);
        self
    }

    /// Appends the name of the property whose value comes next. Never empty.
    pub fn key(&mut self, name: &str) -> &mut Self {
        debug_assert!(!name.is_empty());
        self.bare_string(name);
        self
    }

    /// Closes the object opened last.
    pub fn end(&mut self) -> &mut Self {
        self.0.put_slice(&[0, 0, guard::OBJECT_END]);
        self
    }

    /// Appends an array of strings.
    pub fn strings(&mut self, values: &[String]) -> &mut Self {
        self.0.put_u8(guard::STRICT_ARRAY);
        self.0.put_u32(values.len() as u32);
        for value in values {
            self.string(value);
        }
        self
    }

    /// What was written.
    pub fn finish(&mut self) -> bytes::Bytes {
        self.0.split().freeze()
    }

    fn bare_string(&mut self, value: &str) {
        let end = value.floor_char_boundary(usize::from(u16::MAX));
        self.0.put_u16(end as u16); // at most u16::MAX by the line above
        self.0.put_slice(&value.as_bytes()[..end]);
    }
}

#[cfg(test)]
mod tests;

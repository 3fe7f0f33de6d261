//! AMF0: reads what strangers send without trusting it, and writes the little our own commands need.
//!
//! Values and their decoding are `rml_amf0`'s. Its decoder recurses without limit, takes short reads for whole ones
//! and knows seven types, so everything passes a [guard](check) first, which walks the bytes without recursion and
//! rewrites the rarer types into those seven. Called by [`command`](crate::rtmp::command) and the sessions, and by
//! whoever wants to read metadata.

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
            _ => Reason::Protocol,
        }
    }
}

/// Decodes a sequence of values, up to the end of `bytes`.
///
/// # Errors
/// When the bytes are not well-formed AMF0 within [`MAX_BYTES`], [`MAX_DEPTH`] and [`MAX_VALUES`], or a string in
/// them is not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<Vec<Value>, Error> {
    let plain = guard::rewrite(bytes)?;
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

//! Commands: a name, a transaction number, an object and arguments, in AMF0 (read in AMF3 too).
//!
//! Called by the sessions of both ends, and by nobody else on the media path.

use crate::reason::Reason;
use crate::rtmp::amf::{self, Value, Writer};
use crate::rtmp::{Message, kind};

/// Why a message is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("command cannot be read: {0}")]
    Amf(#[from] amf::Error),
    #[error("command does not begin with a name")]
    NoName,
}

impl Error {
    /// The reason under which this end is counted and reported.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Amf(error) => error.reason(),
            Error::NoName => Reason::Protocol,
        }
    }
}

/// One command as received. No `Debug`: arguments carry signatures.
#[derive(Clone, PartialEq)]
pub struct Command {
    /// What is to be done, or `_result`, `_error`, `onStatus`.
    pub name: String,
    /// What the answer will quote; 0 when none is expected or none was given.
    pub transaction: f64,
    /// The command object; null for most commands.
    pub object: Value,
    /// Whatever follows.
    pub arguments: Vec<Value>,
}

impl Command {
    /// Reads a message of type [`kind::COMMAND`] or [`kind::COMMAND_AMF3`]. Missing trailing parts count as null.
    ///
    /// # Errors
    /// When the payload is not well-formed AMF within the guard's limits, or begins with anything but a string.
    pub fn parse(message: &Message) -> Result<Self, Error> {
        let values = match message.type_id {
            kind::COMMAND_AMF3 => amf::decode3(&message.payload)?,
            _ => amf::decode(&message.payload)?,
        };
        let mut values = values.into_iter();
        let Some(Value::Utf8String(name)) = values.next() else {
            return Err(Error::NoName);
        };
        Ok(Self {
            name,
            transaction: values
                .next()
                .and_then(|value| amf::number(&value))
                .unwrap_or(0.0),
            object: values.next().unwrap_or(Value::Null),
            arguments: values.collect(),
        })
    }

    /// The argument at `index`, when it is a string.
    pub(crate) fn text(&self, index: usize) -> Option<&str> {
        self.arguments.get(index).and_then(amf::text)
    }

    /// The argument at `index`, when it is a number.
    pub(crate) fn number(&self, index: usize) -> Option<f64> {
        self.arguments.get(index).and_then(amf::number)
    }

    /// The argument at `index` as a flag; some clients send 0 and 1.
    pub(crate) fn flag(&self, index: usize) -> Option<bool> {
        match self.arguments.get(index)? {
            Value::Boolean(flag) => Some(*flag),
            Value::Number(number) => Some(*number != 0.0),
            _ => None,
        }
    }
}

/// The AMF0 in a command or data message, without the byte 0 that the AMF3 types begin with.
pub(crate) fn amf0_of(message: &Message) -> &[u8] {
    match (message.type_id, &message.payload[..]) {
        (kind::COMMAND_AMF3 | kind::DATA_AMF3, [0, rest @ ..]) => rest,
        (_, whole) => whole,
    }
}

/// The string that AMF0 `bytes` begin with, and how many bytes it takes.
pub(crate) fn leading_string(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (head, rest) = bytes.split_first_chunk::<3>()?;
    let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
    let text = rest.get(..length).filter(|_| head[0] == 2)?;
    Some((text, 3 + length))
}

/// A command's first two values; object and arguments follow.
pub(crate) fn begin(name: &str, transaction: f64) -> Writer {
    let mut body = Writer::new();
    body.string(name).number(transaction);
    body
}

/// The object that `onStatus` and its kin carry.
pub(crate) fn info(body: &mut Writer, level: &str, code: &str, description: &str) {
    body.object().key("level").string(level);
    body.key("code").string(code);
    body.key("description").string(description).end();
}

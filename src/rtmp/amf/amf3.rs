//! AMF3 values inside AMF0: walked without recursion, and rewritten into the AMF0 types that the decoder knows.
//!
//! Called by the [guard](super::guard) where AMF0 says that one AMF3 value follows (Flash sends objects so), and for
//! whole sequences in AMF3. Reference tables begin anew with each sequence. References to whole objects become
//! undefined, as AMF0's own do: nothing read from commands needs them, and they could make a value of any size.

use super::Error;
use super::guard::{self, MAX_BYTES, MAX_DEPTH, MAX_VALUES};

const UNDEFINED: u8 = 0;
const NULL: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const INTEGER: u8 = 4;
const DOUBLE: u8 = 5;
pub(super) const STRING: u8 = 6;
const XML_DOCUMENT: u8 = 7;
const DATE: u8 = 8;
const ARRAY: u8 = 9;
const OBJECT: u8 = 10;
const XML: u8 = 11;
const BYTE_ARRAY: u8 = 12;
const VECTOR_INT: u8 = 13;
const VECTOR_UINT: u8 = 14;
const VECTOR_DOUBLE: u8 = 15;
const VECTOR_OBJECT: u8 = 16;
const DICTIONARY: u8 = 17;

/// What is open around the value that comes next.
enum Level {
    /// So many more values.
    Values(u32),
    /// The properties of the class, from the index on; then dynamic ones where it has them.
    Sealed { class: usize, next: usize },
    /// Named properties up to an empty name.
    Dynamic,
    /// The named part of an array; behind it so many values, numbered.
    Associative { numbered: u32 },
    /// The numbered values of an array that has named ones too.
    Numbered { next: u32, count: u32 },
}

#[derive(Clone)]
struct Class<'a> {
    names: Vec<&'a str>,
    is_dynamic: bool,
}

/// One walk over AMF3 values.
pub(super) struct Walk<'a, 'o> {
    bytes: &'a [u8],
    at: usize,
    /// Values met so far, AMF0 ones around this walk included.
    values: usize,
    /// Levels around this walk.
    depth: usize,
    levels: Vec<Level>,
    strings: Vec<&'a str>,
    classes: Vec<Class<'a>>,
    out: Option<&'o mut Vec<u8>>,
}

impl<'a, 'o> Walk<'a, 'o> {
    /// A walk from `at` on, that has met `values` values inside `depth` levels before.
    pub(super) fn new(
        bytes: &'a [u8],
        at: usize,
        values: usize,
        depth: usize,
        out: Option<&'o mut Vec<u8>>,
    ) -> Self {
        Self {
            bytes,
            at,
            values,
            depth,
            levels: Vec::new(),
            strings: Vec::new(),
            classes: Vec::new(),
            out,
        }
    }

    /// Takes one value, whole. Returns where it ends and how many values have been met.
    pub(super) fn one(mut self) -> Result<(usize, usize), Error> {
        self.whole()?;
        Ok((self.at, self.values))
    }

    /// Takes values up to the end of the bytes.
    pub(super) fn all(mut self) -> Result<(), Error> {
        while self.at < self.bytes.len() {
            self.whole()?;
        }
        Ok(())
    }

    fn whole(&mut self) -> Result<(), Error> {
        self.value()?;
        while let Some(level) = self.levels.pop() {
            self.go_on(level)?;
        }
        Ok(())
    }

    /// Takes the next part of what was opened last.
    fn go_on(&mut self, level: Level) -> Result<(), Error> {
        match level {
            Level::Values(0) => Ok(()),
            Level::Values(left) => {
                self.levels.push(Level::Values(left - 1));
                self.value()
            }
            Level::Sealed { class, next } => {
                let Some(properties) = self.classes.get(class) else {
                    return Err(Error::Truncated { at: self.at });
                };
                let Some(name) = properties.names.get(next).copied() else {
                    if properties.is_dynamic {
                        self.levels.push(Level::Dynamic);
                    } else {
                        self.end()?;
                    }
                    return Ok(());
                };
                self.key(name)?;
                let next = next + 1;
                self.levels.push(Level::Sealed { class, next });
                self.value()
            }
            Level::Dynamic => {
                let name = self.string()?;
                if name.is_empty() {
                    return self.end();
                }
                self.key(name)?;
                self.levels.push(Level::Dynamic);
                self.value()
            }
            Level::Associative { numbered } => {
                let name = self.string()?;
                if name.is_empty() {
                    let count = numbered;
                    self.levels.push(Level::Numbered { next: 0, count });
                    return Ok(());
                }
                self.key(name)?;
                self.levels.push(Level::Associative { numbered });
                self.value()
            }
            Level::Numbered { next, count } if next == count => self.end(),
            Level::Numbered { next, count } => {
                self.key(&next.to_string())?;
                let next = next + 1;
                self.levels.push(Level::Numbered { next, count });
                self.value()
            }
        }
    }

    /// Takes one value, or the head of one, whose parts [`Self::go_on`] takes.
    fn value(&mut self) -> Result<(), Error> {
        self.count()?;
        let begin = self.at;
        let marker = self.take(1)?[0];
        match marker {
            UNDEFINED => self.emit(&[guard::UNDEFINED]),
            NULL => self.emit(&[guard::NULL]),
            FALSE | TRUE => self.emit(&[guard::BOOLEAN, u8::from(marker == TRUE)]),
            INTEGER => {
                // 29 bits with a sign.
                let value = (self.u29()? << 3) as i32 >> 3;
                self.number(value.into())
            }
            DOUBLE => {
                let value = self.double()?;
                self.number(value)
            }
            STRING => {
                let text = self.string()?;
                self.text(text)
            }
            XML_DOCUMENT | XML => match self.inline()? {
                Some(length) => {
                    let text = self.utf8(length as usize)?;
                    self.text(text)
                }
                None => self.emit(&[guard::UNDEFINED]),
            },
            DATE => match self.inline()? {
                Some(_) => {
                    let value = self.double()?;
                    self.number(value)
                }
                None => self.emit(&[guard::UNDEFINED]),
            },
            BYTE_ARRAY => {
                if let Some(length) = self.inline()? {
                    self.take(length as usize)?;
                }
                self.emit(&[guard::UNDEFINED])
            }
            ARRAY => match self.inline()? {
                Some(count) => self.array(count),
                None => self.emit(&[guard::UNDEFINED]),
            },
            OBJECT => self.object(),
            VECTOR_INT | VECTOR_UINT | VECTOR_DOUBLE => match self.inline()? {
                Some(count) => self.numbers(marker, count),
                None => self.emit(&[guard::UNDEFINED]),
            },
            VECTOR_OBJECT => match self.inline()? {
                Some(count) => {
                    self.take(1)?; // whether its length is fixed
                    self.string()?; // the name of the class
                    self.values(count)
                }
                None => self.emit(&[guard::UNDEFINED]),
            },
            DICTIONARY => match self.inline()? {
                // Keys of any type: keys and values in turn.
                Some(count) => {
                    self.take(1)?; // whether its keys are weak
                    self.values(count.saturating_mul(2))
                }
                None => self.emit(&[guard::UNDEFINED]),
            },
            marker => Err(Error::Marker { marker, at: begin }),
        }
    }

    fn array(&mut self, count: u32) -> Result<(), Error> {
        // Nearly all arrays have no named part, and stay arrays.
        if self.bytes.get(self.at) == Some(&1) {
            self.at += 1;
            return self.values(count);
        }
        self.emit(&[guard::OBJECT])?;
        self.open(Level::Associative { numbered: count })
    }

    /// Opens so many values as an array.
    fn values(&mut self, count: u32) -> Result<(), Error> {
        self.emit(&[guard::STRICT_ARRAY])?;
        self.emit(&count.to_be_bytes())?;
        self.open(Level::Values(count))
    }

    fn numbers(&mut self, marker: u8, count: u32) -> Result<(), Error> {
        self.take(1)?; // whether its length is fixed
        self.emit(&[guard::STRICT_ARRAY])?;
        self.emit(&count.to_be_bytes())?;
        for _ in 0..count {
            self.count()?;
            let value = match marker {
                VECTOR_DOUBLE => self.double()?,
                _ => {
                    let part = self.take(4)?;
                    let word = [part[0], part[1], part[2], part[3]];
                    match marker {
                        VECTOR_INT => i32::from_be_bytes(word).into(),
                        _ => u32::from_be_bytes(word).into(),
                    }
                }
            };
            self.number(value)?;
        }
        Ok(())
    }

    fn object(&mut self) -> Result<(), Error> {
        let head = self.u29()?;
        if head & 1 == 0 {
            return self.emit(&[guard::UNDEFINED]);
        }
        let class = if head & 2 == 0 {
            let index = (head >> 2) as usize;
            if index >= self.classes.len() {
                return Err(Error::Reference { at: self.at });
            }
            index
        } else if head & 4 != 0 {
            // What an externalizable class wrote only that class can read.
            return Err(Error::External { at: self.at });
        } else {
            self.string()?; // the name of the class
            let count = (head >> 4) as usize;
            let mut names = Vec::new();
            for _ in 0..count {
                self.count()?;
                names.push(self.string()?);
            }
            self.classes.push(Class {
                names,
                is_dynamic: head & 8 != 0,
            });
            self.classes.len() - 1
        };
        self.emit(&[guard::OBJECT])?;
        self.open(Level::Sealed { class, next: 0 })
    }

    fn open(&mut self, level: Level) -> Result<(), Error> {
        if self.depth + self.levels.len() >= MAX_DEPTH {
            return Err(Error::TooDeep {
                at: self.at,
                limit: MAX_DEPTH,
            });
        }
        self.levels.push(level);
        Ok(())
    }

    fn count(&mut self) -> Result<(), Error> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Error::TooMany {
                at: self.at,
                limit: MAX_VALUES,
            });
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let part = self.bytes[self.at..]
            .get(..length)
            .ok_or(Error::Truncated { at: self.at })?;
        self.at += length;
        Ok(part)
    }

    fn double(&mut self) -> Result<f64, Error> {
        let part = self.take(8)?;
        // take gave eight bytes
        Ok(part.try_into().map_or(0.0, f64::from_be_bytes))
    }

    /// An unsigned number of 29 bits in one to four bytes.
    fn u29(&mut self) -> Result<u32, Error> {
        let mut value = 0;
        for place in 0..4 {
            let byte = u32::from(self.take(1)?[0]);
            if place == 3 {
                return Ok(value << 8 | byte);
            }
            value = value << 7 | byte & 0x7f;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }

    /// The number in a head that says "here it is"; `None`: it refers to an earlier object.
    fn inline(&mut self) -> Result<Option<u32>, Error> {
        let head = self.u29()?;
        Ok((head & 1 == 1).then_some(head >> 1))
    }

    fn string(&mut self) -> Result<&'a str, Error> {
        let head = self.u29()?;
        let length = (head >> 1) as usize;
        if head & 1 == 0 {
            return self
                .strings
                .get(length)
                .copied()
                .ok_or(Error::Reference { at: self.at });
        }
        let text = self.utf8(length)?;
        if !text.is_empty() {
            self.strings.push(text);
        }
        Ok(text)
    }

    fn utf8(&mut self, length: usize) -> Result<&'a str, Error> {
        let at = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|_| Error::NotUtf8 { at })
    }

    fn key(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::EmptyKey { at: self.at });
        }
        self.bare(name)
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        self.emit(&[guard::STRING])?;
        self.bare(text)
    }

    fn bare(&mut self, text: &str) -> Result<(), Error> {
        let too_long = Error::TooLong {
            bytes: text.len(),
            limit: MAX_BYTES,
        };
        let length = u16::try_from(text.len()).map_err(|_| too_long)?;
        self.emit(&length.to_be_bytes())?;
        self.emit(text.as_bytes())
    }

    fn number(&mut self, value: f64) -> Result<(), Error> {
        self.emit(&[guard::NUMBER])?;
        self.emit(&value.to_be_bytes())
    }

    fn end(&mut self) -> Result<(), Error> {
        self.emit(&[0, 0, guard::OBJECT_END])
    }

    /// Strings and class definitions are referred to, so that a few bytes may mean many: what comes out has the limit
    /// of what goes in.
    fn emit(&mut self, part: &[u8]) -> Result<(), Error> {
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        if out.len() + part.len() > 2 * MAX_BYTES {
            return Err(Error::TooLong {
                bytes: out.len() + part.len(),
                limit: 2 * MAX_BYTES,
            });
        }
        out.extend_from_slice(part);
        Ok(())
    }
}

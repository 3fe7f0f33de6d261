//! Lengths and colours as a request spells them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A position or size: a JSON number is pixels, a string like `"37.5%"` a share of the canvas (of the source's picture
/// where it cuts one, of the box's shorter side for a radius).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    Pixels(f64),
    /// Percent of the side in question, 0 to 100. A ratio of 0.375 is `Share(37.5)`.
    Share(f64),
}

impl Length {
    /// In pixels, where the side in question has `side` pixels.
    pub fn pixels(self, side: u32) -> f64 {
        match self {
            Length::Pixels(v) => v,
            Length::Share(percent) => percent / 100.0 * f64::from(side),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Length::Pixels(v) => write!(f, "{v}"),
            Length::Share(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Length::Pixels(v) if v.fract() == 0.0 => serializer.serialize_i64(*v as i64),
            Length::Pixels(v) => serializer.serialize_f64(*v),
            Length::Share(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Length;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of pixels or a share like \"37.5%\"")
            }
            fn visit_i64<E>(self, v: i64) -> Result<Length, E> {
                Ok(Length::Pixels(v as f64))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Length, E> {
                Ok(Length::Pixels(v as f64))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Length, E> {
                Ok(Length::Pixels(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Length, E> {
                v.strip_suffix('%')
                    .and_then(|digits| digits.parse().ok())
                    .filter(|percent: &f64| percent.is_finite())
                    .map(Length::Share)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(v), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// An opaque colour: `"#RRGGBB"`, or `"0xRRGGBB"` as the compatible interface spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Colour {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
}

impl Colour {
    pub const BLACK: Self = Self::rgb(0);
    pub const WHITE: Self = Self::rgb(0xff_ff_ff);

    /// From 0xRRGGBB; higher bits are ignored.
    pub const fn rgb(value: u32) -> Self {
        let [_, red, green, blue] = value.to_be_bytes();
        Self { red, green, blue }
    }

    /// `"#RRGGBB"` or `"0xRRGGBB"`, in either case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = ["#", "0x", "0X"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))?;
        // `from_str_radix` alone would take a sign.
        let plain = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u32::from_str_radix(digits, 16).ok().filter(|_| plain)?;
        Some(Self::rgb(value))
    }

    /// This one at 0, `other` at 1, evenly in between.
    pub fn towards(self, other: Self, share: f64) -> Self {
        let between = |a: u8, b: u8| {
            (f64::from(a) + (f64::from(b) - f64::from(a)) * share.clamp(0.0, 1.0)).round() as u8
        };
        Self {
            red: between(self.red, other.red),
            green: between(self.green, other.green),
            blue: between(self.blue, other.blue),
        }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

impl Serialize for Colour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Colour {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Colour;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a colour like \"#1a2b3c\" or \"0x1a2b3c\"")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Colour, E> {
                Colour::parse(v).ok_or_else(|| E::invalid_value(de::Unexpected::Str(v), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_number_is_pixels_and_a_percentage_is_a_share() {
        for (value, wanted) in [
            (json!(380), Length::Pixels(380.0)),
            (json!(380.5), Length::Pixels(380.5)),
            (json!(-1), Length::Pixels(-1.0)),
            (json!("37.5%"), Length::Share(37.5)),
        ] {
            let length: Length = from_value(value.clone()).expect("a length");
            assert_eq!(length, wanted);
            assert_eq!(to_value(length).expect("JSON"), value);
        }
        for wrong in [
            json!("37.5"),
            json!("NaN%"),
            json!("%"),
            json!([1]),
            json!(true),
        ] {
            assert!(from_value::<Length>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn both_spellings_of_a_colour_are_one_colour() {
        for text in ["#99CCFF", "0x99ccff", "0X99CCff"] {
            let colour: Colour = from_value(json!(text)).expect("a colour");
            assert_eq!(colour, Colour::rgb(0x99ccff));
            assert_eq!(to_value(colour).expect("JSON"), json!("#99ccff"));
        }
        for wrong in [
            "99ccff",
            "#9cf",
            "#+9ccff",
            "0x99ccff0",
            "red",
            "",
            "#99ccfg",
        ] {
            assert_eq!(Colour::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn colours_meet_in_the_middle() {
        assert_eq!(
            Colour::BLACK.towards(Colour::rgb(0x10_20_ff), 0.5),
            Colour::rgb(0x08_10_80)
        );
        assert_eq!(Colour::WHITE.towards(Colour::BLACK, 2.0), Colour::BLACK);
    }
}

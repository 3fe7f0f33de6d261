//! Names of templates: where inputs go that are given no box.
//!
//! Only the names and how many inputs each is for; the geometry is [`layout`](crate::mixer::layout)'s.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A ready-made arrangement. The numbered ones are the contract's (section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Template {
    /// The background fills the canvas; the others stand in the official clients' column at its right (contract,
    /// section 6).
    #[default]
    Linkmic,
    /// Everything at the top left corner in its own size, by layer: what the compatible interface does with a request
    /// that says nothing of layout.
    Stacked,
    /// Equal cells in rows and columns.
    Grid,
    /// Equal columns, from left to right.
    SideBySide,
    N10,
    N20,
    N30,
    N40,
    N50,
    N310,
    N390,
    N391,
    N410,
    N510,
    N590,
    N610,
}

use Template::{
    Grid, Linkmic, N10, N20, N30, N40, N50, N310, N390, N391, N410, N510, N590, N610, SideBySide,
    Stacked,
};

const NAMED: [(&str, Template); 4] = [
    ("linkmic", Linkmic),
    ("stacked", Stacked),
    ("grid", Grid),
    ("side-by-side", SideBySide),
];

/// The contract's number, the template, and how many inputs with a picture it is for, the background among them.
const NUMBERED: [(u64, Template, usize); 12] = [
    (10, N10, 2),
    (20, N20, 2),
    (30, N30, 2),
    (40, N40, 2),
    (50, N50, 2),
    (310, N310, 3),
    (390, N390, 3),
    (391, N391, 3),
    (410, N410, 4),
    (510, N510, 5),
    (590, N590, 5),
    (610, N610, 6),
];

impl Template {
    /// All of them, for tables and tests.
    pub fn all() -> impl Iterator<Item = Self> {
        let named = NAMED.iter().map(|&(_, template)| template);
        named.chain(NUMBERED.iter().map(|&(_, template, _)| template))
    }

    /// The template with that number in the contract; `None` when there is none.
    pub fn numbered(number: u64) -> Option<Self> {
        let found = NUMBERED.iter().find(|&&(n, ..)| n == number);
        found.map(|&(_, template, _)| template)
    }

    fn named(name: &str) -> Option<Self> {
        let found = NAMED.iter().find(|&&(n, _)| n == name);
        let number = || name.parse().ok().and_then(Self::numbered);
        found.map(|&(_, template)| template).or_else(number)
    }

    /// Its number in the contract, where it has one.
    pub fn number(self) -> Option<u64> {
        let found = NUMBERED.iter().find(|&&(_, template, _)| template == self);
        found.map(|&(number, ..)| number)
    }

    /// How many inputs with a picture it is for; `None`: any number.
    pub fn visuals(self) -> Option<usize> {
        let found = NUMBERED.iter().find(|&&(_, template, _)| template == self);
        found.map(|&(.., visuals)| visuals)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.number() {
            return write!(f, "{number}");
        }
        let found = NAMED.iter().find(|(_, template)| template == self);
        f.write_str(found.map_or("linkmic", |&(name, _)| name))
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.number() {
            Some(number) => serializer.serialize_u64(number),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Template;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one of ")?;
                for &(name, _) in &NAMED {
                    write!(f, "\"{name}\", ")?;
                }
                let numbers: Vec<_> = NUMBERED.iter().map(|(n, ..)| n.to_string()).collect();
                f.write_str(&numbers.join(", "))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Template, E> {
                let wrong = || E::invalid_value(de::Unexpected::Unsigned(v), &self);
                Template::numbered(v).ok_or_else(wrong)
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Template, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(v), &self);
                Template::named(v).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn every_template_survives_its_own_json() {
        for template in Template::all() {
            let value = to_value(template).expect("JSON");
            assert_eq!(from_value::<Template>(value).expect("itself"), template);
        }
        assert_eq!(Template::all().count(), 16);
        assert_eq!(to_value(N390).expect("JSON"), json!(390));
        assert_eq!(from_value::<Template>(json!("20")).expect("20"), N20);
    }

    #[test]
    fn an_unknown_template_is_told_with_the_known_ones() {
        for wrong in [json!(0), json!(391.5), json!("pip"), json!(-10)] {
            let error = from_value::<Template>(wrong).expect_err("no template");
            let text = error.to_string();
            assert!(text.contains("\"side-by-side\", 10, 20"), "{text}");
        }
    }
}

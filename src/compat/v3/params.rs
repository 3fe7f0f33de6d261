//! Parameters of the v3 form: JSON of a POST, or the names with dots of a GET, read field by field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use url::form_urlencoded;

use super::Problem;
use crate::compat::loose;

/// Parameters that every action has in the GET form, and that are read elsewhere or not at all.
const COMMON: [&str; 12] = [
    "Action",
    "Version",
    "Region",
    "Timestamp",
    "Nonce",
    "SecretId",
    "Signature",
    "SignatureMethod",
    "Token",
    "Language",
    "RequestClient",
    "Sign",
];
/// Most parts of a name with dots; the deepest there is has four.
const MAX_DEPTH: usize = 8;

/// One object of parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Params<'a> {
    object: &'a Map<String, Value>,
    /// What its fields' names begin with in messages.
    path: &'a str,
}

/// The parameters of a POST.
///
/// # Errors
/// When the body is not an object of JSON. An empty one is taken for no parameters.
pub(super) fn of_body(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let read = serde_json::from_slice(body);
    read.map_err(|_| Problem::new("InvalidParameter", "The body is not an object of JSON."))
}

/// The parameters of a GET: `InputStreamList.0.LayoutParams.ImageLayer=1`.
///
/// # Errors
/// When a name stands for a value and for an object both, or has too many parts.
pub(super) fn of_query(query: &str) -> Result<Map<String, Value>, Problem> {
    let mut root = Node::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if COMMON.contains(&&*name) {
            continue;
        }
        let parts: Vec<&str> = name.split('.').collect();
        if parts.len() > MAX_DEPTH || !root.put(&parts, &value) {
            let message = format!("The parameter `{name}` contradicts another.");
            return Err(Problem::new("InvalidParameter", message));
        }
    }
    match root.value() {
        Value::Object(object) => Ok(object),
        _ => Ok(Map::new()),
    }
}

/// A tree of names.
#[derive(Default)]
struct Node {
    value: Option<String>,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn put(&mut self, parts: &[&str], value: &str) -> bool {
        let Some((first, rest)) = parts.split_first() else {
            let free = self.value.is_none() && self.children.is_empty();
            self.value = Some(value.to_owned());
            return free;
        };
        self.value.is_none()
            && self
                .children
                .entry((*first).to_owned())
                .or_default()
                .put(rest, value)
    }

    /// Names that are all numbers make a list, in their order.
    fn value(self) -> Value {
        if let Some(text) = self.value {
            return Value::String(text);
        }
        let index = |name: &String| name.parse::<u32>().ok();
        let is_list = !self.children.is_empty() && self.children.keys().all(|n| index(n).is_some());
        if is_list {
            let mut items: Vec<_> = self.children.into_iter().collect();
            items.sort_by_key(|(name, _)| index(name));
            return items.into_iter().map(|(_, node)| node.value()).collect();
        }
        let fields = self.children.into_iter();
        fields.map(|(name, node)| (name, node.value())).collect()
    }
}

impl<'a> Params<'a> {
    /// These and no others may be there.
    ///
    /// # Errors
    /// `UnknownParameter`, with its name.
    pub fn new(
        object: &'a Map<String, Value>,
        path: &'a str,
        known: &[&str],
    ) -> Result<Self, Problem> {
        let params = Self { object, path };
        match object.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(params),
            Some(key) => Err(Problem::new(
                "UnknownParameter",
                format!("The parameter `{}` is not recognized.", params.named(key)),
            )),
        }
    }

    fn named(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    fn present(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    fn missing(&self, field: &str) -> Problem {
        let name = self.named(field);
        let message = format!("The request is missing a required parameter `{name}`.");
        Problem::new("MissingParameter", message)
    }

    fn wrong(&self, field: &str, what: &str) -> Problem {
        let name = self.named(field);
        let message =
            format!("The value type of parameter `{name}` is not valid: it is no {what}.");
        Problem::new("InvalidParameter", message)
    }

    /// A text; `None` when it is absent.
    pub fn text(&self, field: &str) -> Result<Option<String>, Problem> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        let text = value.as_str().map(str::to_owned);
        text.map(Some).ok_or_else(|| self.wrong(field, "text"))
    }

    /// A text that must be there, and not be empty.
    pub fn required(&self, field: &str) -> Result<String, Problem> {
        let text = self.text(field)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.missing(field))
    }

    /// A number; `None` when it is absent.
    pub fn number(&self, field: &str) -> Result<Option<f64>, Problem> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        let number = loose::number(value);
        number.map(Some).ok_or_else(|| self.wrong(field, "number"))
    }

    /// A whole number; `None` when it is absent.
    pub fn whole(&self, field: &str) -> Result<Option<i64>, Problem> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        let number = loose::whole(value);
        number
            .map(Some)
            .ok_or_else(|| self.wrong(field, "whole number"))
    }

    /// An object within; `None` when it is absent.
    pub fn object(&self, field: &str) -> Result<Option<&'a Map<String, Value>>, Problem> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        let object = value.as_object();
        object.map(Some).ok_or_else(|| self.wrong(field, "object"))
    }

    /// A list of objects that must be there.
    pub fn objects(&self, field: &str) -> Result<Vec<&'a Map<String, Value>>, Problem> {
        let value = self.present(field).ok_or_else(|| self.missing(field))?;
        let items = value.as_array().ok_or_else(|| self.wrong(field, "list"))?;
        let object = |item: &'a Value| {
            item.as_object()
                .ok_or_else(|| self.wrong(field, "list of objects"))
        };
        items.iter().map(object).collect()
    }

    /// An object that must be there.
    pub fn required_object(&self, field: &str) -> Result<&'a Map<String, Value>, Problem> {
        self.object(field)?.ok_or_else(|| self.missing(field))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn section_3_names_with_dots_are_the_same_as_json() {
        let query = "Action=CreateCommonMixStream&Version=2018-08-01&MixStreamSessionId=room\
            &InputStreamList.0.InputStreamName=a&InputStreamList.0.LayoutParams.ImageLayer=1\
            &InputStreamList.10.InputStreamName=c&InputStreamList.2.InputStreamName=b%5F2\
            &OutputParams.OutputStreamName=a";
        let read = Value::Object(of_query(query).unwrap());
        assert_eq!(
            read,
            json!({
                "MixStreamSessionId": "room",
                "InputStreamList": [
                    {"InputStreamName": "a", "LayoutParams": {"ImageLayer": "1"}},
                    {"InputStreamName": "b_2"},
                    {"InputStreamName": "c"},
                ],
                "OutputParams": {"OutputStreamName": "a"},
            })
        );
        assert!(of_query("").unwrap().is_empty());
        for wrong in ["A=1&A.B=2", "A.B=2&A=1", "A=1&A=2", "a.b.c.d.e.f.g.h.i=1"] {
            assert_eq!(
                of_query(wrong).unwrap_err().code,
                "InvalidParameter",
                "{wrong}"
            );
        }
    }

    #[test]
    fn section_3_fields_are_told_by_their_names() {
        let object = json!({"A": "text", "B": 3, "C": {"D": 1}, "E": null, "F": "7", "G": [1]});
        let object = object.as_object().unwrap();
        let known = ["A", "B", "C", "E", "F", "G", "H"];
        let params = Params::new(object, "Outer.", &known).unwrap();
        assert_eq!(params.text("A").unwrap().as_deref(), Some("text"));
        assert_eq!(params.whole("B").unwrap(), Some(3));
        assert_eq!(params.whole("F").unwrap(), Some(7));
        assert_eq!(params.number("E").unwrap(), None);
        assert!(params.object("C").unwrap().is_some());
        for (problem, code) in [
            (params.required("H").unwrap_err(), "MissingParameter"),
            (params.required("E").unwrap_err(), "MissingParameter"),
            (params.text("B").unwrap_err(), "InvalidParameter"),
            (params.whole("A").unwrap_err(), "InvalidParameter"),
            (params.object("A").unwrap_err(), "InvalidParameter"),
            (params.objects("G").unwrap_err(), "InvalidParameter"),
            (
                Params::new(object, "", &known[1..]).unwrap_err(),
                "UnknownParameter",
            ),
        ] {
            assert_eq!(problem.code, code, "{problem:?}");
        }
        assert!(
            params
                .required("H")
                .unwrap_err()
                .message
                .contains("`Outer.H`")
        );
    }

    #[test]
    fn section_3_a_body_is_an_object_or_nothing() {
        assert!(of_body(b" ").unwrap().is_empty());
        assert!(of_body(b"{\"A\": 1}").unwrap().contains_key("A"));
        for wrong in ["[]", "7", "{", "null"] {
            assert_eq!(
                of_body(wrong.as_bytes()).unwrap_err().code,
                "InvalidParameter"
            );
        }
    }
}

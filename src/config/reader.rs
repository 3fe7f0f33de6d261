//! Reads a tree of values key by key and collects every mistake with its path, instead of stopping at the first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use ::config::{Value, ValueKind};
use ipnet::IpNet;

use super::Remark;
use super::source::{self, ENV_ORIGIN};

/// What is wrong with a value, without its path.
pub(super) type Parsed<T> = Result<T, String>;

/// Collects mistakes, and which keys were asked for.
#[derive(Default)]
pub(super) struct Reader {
    mistakes: RefCell<Vec<Remark>>,
    /// Paths of all keys that were asked for, whether they stood there or not. Tests compare them with the file.
    known: RefCell<BTreeSet<String>>,
}

impl Reader {
    /// Reads the root of a tree.
    pub(super) fn root<T>(&self, tree: Value, read: impl FnOnce(&mut Table<'_>) -> T) -> T {
        self.table(String::new(), tree, read)
    }

    /// The mistakes so far, in the order of their paths.
    pub(super) fn mistakes(&self) -> Vec<Remark> {
        let mut mistakes = self.mistakes.take();
        mistakes.sort();
        mistakes
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    pub(super) fn mistake(&self, path: impl Into<String>, message: impl Into<String>) {
        self.mistakes.borrow_mut().push(Remark {
            path: path.into(),
            message: message.into(),
        });
    }

    fn table<T>(&self, path: String, value: Value, read: impl FnOnce(&mut Table<'_>) -> T) -> T {
        let value = from_inline(value);
        let values = match value.kind {
            ValueKind::Table(values) => values.into_iter().collect(),
            ValueKind::Nil => Vec::new(),
            other => {
                self.mistake(&path, format!("expected a table, found {}", kind(&other)));
                Vec::new()
            }
        };
        let mut table = Table {
            reader: self,
            path,
            values,
            asked: Vec::new(),
        };
        let read = read(&mut table);
        table.report_unknown();
        read
    }
}

/// One table while it is being read. Keys that nobody asked for are mistakes.
pub(super) struct Table<'r> {
    reader: &'r Reader,
    path: String,
    values: Vec<(String, Value)>,
    asked: Vec<&'static str>,
}

impl<'r> Table<'r> {
    /// The path of a key in this table.
    pub(super) fn path(&self, key: &str) -> String {
        let bare = key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if bare && !key.is_empty() {
            key.to_owned()
        } else {
            format!("{key:?}")
        };
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Where mistakes go that concern more than one key.
    pub(super) fn mistake(&self, key: &str, message: impl Into<String>) {
        self.reader.mistake(self.path(key), message);
    }

    /// A table within this one; read as empty when it is absent.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'_>) -> T,
    ) -> T {
        let value = self.take(key).unwrap_or_else(nothing);
        self.reader.table(self.path(key), value, read)
    }

    /// A table within this one, if it is there.
    pub(super) fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'_>) -> T,
    ) -> Option<T> {
        let value = self.take(key)?;
        Some(self.reader.table(self.path(key), value, read))
    }

    /// All that is left in this table: tables with names of the operator's choosing.
    pub(super) fn named<T>(
        &mut self,
        mut read: impl FnMut(&str, &mut Table<'_>) -> T,
    ) -> Vec<(String, T)> {
        let values = std::mem::take(&mut self.values);
        values
            .into_iter()
            .map(|(name, value)| {
                let path = self.path(&name);
                let item = self.reader.table(path, value, |table| read(&name, table));
                (name, item)
            })
            .collect()
    }

    /// All that is left in this table: values under names of the operator's choosing.
    pub(super) fn entries<T>(&mut self, parse: impl Fn(&Value) -> Parsed<T>) -> Vec<(String, T)> {
        let values = std::mem::take(&mut self.values);
        let mut entries = Vec::with_capacity(values.len());
        for (name, value) in values {
            let path = self.path(&name);
            self.reader.known.borrow_mut().insert(path.clone());
            match parse(&value) {
                Ok(parsed) => entries.push((name, parsed)),
                Err(message) => self.reader.mistake(path, message),
            }
        }
        entries
    }

    /// A list of tables. Absent is empty; entries for which `read` gives nothing are left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl FnMut(&mut Table<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.optional_list(key, read).unwrap_or_default()
    }

    /// As [`list`](Self::list), and `None` when it is absent.
    pub(super) fn optional_list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let path = self.path(key);
        let items = match from_inline(value).kind {
            ValueKind::Array(items) => items,
            other => {
                let found = kind(&other);
                self.reader
                    .mistake(path, format!("expected a list of tables, found {found}"));
                return None;
            }
        };
        let items = items.into_iter().enumerate();
        let read = items.filter_map(|(at, item)| {
            self.reader
                .table(format!("{path}[{at}]"), item, |table| read(table))
        });
        Some(read.collect())
    }

    /// A key with a default.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// A key that may be absent; also `None` when it is a mistake, which is then noted.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(message) => {
                let path = self.path(key);
                self.reader
                    .mistake(&path, format!("{message}{}", from_env(&path, &value)));
                None
            }
        }
    }

    /// A key that must be there; `None` when it is not, or is a mistake, which is then noted.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> Option<T> {
        if !self.values.iter().any(|(name, _)| name == key) {
            self.asked.push(key);
            self.mistake(key, "is missing");
            return None;
        }
        self.optional(key, parse)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.reader.known.borrow_mut().insert(self.path(key));
        let at = self.values.iter().position(|(name, _)| name == key)?;
        Some(self.values.swap_remove(at).1)
    }

    fn report_unknown(self) {
        let known = self.asked.join(", ");
        for (key, value) in &self.values {
            let path = self.path(key);
            let from = from_env(&path, value);
            self.reader
                .mistake(path, format!("unknown key{from}; known here: {known}"));
        }
    }
}

fn nothing() -> Value {
    Value::new(None, ValueKind::Nil)
}

fn is_from_env(value: &Value) -> bool {
    value.origin() == Some(ENV_ORIGIN)
}

fn from_env(path: &str, value: &Value) -> String {
    if is_from_env(value) {
        format!(" (in the environment, {})", source::variable(path))
    } else {
        String::new()
    }
}

/// A variable's text where a list or table is wanted.
fn from_inline(value: Value) -> Value {
    match &value.kind {
        ValueKind::String(text) if is_from_env(&value) => source::inline(text).unwrap_or(value),
        _ => value,
    }
}

fn kind(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "a whole number"
        }
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "a string",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// Any string.
pub(super) fn string(value: &Value) -> Parsed<String> {
    match &value.kind {
        ValueKind::String(text) => Ok(text.clone()),
        other => Err(format!("expected a string, found {}", kind(other))),
    }
}

/// A string with something in it.
pub(super) fn non_empty(value: &Value) -> Parsed<String> {
    match string(value)? {
        text if text.is_empty() => Err("is empty".to_owned()),
        text => Ok(text),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Value) -> Parsed<T> {
    move |value| {
        let text = string(value)?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|&(_, meaning)| meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("{text:?} is none of {}", words.join(", "))
        })
    }
}

/// A duration within bounds, written as `"400ms"`.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Value) -> Parsed<Duration> {
    move |value| {
        let form = "write a duration like \"400ms\", \"10s\" or \"12h\"";
        let text = match &value.kind {
            ValueKind::String(text) => text,
            other => {
                return Err(format!(
                    "expected a duration, found {}; {form}",
                    kind(other)
                ));
            }
        };
        let parsed = humantime::parse_duration(text)
            .map_err(|error| format!("{text:?} is not a duration ({error}); {form}"))?;
        let show = |duration: &Duration| humantime::format_duration(*duration).to_string();
        within(parsed, &bounds, show)
    }
}

/// A whole number within bounds.
pub(super) fn number<T>(bounds: RangeInclusive<T>) -> impl Fn(&Value) -> Parsed<T>
where
    T: TryFrom<i128> + PartialOrd + ToString,
{
    move |value| {
        let number = whole(value)
            .ok_or_else(|| format!("expected a whole number, found {}", kind(&value.kind)))?;
        let parsed = T::try_from(number).map_err(|_| out_of(&number.to_string(), &bounds))?;
        within(parsed, &bounds, T::to_string)
    }
}

/// A size in bytes: a number, or a string with a binary unit.
pub(super) fn bytes(bounds: RangeInclusive<usize>) -> impl Fn(&Value) -> Parsed<usize> {
    move |value| {
        let form = "write a number of bytes or a size like \"64KiB\" or \"16MiB\"";
        let size = match (&value.kind, whole(value)) {
            (_, Some(number)) => usize::try_from(number).ok(),
            (ValueKind::String(text), None) => binary_size(text),
            (other, None) => {
                return Err(format!("expected a size, found {}; {form}", kind(other)));
            }
        };
        let size = size.ok_or_else(|| format!("not a size; {form}"))?;
        within(size, &bounds, |size| format!("{size} bytes"))
    }
}

/// `true` or `false`.
pub(super) fn flag(value: &Value) -> Parsed<bool> {
    match &value.kind {
        ValueKind::Boolean(flag) => Ok(*flag),
        ValueKind::String(text) if is_from_env(value) && text == "true" => Ok(true),
        ValueKind::String(text) if is_from_env(value) && text == "false" => Ok(false),
        other => Err(format!("expected true or false, found {}", kind(other))),
    }
}

/// A moment in RFC 3339, with `Z` or the distance from UTC: `2026-12-01T00:00:00+08:00`. TOML's own date and time
/// reads the same.
pub(super) fn moment(value: &Value) -> Parsed<SystemTime> {
    let form = "write a time like \"2026-12-01T00:00:00Z\" or \"2026-12-01T00:00:00+08:00\"";
    let text = string(value)?;
    parse_moment(&text).ok_or_else(|| format!("{text:?} is not a time; {form}"))
}

fn parse_moment(text: &str) -> Option<SystemTime> {
    let text = text.to_ascii_uppercase();
    if let Ok(moment) = humantime::parse_rfc3339(&text) {
        return Some(moment);
    }
    let at = text.len().checked_sub("+08:00".len())?;
    let (local, distance) = text.split_at_checked(at)?;
    let (hours, minutes) = distance.get(1..)?.split_once(':')?;
    let number = |text: &str, limit| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = digits.then(|| text.parse().ok())??;
        (number < limit).then_some(number)
    };
    let distance_from_utc =
        Duration::from_secs(number(hours, 24)? * 3600 + number(minutes, 60)? * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    match distance.as_bytes().first()? {
        b'+' => local.checked_sub(distance_from_utc),
        b'-' => local.checked_add(distance_from_utc),
        _ => None,
    }
}

/// A network, or a list of them; a bare address is a network of one.
pub(super) fn networks(value: &Value) -> Parsed<Vec<IpNet>> {
    let network = |item: &Value| {
        let text = string(item)?;
        crate::net::network(&text).ok_or_else(|| {
            format!(
                "{text:?} is neither a network, like \"10.0.0.0/8\" or \"fd00::/8\", nor an address"
            )
        })
    };
    one_or_many(value).iter().map(network).collect()
}

/// The items of a list; what is no list is the only one.
pub(super) fn one_or_many(value: &Value) -> Vec<Value> {
    let value = from_inline(value.clone());
    match value.kind {
        ValueKind::Array(items) => items,
        _ => vec![value],
    }
}

/// One address with its port, or a list of them; no address twice, at least one.
pub(super) fn addresses(value: &Value) -> Parsed<Vec<SocketAddr>> {
    let addresses = no_or_addresses(value)?;
    if addresses.is_empty() {
        return Err("the list is empty; at least one address is needed".to_owned());
    }
    Ok(addresses)
}

/// As [`addresses`], or an empty list.
pub(super) fn no_or_addresses(value: &Value) -> Parsed<Vec<SocketAddr>> {
    let items = one_or_many(value);
    let mut addresses = Vec::with_capacity(items.len());
    for item in &items {
        let text = string(item)?;
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("{text:?} is not an address with port, like \"0.0.0.0:1935\" or \"[::]:1935\"")
        })?;
        if address.port() != 0 && addresses.contains(&address) {
            return Err(format!("{address} stands twice"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn whole(value: &Value) -> Option<i128> {
    match &value.kind {
        ValueKind::I64(number) => Some(i128::from(*number)),
        ValueKind::U64(number) => Some(i128::from(*number)),
        ValueKind::I128(number) => Some(*number),
        ValueKind::U128(number) => i128::try_from(*number).ok(),
        // Variables are always text.
        ValueKind::String(text) if is_from_env(value) => text.trim().parse().ok(),
        _ => None,
    }
}

fn binary_size(text: &str) -> Option<usize> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    units.into_iter().find_map(|(unit, shift)| {
        let count: usize = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        count.checked_mul(1 << shift)
    })
}

fn within<T: PartialOrd>(
    value: T,
    bounds: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Parsed<T> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (show(bounds.start()), show(bounds.end()));
    Err(format!("{} is not within {low} to {high}", show(&value)))
}

fn out_of<T: ToString>(value: &str, bounds: &RangeInclusive<T>) -> String {
    let (low, high) = (bounds.start().to_string(), bounds.end().to_string());
    format!("{value} is not within {low} to {high}")
}

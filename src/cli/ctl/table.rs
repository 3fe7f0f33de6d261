//! JSON answers as tables for people. Pure.
//!
//! What comes from a server may have come from a stranger: characters that a terminal would obey are not shown.

use std::fmt::Write;

use serde_json::{Map, Value};

/// Between two columns.
const GAP: &str = "  ";
/// Longest cell, in characters; longer ones are cut.
const MAX_CELL: usize = 100;

/// An answer: a list as a table with these columns, where there are any; anything else as its fields, a line each.
pub fn show(answer: &Value, columns: &[&str]) -> String {
    match answer {
        Value::Object(fields) => match list_of(fields, columns) {
            Some(rows) => table(rows, columns),
            None => fields_of(answer),
        },
        Value::Array(rows) => table(rows, columns),
        plain => format!("{}\n", cell(plain)),
    }
}

/// Rows with these columns (dotted paths), or with every plain field that one of them has.
pub fn table(rows: &[Value], columns: &[&str]) -> String {
    let columns: Vec<String> = match columns {
        [] => plain_columns(rows),
        named => named.iter().map(|&name| name.to_owned()).collect(),
    };
    if columns.is_empty() {
        return String::new();
    }
    let heads = columns.iter().map(|path| head(path, &columns)).collect();
    let cells = rows.iter().map(|row| {
        let at = |path: &String| cell(path.split('.').fold(row, |value, key| &value[key]));
        columns.iter().map(at).collect()
    });
    let numeric = columns.iter().map(|path| {
        let at = |row: &Value| {
            path.split('.')
                .fold(row, |value, key| &value[key])
                .is_number()
        };
        rows.iter().any(at)
    });
    aligned(heads, cells.collect(), &numeric.collect::<Vec<_>>())
}

/// Texts in columns, numbers to the right.
pub fn aligned(heads: Vec<String>, rows: Vec<Vec<String>>, numeric: &[bool]) -> String {
    let mut widths: Vec<_> = heads.iter().map(|head| head.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [&heads].into_iter().chain(&rows) {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if at > 0 {
                line += GAP;
            }
            let room = width - cell.chars().count();
            let (before, behind) = match numeric.get(at) {
                Some(true) => (room, 0),
                _ => (0, room),
            };
            line += &" ".repeat(before);
            line += cell;
            line += &" ".repeat(behind);
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}

/// The list in an object that has nothing else, or of which the list is what is asked for.
fn list_of<'a>(fields: &'a Map<String, Value>, columns: &[&str]) -> Option<&'a [Value]> {
    let mut lists = fields.values().filter_map(Value::as_array);
    let list = lists.next().filter(|_| lists.next().is_none());
    list.filter(|_| fields.len() == 1 || !columns.is_empty())
        .map(Vec::as_slice)
}

/// Every plain value of an object with its dotted path; lists of objects as tables behind them.
fn fields_of(object: &Value) -> String {
    let (mut plain, mut lists) = (Vec::new(), Vec::new());
    walk("", object, &mut plain, &mut lists);
    let width = plain.iter().map(|(path, _)| path.chars().count()).max();
    let mut text = String::new();
    for (path, value) in &plain {
        let _ = writeln!(
            text,
            "{path:<width$}{GAP}{value}",
            width = width.unwrap_or(0)
        );
    }
    for (path, rows) in lists {
        let _ = write!(text, "\n{path}\n{}", table(rows, &[]));
    }
    text
}

fn walk<'a>(
    path: &str,
    value: &'a Value,
    plain: &mut Vec<(String, String)>,
    lists: &mut Vec<(String, &'a [Value])>,
) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                walk(&path, value, plain, lists);
            }
        }
        Value::Array(rows) if rows.iter().any(Value::is_object) => {
            lists.push((path.to_owned(), rows));
        }
        value => plain.push((path.to_owned(), cell(value))),
    }
}

fn plain_columns(rows: &[Value]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for row in rows {
        let (mut plain, mut lists) = (Vec::new(), Vec::new());
        walk("", row, &mut plain, &mut lists);
        for (path, _) in plain {
            if !columns.contains(&path) {
                columns.push(path);
            }
        }
    }
    columns
}

/// A column's head: the last part of its path, with the part before it where two would be alike.
fn head(path: &str, all: &[String]) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let alike = all.iter().filter(|other| last(other) == last(path)).count();
    let shown = match alike {
        0 | 1 => last(path),
        _ => {
            let parts: Vec<_> = path.split('.').collect();
            parts[parts.len().saturating_sub(2)..].join(".")
        }
    };
    shown.to_uppercase()
}

/// One value on one line.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.iter().all(|v| !v.is_object() && !v.is_array()) => {
            let cells: Vec<_> = values.iter().map(cell).collect();
            cells.join(",")
        }
        other => other.to_string(),
    };
    let text: String = text.chars().map(tame).collect();
    match text.char_indices().nth(MAX_CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn tame(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_a_table_with_numbers_to_the_right() {
        let answer = json!({"pushes": [
            {"id": "a", "state": "live", "lag_ms": 7, "target": {"host": "x"}},
            {"id": "long", "state": "backoff", "lag_ms": 1200, "target": {"host": null}},
        ]});
        assert_eq!(
            show(&answer, &["id", "lag_ms", "target.host"]),
            "ID    LAG_MS  HOST\n\
             a          7  x\n\
             long    1200  -\n"
        );
        // Without columns: all that is plain.
        assert!(show(&answer, &[]).starts_with("ID    STATE    LAG_MS  HOST\n"));
    }

    #[test]
    fn columns_of_one_name_are_told_apart() {
        let rows = [json!({"video": {"codec": "avc"}, "audio": {"codec": "aac"}})];
        assert_eq!(
            table(&rows, &[]),
            "VIDEO.CODEC  AUDIO.CODEC\navc          aac\n"
        );
    }

    #[test]
    fn one_thing_is_its_fields_and_its_lists_are_tables_behind_them() {
        let mix = json!({"id": "m", "output": {"fps": 25, "tags": ["a", "b"]}, "inputs": [{"stream": "x"}, {"stream": "y"}]});
        assert_eq!(
            show(&mix, &[]),
            "id           m\noutput.fps   25\noutput.tags  a,b\n\ninputs\nSTREAM\nx\ny\n"
        );
    }

    #[test]
    fn a_terminal_is_told_nothing_by_what_strangers_named() {
        let answer = json!([{"name": "\u{1b}[2J\u{7}a\nb\u{9b}31m"}]);
        let text = show(&answer, &[]);
        assert_eq!(text, "NAME\n?[2J?a?b?31m\n");
        let long = json!([{ "name": "x".repeat(500) }]);
        assert!(
            show(&long, &[])
                .lines()
                .all(|line| line.chars().count() <= MAX_CELL + 1)
        );
    }

    #[test]
    fn an_empty_list_says_what_would_stand_there() {
        assert_eq!(
            show(&json!({"streams": []}), &["app", "stream"]),
            "APP  STREAM\n"
        );
        assert_eq!(show(&json!({"links": []}), &[]), "");
    }
}

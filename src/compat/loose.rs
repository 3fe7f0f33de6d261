//! JSON as real callers write it: numbers as texts, null or an empty text for what is absent.

use serde_json::Value;

/// The field, unless it is absent in one of the ways there are.
pub(super) fn present<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object
        .get(key)
        .filter(|value| !value.is_null() && value.as_str() != Some(""))
}

/// A number, or a text that is one; never infinite.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// As [`number`], when it has no fraction.
pub(super) fn whole(value: &Value) -> Option<i64> {
    // Beyond this a double has gaps.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_i64() => number.as_i64(),
        _ => number(value)
            .filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)
            .map(|number| number as i64),
    }
}

/// A text; a whole number counts as its digits.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) => whole(value).map(|number| number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_callers_send_is_read_and_nothing_else() {
        let object = json!({"a": null, "b": "", "c": 0});
        assert_eq!(present(&object, "a"), None);
        assert_eq!(present(&object, "b"), None);
        assert_eq!(present(&object, "c"), Some(&json!(0)));
        assert_eq!(present(&json!([1]), "a"), None);
        for (value, as_number, as_whole, as_text) in [
            (json!(160), Some(160.0), Some(160), Some("160")),
            (json!("160"), Some(160.0), Some(160), Some("160")),
            (json!(0.5), Some(0.5), None, None),
            (json!("0.5"), Some(0.5), None, Some("0.5")),
            (json!(160.0), Some(160.0), Some(160), Some("160")),
            (json!("NaN"), None, None, Some("NaN")),
            (json!("inf"), None, None, Some("inf")),
            (json!(true), None, None, None),
            (json!([1]), None, None, None),
            (json!("x"), None, None, Some("x")),
        ] {
            assert_eq!(number(&value), as_number, "{value}");
            assert_eq!(whole(&value), as_whole, "{value}");
            assert_eq!(text(&value).as_deref(), as_text, "{value}");
        }
        assert_eq!(
            whole(&json!(i64::MAX)),
            Some(i64::MAX),
            "event ids may exceed 32 bits"
        );
    }
}

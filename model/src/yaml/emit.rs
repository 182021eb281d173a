//! YAML as calicoctl prints it: fields in alphabetical order, lists not indented, text in quotes only where needed.

use serde::Serialize;
use serde_json::{Value, json};

use super::scalar;
use crate::gojson;
use crate::kind::Kind;
use crate::resource::AnyResource;

/// The list of objects of one kind as `calicoctl get` prints it; `revision` is that of the read.
#[must_use]
pub fn list(kind: Kind, items: &[AnyResource], revision: i64) -> Value {
    json!({
        "kind": format!("{kind}List"),
        "apiVersion": kind.api_version(),
        "metadata": { "resourceVersion": revision.to_string() },
        "items": items,
    })
}

/// Writes a value as YAML, ending in a newline.
///
/// # Errors
/// If the value has no JSON form; objects always have one.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, gojson::Error> {
    let json = serde_json::to_value(value)?;
    let mut out = String::new();
    match &json {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0, Lead::Line),
        Value::Array(list) if !list.is_empty() => write_list(&mut out, list, 0),
        scalar => out.push_str(&flow(scalar)),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    Ok(out)
}

/// What stands before the first field of a map: a fresh line, or `- ` on this one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lead {
    Line,
    Dash,
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn write_map(out: &mut String, map: &serde_json::Map<String, Value>, depth: usize, lead: Lead) {
    let mut fields: Vec<_> = map.iter().collect();
    fields.sort_by(|a, b| a.0.cmp(b.0));
    for (i, (key, value)) in fields.into_iter().enumerate() {
        if i > 0 || lead == Lead::Line {
            indent(out, depth);
        }
        out.push_str(&text(key));
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                write_map(out, map, depth + 1, Lead::Line);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                write_list(out, list, depth);
            }
            scalar => {
                out.push(' ');
                out.push_str(&flow(scalar));
                out.push('\n');
            }
        }
    }
}

fn write_list(out: &mut String, list: &[Value], depth: usize) {
    for value in list {
        indent(out, depth);
        out.push_str("- ");
        match value {
            Value::Object(map) if !map.is_empty() => write_map(out, map, depth + 1, Lead::Dash),
            // A list in a list stands as JSON, which is YAML.
            other => {
                out.push_str(&flow(other));
                out.push('\n');
            }
        }
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => gojson::to_string(value).unwrap_or_default(),
        Value::Null => "null".to_owned(),
        Value::Bool(bool) => bool.to_string(),
    }
}

/// Text plain where that reads back as the same text, else in quotes.
fn text(text: &str) -> String {
    if text.chars().any(|c| {
        c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
    }) {
        return gojson::to_string(text).unwrap_or_default();
    }
    let is_text = matches!(scalar::resolve(text), Some(Value::String(_)));
    if !is_text || is_old_bool(text) || is_old_number(text) || is_old_time(text) {
        return format!("\"{text}\"");
    }
    let special = text.starts_with([
        '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', ' ',
        '=', '<',
    ]) || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #");
    if special {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        text.to_owned()
    }
}

/// Words that readers of YAML 1.1, calicoctl among them, take for booleans.
fn is_old_bool(text: &str) -> bool {
    const WORDS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// Numbers of YAML 1.1: underscores between digits, bases by prefix, leading zeros, and base 60 (`12:30`). calicoctl
/// puts text that looks like one in quotes.
fn is_old_number(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let digits = |t: &str, radix| !t.is_empty() && t.chars().all(|c| c.is_digit(radix));
    let based = [("0x", 16), ("0o", 8), ("0b", 2)];
    let prefixed = based
        .iter()
        .any(|(prefix, radix)| unsigned.strip_prefix(prefix).is_some_and(|t| digits(t, *radix)));
    let decimal =
        unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok();
    prefixed || decimal || is_base_60(unsigned)
}

/// `190:20:30` and `1:2.5`: every group behind the first is below 60.
fn is_base_60(unsigned: &str) -> bool {
    let mut groups = unsigned.split(':');
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !groups.next().is_some_and(digits) {
        return false;
    }
    let groups: Vec<&str> = groups.collect();
    let below_60 = |(at, group): (usize, &&str)| {
        let whole = if at + 1 == groups.len() {
            group.split('.').next().unwrap_or(group)
        } else {
            group
        };
        digits(whole) && whole.len() <= 2 && whole.parse().is_ok_and(|n: u8| n < 60)
    };
    !groups.is_empty() && groups.iter().enumerate().all(below_60)
}

/// Dates and times of YAML 1.1, `2026-11-21` and whatever follows it. calicoctl puts them in quotes.
fn is_old_time(text: &str) -> bool {
    let date = text.split(['T', 't', ' ']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split('-').collect();
    let digits = |t: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit())
    };
    matches!(parts.as_slice(), [y, m, d] if digits(y, 4..=4) && digits(m, 1..=2) && digits(d, 1..=2))
}

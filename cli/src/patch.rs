//! Changes to JSON: strategic merge as Kubernetes has it, JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386).
//!
//! Of Calico's kinds no list in a spec is merged by key, so that a strategic merge replaces lists whole; of the metadata
//! `finalizers` is a set and `ownerReferences` is merged by uid.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::args::Form;

/// Most operations of a JSON Patch.
const OPERATIONS_MAX: usize = 10_000;

/// A change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Patch {
    Strategic(Value),
    Merge(Value),
    Json(Vec<Operation>),
}

/// One operation of a JSON Patch (RFC 6902 section 4).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation {
    Add(Pointer, Value),
    Remove(Pointer),
    Replace(Pointer, Value),
    Move { from: Pointer, to: Pointer },
    Copy { from: Pointer, to: Pointer },
    Test(Pointer, Value),
}

/// A JSON Pointer (RFC 6901), unescaped.
pub(crate) type Pointer = Vec<String>;

impl Patch {
    /// # Errors
    /// No JSON, or not of the form.
    pub(crate) fn parse(form: Form, text: &str) -> Result<Self> {
        let value = || -> Result<Value> {
            let value: Value = serde_json::from_str(text).context("invalid JSON document")?;
            if !value.is_object() {
                bail!("invalid JSON document: an object is expected");
            }
            Ok(value)
        };
        match form {
            Form::Strategic => value()
                .map(Self::Strategic)
                .context("performing strategic merge patch"),
            Form::Merge => value().map(Self::Merge).context("performing merge patch"),
            Form::Json => operations(text).map(Self::Json).context("performing JSON patch"),
        }
    }

    /// Changes `object`. After an error it is in no particular state.
    ///
    /// # Errors
    /// What cannot be done, and where.
    pub(crate) fn apply(&self, object: &mut Value) -> Result<()> {
        match self {
            Self::Strategic(patch) => {
                strategic(object, patch, "").context("performing strategic merge patch")
            }
            Self::Merge(patch) => {
                merge(object, patch);
                Ok(())
            }
            Self::Json(operations) => {
                for (at, operation) in operations.iter().enumerate() {
                    operation
                        .apply(object)
                        .with_context(|| format!("performing JSON patch: operation {}", at + 1))?;
                }
                Ok(())
            }
        }
    }
}

/// RFC 7386 section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Map::new().into();
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.shift_remove(key);
        } else {
            merge(map.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// Merges maps; `field` is the name under which they stand.
fn strategic(target: &mut Value, patch: &Value, field: &str) -> Result<()> {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return Ok(());
    };
    if !target.is_object() {
        *target = Map::new().into();
    }
    let Some(map) = target.as_object_mut() else {
        return Ok(());
    };
    match patch.get("$patch").map(Value::as_str) {
        None => {}
        Some(Some("replace")) => {
            map.clear();
            map.extend(without_directives(patch));
            return Ok(());
        }
        Some(Some("delete")) => {
            map.clear();
            return Ok(());
        }
        Some(Some("merge")) => {}
        Some(_) => bail!("unknown $patch directive at {field:?}"),
    }
    for (key, value) in patch {
        if key.starts_with('$') {
            continue;
        }
        match (value, key.as_str()) {
            (Value::Null, _) => {
                map.shift_remove(key);
            }
            (Value::Array(new), "finalizers") if field == "metadata" => {
                union(map, key, new, |a, b| a == b);
            }
            (Value::Array(new), "ownerReferences") if field == "metadata" => {
                union(map, key, new, |a, b| a.get("uid") == b.get("uid"));
            }
            (Value::Object(inner), _) if is_deletion(inner) => {
                map.shift_remove(key);
            }
            _ => strategic(map.entry(key.as_str()).or_insert(Value::Null), value, key)?,
        }
    }
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        map.retain(|key, _| kept.iter().any(|k| k == key.as_str()));
    }
    delete_from_lists(map, patch);
    Ok(())
}

fn is_deletion(map: &Map<String, Value>) -> bool {
    map.get("$patch").and_then(Value::as_str) == Some("delete")
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    let kept = patch.iter().filter(|(key, _)| !key.starts_with('$'));
    kept.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// `$deleteFromPrimitiveList/<field>: [value, ...]`.
fn delete_from_lists(map: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, gone) in patch {
        let field = key.strip_prefix("$deleteFromPrimitiveList/");
        let list = field.and_then(|f| map.get_mut(f)).and_then(Value::as_array_mut);
        if let (Some(list), Value::Array(gone)) = (list, gone) {
            list.retain(|value| !gone.contains(value));
        }
    }
}

/// Replaces what is the same by `same`, and appends the rest.
fn union(map: &mut Map<String, Value>, key: &str, new: &[Value], same: impl Fn(&Value, &Value) -> bool) {
    let entry = map.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    let Some(list) = entry.as_array_mut() else {
        *entry = Value::Array(new.to_vec());
        return;
    };
    for value in new {
        match list.iter_mut().find(|old| same(old, value)) {
            Some(old) => old.clone_from(value),
            None => list.push(value.clone()),
        }
    }
}

fn operations(text: &str) -> Result<Vec<Operation>> {
    let list: Vec<Value> = serde_json::from_str(text).context("a list of operations is expected")?;
    if list.len() > OPERATIONS_MAX {
        bail!("{} operations, at most {OPERATIONS_MAX} are done", list.len());
    }
    let parsed = list.iter().enumerate();
    parsed
        .map(|(at, value)| operation(value).with_context(|| format!("operation {}", at + 1)))
        .collect()
}

fn operation(value: &Value) -> Result<Operation> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let at = |field: &str| pointer(text(field).with_context(|| format!("{field:?} is missing"))?);
    let given = || value.get("value").cloned().context("\"value\" is missing");
    Ok(match text("op") {
        Some("add") => Operation::Add(at("path")?, given()?),
        Some("remove") => Operation::Remove(at("path")?),
        Some("replace") => Operation::Replace(at("path")?, given()?),
        Some("move") => Operation::Move {
            from: at("from")?,
            to: at("path")?,
        },
        Some("copy") => Operation::Copy {
            from: at("from")?,
            to: at("path")?,
        },
        Some("test") => Operation::Test(at("path")?, given()?),
        other => bail!("\"op\" {other:?} is none of add, remove, replace, move, copy, test"),
    })
}

fn pointer(text: &str) -> Result<Pointer> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text
        .strip_prefix('/')
        .with_context(|| format!("path {text:?} does not begin with a slash"))?;
    Ok(rest
        .split('/')
        .map(|token| token.replace("~1", "/").replace("~0", "~"))
        .collect())
}

impl Operation {
    fn apply(&self, object: &mut Value) -> Result<()> {
        match self {
            Self::Add(path, value) => add(object, path, value.clone()),
            Self::Remove(path) => remove(object, path).map(drop),
            Self::Replace(path, value) => {
                *find(object, path)? = value.clone();
                Ok(())
            }
            Self::Move { from, to } => {
                let value = remove(object, from)?;
                add(object, to, value)
            }
            Self::Copy { from, to } => {
                let value = find(object, from)?.clone();
                add(object, to, value)
            }
            Self::Test(path, value) => {
                let found = find(object, path)?;
                if found != value {
                    bail!("{} is {found}, not {value}", shown(path));
                }
                Ok(())
            }
        }
    }
}

fn shown(path: &[String]) -> String {
    path.iter().map(|token| format!("/{token}")).collect()
}

fn find<'a>(mut at: &'a mut Value, path: &[String]) -> Result<&'a mut Value> {
    for (depth, token) in path.iter().enumerate() {
        let next = match at {
            Value::Object(map) => map.get_mut(token),
            Value::Array(list) => index(token, list.len())
                .ok()
                .and_then(|index| list.get_mut(index)),
            _ => None,
        };
        at = next.with_context(|| format!("{} does not exist", shown(path.get(..=depth).unwrap_or(path))))?;
    }
    Ok(at)
}

/// RFC 6901 section 4: digits without a leading zero; `-` is behind the end.
fn index(token: &str, len: usize) -> Result<usize> {
    if token == "-" {
        return Ok(len);
    }
    let leading = token.len() > 1 && token.starts_with('0');
    let digits = token.bytes().all(|b| b.is_ascii_digit());
    match token.parse() {
        Ok(index) if digits && !leading && index <= len => Ok(index),
        _ => bail!("{token:?} is no place in a list of {len}"),
    }
}

fn add(object: &mut Value, path: &[String], value: Value) -> Result<()> {
    let Some((last, parent)) = path.split_last() else {
        *object = value;
        return Ok(());
    };
    match find(object, parent)? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
        }
        Value::Array(list) => {
            let at = index(last, list.len())?;
            list.insert(at, value);
        }
        _ => bail!("{} is neither an object nor a list", shown(parent)),
    }
    Ok(())
}

fn remove(object: &mut Value, path: &[String]) -> Result<Value> {
    let Some((last, parent)) = path.split_last() else {
        bail!("the whole object cannot be removed");
    };
    let removed = match find(object, parent)? {
        Value::Object(map) => map.shift_remove(last),
        Value::Array(list) => match index(last, list.len()) {
            Ok(at) if at < list.len() => Some(list.remove(at)),
            _ => None,
        },
        _ => None,
    };
    removed.with_context(|| format!("{} does not exist", shown(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(form: Form, patch: Value, before: Value, after: Result<Value, &str>) {
        let mut object = before;
        let done = Patch::parse(form, &patch.to_string()).and_then(|p| p.apply(&mut object));
        match after {
            Ok(after) => {
                done.unwrap();
                assert_eq!(object, after);
            }
            Err(part) => {
                let error = format!("{:#}", done.unwrap_err());
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn a_strategic_merge_merges_maps_and_replaces_lists() {
        let node = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"bgp": {"asNumber": 1}, "l": [1, 2]}});
        check(
            Form::Strategic,
            json!({"metadata": {"labels": {"b": null, "c": "3"}}, "spec": {"bgp": {"x": 2}, "l": [3]}}),
            node.clone(),
            Ok(
                json!({"metadata": {"labels": {"a": "1", "c": "3"}}, "spec": {"bgp": {"asNumber": 1, "x": 2}, "l": [3]}}),
            ),
        );
        check(
            Form::Strategic,
            json!({"spec": {"$patch": "replace", "n": 1}}),
            node.clone(),
            Ok(json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"n": 1}})),
        );
        check(
            Form::Strategic,
            json!({"metadata": {"labels": {"$patch": "delete"}}, "spec": {"$retainKeys": ["l"]}}),
            node.clone(),
            Ok(json!({"metadata": {}, "spec": {"l": [1, 2]}})),
        );
        check(
            Form::Strategic,
            json!({"spec": {"$deleteFromPrimitiveList/l": [1]}}),
            json!({"spec": {"l": [1, 2]}}),
            Ok(json!({"spec": {"l": [2]}})),
        );
        check(
            Form::Strategic,
            json!({"spec": {"$patch": "what"}}),
            node,
            Err("unknown $patch"),
        );
    }

    #[test]
    fn finalizers_are_a_set_and_owners_are_told_apart_by_uid() {
        check(
            Form::Strategic,
            json!({"metadata": {"finalizers": ["b"], "ownerReferences": [{"uid": "1", "k": 2}]}}),
            json!({"metadata": {"finalizers": ["a"], "ownerReferences": [{"uid": "1"}, {"uid": "2"}]}}),
            Ok(
                json!({"metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "1", "k": 2}, {"uid": "2"}]}}),
            ),
        );
    }

    #[test]
    fn a_merge_patch_is_that_of_rfc_7386() {
        for (before, patch, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            check(Form::Merge, patch, before, Ok(after));
        }
    }

    #[test]
    fn a_json_patch_is_that_of_rfc_6902() {
        let list = json!({"foo": ["bar", "baz"], "q": {"x": 1}});
        for (patch, after) in [
            (
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                Ok(json!({"foo": ["bar", "qux", "baz"], "q": {"x": 1}})),
            ),
            (
                json!([{"op": "add", "path": "/foo/-", "value": 1}]),
                Ok(json!({"foo": ["bar", "baz", 1], "q": {"x": 1}})),
            ),
            (
                json!([{"op": "remove", "path": "/foo/0"}]),
                Ok(json!({"foo": ["baz"], "q": {"x": 1}})),
            ),
            (
                json!([{"op": "replace", "path": "/q/x", "value": 2}]),
                Ok(json!({"foo": ["bar", "baz"], "q": {"x": 2}})),
            ),
            (
                json!([{"op": "move", "from": "/q/x", "path": "/y"}]),
                Ok(json!({"foo": ["bar", "baz"], "q": {}, "y": 1})),
            ),
            (
                json!([{"op": "copy", "from": "/foo/0", "path": "/a~1b"}]),
                Ok(json!({"foo": ["bar", "baz"], "q": {"x": 1}, "a/b": "bar"})),
            ),
            (
                json!([{"op": "test", "path": "/q/x", "value": 1}]),
                Ok(list.clone()),
            ),
            (
                json!([{"op": "test", "path": "/q/x", "value": 2}]),
                Err("/q/x is 1, not 2"),
            ),
            (
                json!([{"op": "replace", "path": "/q/z", "value": 2}]),
                Err("/q/z does not exist"),
            ),
            (
                json!([{"op": "add", "path": "/foo/3", "value": 2}]),
                Err("no place in a list"),
            ),
            (
                json!([{"op": "add", "path": "/foo/01", "value": 2}]),
                Err("no place in a list"),
            ),
            (json!([{"op": "remove", "path": "/foo/-"}]), Err("does not exist")),
            (json!([{"op": "frob", "path": "/q"}]), Err("is none of")),
            (
                json!([{"op": "add", "path": "q", "value": 1}]),
                Err("does not begin with a slash"),
            ),
            (json!([{"op": "add", "path": "/q"}]), Err("\"value\" is missing")),
            (json!({"a": 1}), Err("a list of operations")),
        ] {
            check(Form::Json, patch, list.clone(), after);
        }
    }

    #[test]
    fn what_is_no_json_is_refused_in_calicoctls_words() {
        let error = format!("{:#}", Patch::parse(Form::Strategic, "{x").unwrap_err());
        assert!(
            error.starts_with("performing strategic merge patch: invalid JSON document"),
            "{error}"
        );
        assert!(Patch::parse(Form::Merge, "[]").is_err());
    }
}

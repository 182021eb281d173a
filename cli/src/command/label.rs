//! `twillctl label`: one label of one resource.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::change;
use crate::args::Label;
use crate::config;
use crate::input;
use crate::output::out;

/// What was done to the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Set,
    Updated,
    Removed,
}

pub(crate) async fn run(daemon: &config::Target, asked: &Label) -> Result<ExitCode> {
    let kind = input::kind(&asked.kind)?;
    let (key, value) = split(asked)?;
    let target = change::Target::new(kind, asked.namespace.as_deref(), &asked.name)?;
    let mut done = Done::Set;
    let changed = change::change(daemon, &target, |object| {
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        let labels = metadata
            .map(|m| m.entry("labels").or_insert_with(|| Map::new().into()))
            .and_then(Value::as_object_mut);
        done = relabel(labels, asked, key, value)?;
        Ok(())
    });
    let (kind, name) = (&asked.kind, &asked.name);
    match changed.await {
        Ok(()) => {}
        Err(change::Failed::Absent(_)) => bail!("{kind} {name} not found"),
        Err(change::Failed::Refused(why)) => {
            bail!("failed to update {kind} {name}, label not changed: {why}")
        }
        Err(change::Failed::Other(why)) => return Err(why),
    }
    match done {
        Done::Set => out!(ln "Successfully set label {key} on {kind} {name}"),
        Done::Updated => out!(ln "Successfully updated label {key} on {kind} {name}"),
        Done::Removed => out!(ln "Successfully removed label {key} from {kind} {name}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn split(asked: &Label) -> Result<(&str, &str)> {
    if asked.remove {
        return Ok((&asked.label, ""));
    }
    match asked.label.split_once('=') {
        Some((key, value)) if !value.contains('=') => Ok((key, value)),
        _ => bail!("invalid label {}", asked.label),
    }
}

fn relabel(labels: Option<&mut Map<String, Value>>, asked: &Label, key: &str, value: &str) -> Result<Done> {
    let Some(labels) = labels else {
        bail!("the daemon sent an object without metadata")
    };
    let (kind, name) = (&asked.kind, &asked.name);
    let old = labels.get(key).and_then(Value::as_str);
    if asked.remove {
        if old.is_none() {
            bail!("cannot remove label of {kind} {name}, key {key} does not exist");
        }
        labels.shift_remove(key);
        return Ok(Done::Removed);
    }
    let done = match old {
        None => Done::Set,
        Some(old) if asked.overwrite || old == value => Done::Updated,
        Some(_) => bail!(
            "failed to update label of {kind} {name}, key {key} is already present. please use '--overwrite' to set a new value"
        ),
    };
    labels.insert(key.to_owned(), value.into());
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(label: &str, overwrite: bool, remove: bool) -> Label {
        Label {
            kind: "nodes".into(),
            name: "n1".into(),
            label: label.into(),
            overwrite,
            remove,
            namespace: None,
        }
    }

    #[track_caller]
    fn check(label: &str, (overwrite, remove): (bool, bool), expected: Result<(Done, Value), &str>) {
        let asked = asked(label, overwrite, remove);
        let mut labels = json!({"a": "b"});
        let found = split(&asked)
            .and_then(|(key, value)| relabel(labels.as_object_mut(), &asked, key, value))
            .map(|done| (done, labels.clone()))
            .map_err(|e| e.to_string());
        match expected {
            Ok(expected) => assert_eq!(found, Ok(expected)),
            Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{found:?}"),
        }
    }

    #[test]
    fn labels_are_set_kept_and_removed_as_calicoctl_does() {
        check(
            "c=d",
            (false, false),
            Ok((Done::Set, json!({"a": "b", "c": "d"}))),
        );
        check("a=b", (false, false), Ok((Done::Updated, json!({"a": "b"}))));
        check("a=x", (true, false), Ok((Done::Updated, json!({"a": "x"}))));
        check("a=x", (false, false), Err("key a is already present"));
        check("a", (false, true), Ok((Done::Removed, json!({}))));
        check("z", (false, true), Err("key z does not exist"));
        check("a", (false, false), Err("invalid label a"));
        check("a=b=c", (false, false), Err("invalid label a=b=c"));
    }
}

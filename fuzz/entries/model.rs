//! What the fuzzer calls in twill-model, and what the crate's own test replays the corpus through.

use twill_model::selector::Selector;
use twill_model::validate::Validate;
use twill_model::{AnyResource, Key, Kind, yaml};

/// A target's name and its entry.
pub type Target = (&'static str, fn(&[u8]));

/// Each target and its entry.
pub const TARGETS: &[Target] = &[
    ("model_json", json),
    ("model_yaml", yaml_text),
    ("model_selector", selector),
    ("model_key", key),
];

/// An object that is read comes back as the same object.
pub fn json(data: &[u8]) {
    let Some((kind, json)) = data.split_first() else {
        return;
    };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    if let Ok(read) = AnyResource::decode(kind, json) {
        let stored = read.encode();
        let again = AnyResource::decode(kind, &stored).expect("what was encoded can be decoded");
        assert_eq!(again.encode(), stored);
        let mut whole = again;
        whole.apply_defaults();
        let _ = whole.validate();
    }
}

/// YAML or JSON of people; each document is checked.
pub fn yaml_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match yaml::parse(text) {
        Ok(documents) => documents.iter().for_each(|d| drop(d.check())),
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

/// A selector's canonical text is a selector, and equal from then on.
pub fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(selector) = Selector::parse(text) {
        let canonical = selector.to_string();
        let again = Selector::parse(&canonical).expect("the canonical text is a selector");
        let labels = std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(selector.matches(&labels), again.matches(&labels));
        let settled = again.to_string();
        assert_eq!(
            Selector::parse(&settled).map(|s| s.to_string()).as_deref(),
            Ok(&*settled)
        );
    }
}

/// A path is one key's, and that key's path is the same path.
pub fn key(data: &[u8]) {
    if let Ok(path) = std::str::from_utf8(data) {
        assert_eq!(Key::parse(path).path(), path);
    }
}

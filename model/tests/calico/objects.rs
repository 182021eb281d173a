//! Every value that Calico stored: its key parses and prints, it decodes, nothing in it is unknown, and it encodes
//! into the same bytes.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use twill_model::{Key, Value};

/// A stored value.
#[derive(Deserialize)]
struct Object {
    key: String,
    value: String,
}

/// All recorded values with the names of their files, sorted.
fn objects() -> Vec<(String, Object)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/calico/v3.32.1");
    let answers = [
        "selectors.json",
        "validation.json",
        "stored.json",
        "ipam-steps.json",
    ];
    let mut objects = Vec::new();
    for entry in fs::read_dir(folder).expect("the recording is here") {
        let path = entry.expect("its names can be read").path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if name.ends_with(".json") && !answers.contains(&name.as_str()) {
            let text = fs::read(&path).expect("each file can be read");
            objects.push((
                name,
                serde_json::from_slice(&text).expect("each file is one object"),
            ));
        }
    }
    assert!(objects.len() > 200, "the recording is whole");
    objects.sort_by(|(a, _): &(String, Object), (b, _)| a.cmp(b));
    objects
}

#[test]
fn keys_parse_and_print_to_the_same_path() {
    for (name, object) in objects() {
        let key = Key::parse(&object.key);
        assert!(!matches!(key, Key::Other(_)), "{name}: {}", object.key);
        assert_eq!(key.path(), object.key, "{name}");
    }
}

#[test]
fn values_decode_and_encode_to_the_same_bytes() {
    let mut wrong = Vec::new();
    for (name, object) in objects() {
        let key = Key::parse(&object.key);
        match Value::decode(&key, &Bytes::from(object.value.clone())) {
            Ok(value) => {
                let ours = String::from_utf8(value.encode().to_vec()).unwrap();
                if ours != object.value {
                    wrong.push(format!("{name}:\n  stored {}\n  ours   {ours}", object.value));
                }
            }
            Err(error) => wrong.push(format!("{name}: {error}\n  stored {}", object.value)),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_stored_field_is_unknown() {
    for (name, object) in objects() {
        let key = Key::parse(&object.key);
        let value = Value::decode(&key, &Bytes::from(object.value)).unwrap();
        if let Some(resource) = value.resource() {
            assert_eq!(resource.unknown_fields(), Vec::<String>::new(), "{name}");
        }
    }
}

//! Labels and annotations that come with an ADD (`args.twill`): what Kubernetes would not have taken is refused before
//! anything is written, for selectors and calicoctl would stumble over it later.

use twill_model::validate::text::{is_label_key, is_label_value};
use twill_proto::cni::Add;

use super::{CniError, code};

/// Most labels of a pod, and most annotations: far beyond what anybody has.
const COUNT_MAX: usize = 1024;
/// Most bytes of all annotations, keys included, as in Kubernetes.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

/// # Errors
/// Code 7, with the label or annotation that is none.
pub(super) fn check(add: &Add) -> Result<(), CniError> {
    let refuse = |what: String| {
        Err(CniError::new(
            code::INVALID_CONFIG,
            format_args!("network configuration: {what}"),
        ))
    };
    for (field, map) in [("labels", &add.labels), ("annotations", &add.annotations)] {
        if map.len() > COUNT_MAX {
            return refuse(format!(
                "args.twill.{field} has {} entries, at most {COUNT_MAX} are taken",
                map.len()
            ));
        }
        // Annotations' keys are written as labels' are.
        if let Some(key) = map.keys().find(|key| !is_label_key(key)) {
            return refuse(format!(
                "args.twill.{field}: {key:?} is no key: at most 63 letters, digits, '-', '_' and '.', a letter or digit first \
                 and last, perhaps after a DNS name and '/'"
            ));
        }
    }
    if let Some((key, value)) = add.labels.iter().find(|(_, value)| !is_label_value(value)) {
        return refuse(format!(
            "args.twill.labels: {key:?} cannot be {value:?}: at most 63 letters, digits, '-', '_' and '.', a letter or digit \
             first and last"
        ));
    }
    let bytes: usize = add.annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > ANNOTATION_BYTES_MAX {
        return refuse(format!(
            "args.twill.annotations has {bytes} bytes, at most {ANNOTATION_BYTES_MAX} are taken"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Option<CniError> {
        let map = |pairs: &[(&str, &str)]| {
            let owned = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            owned.collect()
        };
        let add = Add {
            labels: map(labels),
            annotations: map(annotations),
            ..Add::default()
        };
        check(&add).err()
    }

    #[test]
    fn what_kubernetes_takes_is_taken() {
        let long = "x".repeat(63);
        let labels = [("app", "web"), ("example.com/tier_1", ""), ("a.b", &long)];
        assert_eq!(
            error(&labels, &[("cni.projectcalico.org/ipAddrs", "[\"10.0.0.1\"]")]),
            None
        );
        assert_eq!(error(&[], &[]), None);
    }

    #[test]
    fn what_it_does_not_take_is_named() {
        let refused = |labels: &[(&str, &str)], annotations: &[(&str, &str)], says: &str| {
            let error = error(labels, annotations).unwrap();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.contains(says), "{}", error.msg);
        };
        let long = "x".repeat(64);
        refused(&[("app", "two words")], &[], "\"app\" cannot be \"two words\"");
        refused(&[("app", &long)], &[], "\"app\" cannot be");
        refused(&[("", "web")], &[], "\"\" is no key");
        refused(&[("-app", "web")], &[], "\"-app\"");
        refused(&[("UPPER/app", "web")], &[], "\"UPPER/app\"");
        refused(&[("a/b/c", "web")], &[], "\"a/b/c\"");
        refused(
            &[],
            &[("no key", "any value is fine")],
            "args.twill.annotations: \"no key\"",
        );
        refused(&[], &[("big", &"x".repeat(ANNOTATION_BYTES_MAX))], "bytes");
    }
}

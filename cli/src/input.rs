//! What a command is about: documents of a file, or kind and names of the command line.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use twill_model::{AnyResource, Kind, yaml};

use crate::args::Selection;

/// Where objects live that say nothing.
const DEFAULT_NAMESPACE: &str = "default";

/// One resource on its way to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Empty: whatever is stored.
    pub(crate) resource_version: String,
    pub(crate) json: Vec<u8>,
}

impl Document {
    /// A resource of which only the name matters.
    pub(crate) fn named(kind: Kind, namespace: &str, name: &str) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self {
            kind,
            namespace,
            name,
            resource_version: String::new(),
            json: Vec::new(),
        }
    }
}

/// One resource, or all of a kind, that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    /// Empty for cluster-wide kinds and for all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
}

/// Reads and checks every document of a file, `-` being standard input. One bad document and none is returned.
///
/// # Errors
/// The file cannot be read, or a document is not right: document, line, column, field and reason.
pub(crate) fn documents(file: &Path, namespace: Option<&str>) -> Result<Vec<Document>> {
    parse(&read(file)?, namespace).with_context(|| format!("failed to execute command: in {}", name(file)))
}

/// What is asked for, by file or by kind and names.
///
/// # Errors
/// As [`documents`], and a namespace where none belongs.
pub(crate) fn targets(what: &Selection, all_namespaces: bool) -> Result<Vec<Target>> {
    let given = what.namespace.as_deref();
    if let Some(file) = &what.filename {
        let target = |d: Document| Target {
            kind: d.kind,
            namespace: d.namespace,
            name: Some(d.name),
        };
        return Ok(documents(file, given)?.into_iter().map(target).collect());
    }
    let Some(kind) = what.kind else {
        bail!("no resource type given")
    };
    if !kind.is_namespaced() && (given.is_some() || all_namespaces) {
        bail!("{kind} is not namespaced");
    }
    if what.names.iter().any(String::is_empty) {
        bail!("resource name may not be empty");
    }
    let namespace = match (kind.is_namespaced(), all_namespaces) {
        (false, _) => String::new(),
        (true, true) if what.names.is_empty() => String::new(),
        (true, true) => bail!("a name needs its namespace: use --namespace, not --all-namespaces"),
        (true, false) => given.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
    };
    let target = |name| Target {
        kind,
        namespace: namespace.clone(),
        name,
    };
    if what.names.is_empty() {
        return Ok(vec![target(None)]);
    }
    Ok(what.names.iter().map(|name| target(Some(name.clone()))).collect())
}

fn read(file: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    // One byte more than is read tells "too long" from "just fits".
    let most = u64::try_from(yaml::INPUT_BYTES_MAX)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let reading = || format!("reading {}", name(file));
    if file == Path::new("-") {
        std::io::stdin()
            .take(most)
            .read_to_end(&mut bytes)
            .with_context(reading)?;
    } else {
        std::fs::File::open(file)
            .and_then(|f| f.take(most).read_to_end(&mut bytes))
            .with_context(reading)?;
    }
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{} is not UTF-8", name(file)))
}

fn name(file: &Path) -> String {
    if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

fn parse(text: &str, namespace: Option<&str>) -> Result<Vec<Document>> {
    let mut parsed = yaml::parse(text)?;
    let mut faults = Vec::new();
    for document in &mut parsed {
        place(&mut document.resource, namespace)?;
        if let Err(errors) = document.check() {
            faults.push(errors.to_string());
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(parsed.into_iter().map(|d| document(d.resource)).collect())
}

/// calicoctl's rules on namespaces.
fn place(resource: &mut AnyResource, given: Option<&str>) -> Result<()> {
    let kind = resource.kind();
    let meta = resource.metadata_mut();
    match (kind.is_namespaced(), meta.namespace.as_str(), given) {
        (false, "", None) => {}
        (false, "", Some(_)) => bail!("{kind} is not namespaced"),
        (false, _, _) => bail!(
            "namespace should not be specified for a non-namespaced resource. {kind} is not a namespaced resource"
        ),
        (true, "", given) => given.unwrap_or(DEFAULT_NAMESPACE).clone_into(&mut meta.namespace),
        (true, own, Some(given)) if own != given => {
            bail!("resource namespace does not match client namespace. {own} != {given}")
        }
        (true, _, _) => {}
    }
    Ok(())
}

fn document(mut resource: AnyResource) -> Document {
    let kind = resource.kind();
    let meta = resource.metadata_mut();
    let resource_version = std::mem::take(&mut meta.resource_version);
    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
    Document {
        kind,
        namespace,
        name,
        resource_version,
        json: resource.encode(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: p\nspec:\n  cidr: 10.244.0.0/16\n";
    const POLICY: &str = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  name: n\nspec:\n  selector: all()\n";

    fn selection(kind: Option<Kind>, names: &[&str], namespace: Option<&str>) -> Selection {
        Selection {
            kind,
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            filename: None,
            namespace: namespace.map(str::to_owned),
        }
    }

    #[test]
    fn several_documents_are_read_and_namespaces_filled_in() {
        let read = parse(&format!("{POOL}---\n{POLICY}"), None).unwrap();
        let found: Vec<_> = read
            .iter()
            .map(|d| (d.kind, d.namespace.as_str(), d.name.as_str()))
            .collect();
        assert_eq!(
            found,
            [(Kind::IpPool, "", "p"), (Kind::NetworkPolicy, "default", "n")]
        );
        assert_eq!(parse(POLICY, Some("prod")).unwrap()[0].namespace, "prod");
    }

    #[test]
    fn one_bad_document_spoils_the_file_and_is_named_with_line_and_field() {
        let error = parse(
            &format!("{POOL}---\n{}", POOL.replace("10.244.0.0/16", "ten")),
            None,
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("document 2, line 13") && error.contains("spec.cidr"),
            "{error}"
        );
        let error = parse(&POOL.replace("10.244.0.0/16", "10.244.0.0/31"), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("document 1") && error.contains("spec"), "{error}");
    }

    #[test]
    fn namespaces_are_judged_as_calicoctl_judges_them() {
        let namespaced = POOL.replace("  name: p\n", "  name: p\n  namespace: x\n");
        assert!(parse(&namespaced, None).is_err());
        assert_eq!(
            parse(POOL, Some("x")).unwrap_err().to_string(),
            "IPPool is not namespaced"
        );
        let own = POLICY.replace("  name: n\n", "  name: n\n  namespace: x\n");
        let mismatch = parse(&own, Some("y")).unwrap_err().to_string();
        assert_eq!(
            mismatch,
            "resource namespace does not match client namespace. x != y"
        );
        assert_eq!(parse(&own, Some("x")).unwrap()[0].namespace, "x");
    }

    #[test]
    fn kinds_and_names_become_targets() {
        let all = targets(&selection(Some(Kind::IpPool), &[], None), false).unwrap();
        assert_eq!(
            all,
            [Target {
                kind: Kind::IpPool,
                namespace: String::new(),
                name: None
            }]
        );
        let two = targets(&selection(Some(Kind::NetworkPolicy), &["a", "b"], None), false).unwrap();
        assert_eq!((two.len(), two[0].namespace.as_str()), (2, "default"));
        assert_eq!(
            targets(&selection(Some(Kind::NetworkPolicy), &[], None), true).unwrap()[0].namespace,
            ""
        );
        assert!(targets(&selection(Some(Kind::IpPool), &[], None), true).is_err());
        assert!(targets(&selection(Some(Kind::NetworkPolicy), &[""], None), false).is_err());
    }
}

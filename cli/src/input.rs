//! What a command is about: documents of a file, or kind and names of the command line.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use twill_model::{AnyResource, Kind, yaml};

use crate::args::{Selection, Source};

/// Most resources of one command: all of a large cluster's policies, far below what memory holds.
const DOCUMENTS_MAX: usize = 1_000_000;
/// How deep directories are searched.
const DEPTH_MAX: usize = 32;

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

/// Reads and checks every document of a file, of the files of a directory, or of standard input (`-`). One bad document and none
/// is returned. Empty only if that is allowed.
///
/// # Errors
/// A file cannot be read, holds nothing, or a document is not right: file, document, line, column, field and reason.
pub(crate) fn documents(source: &Source, namespace: Option<&str>) -> Result<Vec<Document>> {
    let mut all = Vec::new();
    let files = files(&source.filename, source.recursive)?;
    for file in &files {
        let parsed = read(file)
            .and_then(|text| parse(&text, namespace).with_context(|| format!("in {}", name(file))))
            .context("failed to execute command")?;
        if parsed.is_empty() && !source.skip_empty {
            bail!("no resources specified in file {}", file.display());
        }
        all.extend(parsed);
        if all.len() > DOCUMENTS_MAX {
            bail!("more than {DOCUMENTS_MAX} resources in one command");
        }
    }
    if all.is_empty() && !source.skip_empty {
        bail!(
            "no resources specified in directory {}",
            source.filename.display()
        );
    }
    Ok(all)
}

/// The file itself, or the `.yaml`, `.yml` and `.json` files of a directory in the order of their names.
fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if path == Path::new("-") || !path.is_dir() {
        found.push(path.to_owned());
    } else {
        walk(path, recursive, 0, &mut found)?;
    }
    Ok(found)
}

fn walk(dir: &Path, recursive: bool, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let reading = || format!("failed to execute command: reading {}", dir.display());
    let entries = std::fs::read_dir(dir).with_context(reading)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<_>>()
        .with_context(reading)?;
    paths.sort();
    for path in paths {
        // Links to directories are not followed: they can lead round in a circle.
        let is_dir = path.is_dir() && !path.is_symlink();
        if is_dir && recursive && depth < DEPTH_MAX {
            walk(&path, recursive, depth + 1, found)?;
        } else if !is_dir && is_manifest(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .map(str::to_ascii_lowercase);
    matches!(extension.as_deref(), Some("yaml" | "yml" | "json"))
}

/// The kind that a word of the command line names.
///
/// # Errors
/// There is none such, in calicoctl's words.
pub(crate) fn kind(text: &str) -> Result<Kind> {
    text.parse()
        .map_err(|_| anyhow::anyhow!("resource type '{text}' is not supported"))
}

/// Which namespace one named resource is in.
///
/// # Errors
/// A namespace where none belongs.
pub(crate) fn namespace_of(kind: Kind, given: Option<&str>) -> Result<String> {
    match (kind.is_namespaced(), given) {
        (false, Some(_)) => bail!("{kind} is not namespaced"),
        (false, None) => Ok(String::new()),
        (true, given) => Ok(given.unwrap_or(DEFAULT_NAMESPACE).to_owned()),
    }
}

/// What is asked for, by file or by kind and names.
///
/// # Errors
/// As [`documents`], and a namespace where none belongs.
pub(crate) fn targets(what: &Selection, all_namespaces: bool) -> Result<Vec<Target>> {
    let given = what.namespace.as_deref();
    if all_namespaces && given.is_some() {
        bail!("cannot use both --namespace and --all-namespaces flags at the same time");
    }
    if let Some(filename) = &what.filename {
        let target = |d: Document| Target {
            kind: d.kind,
            namespace: d.namespace,
            name: Some(d.name),
        };
        let source = Source {
            filename: filename.clone(),
            recursive: what.recursive,
            skip_empty: what.skip_empty,
        };
        return Ok(documents(&source, given)?.into_iter().map(target).collect());
    }
    let Some(kind) = &what.kind else {
        bail!("no resource type given")
    };
    let kind = self::kind(kind)?;
    if all_namespaces && !kind.is_namespaced() {
        bail!("{kind} is not namespaced");
    }
    if what.names.iter().any(String::is_empty) {
        bail!("resource name may not be empty");
    }
    if all_namespaces && !what.names.is_empty() {
        bail!("cannot use --all-namespace flag for getting a single resource");
    }
    let namespace = if all_namespaces {
        String::new()
    } else {
        namespace_of(kind, given)?
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
    let reading = || format!("open {}", name(file));
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

/// Reads and checks the documents of a text.
///
/// # Errors
/// One of them is not right: document, line, column, field and reason.
pub(crate) fn parse(text: &str, namespace: Option<&str>) -> Result<Vec<Document>> {
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

    fn selection(kind: &str, names: &[&str], namespace: Option<&str>) -> Selection {
        Selection {
            kind: Some(kind.to_owned()),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            namespace: namespace.map(str::to_owned),
            ..Selection::default()
        }
    }

    fn source(path: &Path, recursive: bool, skip_empty: bool) -> Source {
        Source {
            filename: path.to_owned(),
            recursive,
            skip_empty,
        }
    }

    #[test]
    fn a_directory_is_read_file_by_file_and_deeper_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("deep")).unwrap();
        write("b.YAML", POLICY);
        write(
            "a.json",
            r#"{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"j"},"spec":{"cidr":"10.1.0.0/16"}}"#,
        );
        write("readme.txt", "no yaml");
        write("deep/c.yml", POOL);
        let names = |recursive| {
            let read = documents(&source(dir.path(), recursive, false), None).unwrap();
            read.into_iter().map(|d| d.name).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["j", "n"]);
        assert_eq!(names(true), ["j", "n", "p"]);
    }

    #[test]
    fn what_holds_nothing_is_an_error_unless_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| {
            documents(&source(path, false, false), None)
                .unwrap_err()
                .to_string()
        };
        assert!(error(dir.path()).starts_with("no resources specified in directory"));
        let empty = dir.path().join("e.yaml");
        std::fs::write(&empty, "---\n").unwrap();
        assert!(error(&empty).starts_with("no resources specified in file"));
        for path in [dir.path(), &empty] {
            assert_eq!(documents(&source(path, false, true), None).unwrap(), []);
        }
        assert!(error(&dir.path().join("gone.yaml")).starts_with("failed to execute command"));
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
        let all = targets(&selection("ipp", &[], None), false).unwrap();
        assert_eq!(
            all,
            [Target {
                kind: Kind::IpPool,
                namespace: String::new(),
                name: None
            }]
        );
        let two = targets(&selection("NP", &["a", "b"], None), false).unwrap();
        assert_eq!((two.len(), two[0].namespace.as_str()), (2, "default"));
        assert_eq!(
            targets(&selection("NP", &[], None), true).unwrap()[0].namespace,
            ""
        );
        assert!(targets(&selection("ipp", &[], None), true).is_err());
        assert!(targets(&selection("NP", &[""], None), false).is_err());
    }
}

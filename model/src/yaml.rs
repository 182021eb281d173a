//! Objects as people write them: YAML or JSON, several documents, lists of objects.
//!
//! Every error says which document, line, column and field, and why. Unlike in the store, a field that this version
//! does not know is an error here: it is a typing mistake far more often than news. Scalars are read by the YAML 1.2
//! core schema, so `no` and `on` are words. Input is bounded in size, depth and number of values, aliases included.

mod emit;
mod scalar;
mod tree;

use std::fmt;

use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::resource::{AnyResource, DecodeError};
use crate::validate::{Invalid, Validate};

pub use emit::{list, to_string};
pub use tree::Position;
use tree::{Fault, Node};

/// Most bytes of one input: some tens of the largest objects that etcd takes.
pub const INPUT_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting. The deepest object of Calico's has about ten levels.
pub const DEPTH_MAX: usize = 64;
/// Most values in one document, copies that aliases make included: a pool of a thousand objects fits.
pub const VALUES_MAX: usize = 1_000_000;
/// Most errors that are reported of one input.
pub const ERRORS_MAX: usize = 50;

/// What is wrong with an input, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// Which document, from 1.
    pub document: usize,
    /// Where in the input.
    pub at: Position,
    /// The field, as in `spec.ingress[0].action`; empty if it is not about one.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.at;
        write!(f, "document {}, line {line}, column {column}", self.document)?;
        if !self.path.is_empty() {
            write!(f, ", field {}", self.path)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// All that is wrong with an input, up to [`ERRORS_MAX`]; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlErrors(Vec<YamlError>);

impl YamlErrors {
    /// The errors in the order of the input.
    pub fn iter(&self) -> impl Iterator<Item = &YamlError> {
        self.0.iter()
    }
}

impl fmt::Display for YamlErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for YamlErrors {}

/// One object of an input, and where its fields stand.
#[derive(Clone, Debug)]
pub struct Document {
    /// The object as written, without defaults.
    pub resource: AnyResource,
    number: usize,
    /// Where in the document the object is: empty, or `items[3].`.
    prefix: String,
    tree: Node,
}

impl Document {
    /// Where a field stands, or the innermost field around it that does.
    #[must_use]
    pub fn locate(&self, path: &str) -> Position {
        self.tree.locate(path)
    }

    /// Says of the fields of a failed validation where they stand.
    #[must_use]
    pub fn explain(&self, invalid: &Invalid) -> YamlErrors {
        let error = |problem: &crate::validate::Problem| YamlError {
            document: self.number,
            at: self.tree.locate(&problem.path),
            path: format!("{}{}", self.prefix, problem.path),
            reason: problem.reason.clone(),
        };
        YamlErrors(invalid.problems().map(error).collect())
    }

    /// Checks the object as it would be stored, with defaults.
    ///
    /// # Errors
    /// If a field is wrong.
    pub fn check(&self) -> Result<(), YamlErrors> {
        let mut resource = self.resource.clone();
        resource.apply_defaults();
        resource.validate().map_err(|invalid| self.explain(&invalid))
    }
}

/// Reads all objects of an input. Empty documents are skipped; a `List`, or a list of one kind, yields its items.
///
/// # Errors
/// If anything in the input is wrong; then nothing of it counts.
pub fn parse(text: &str) -> Result<Vec<Document>, YamlErrors> {
    let mut reader = Reader::default();
    if text.len() > INPUT_BYTES_MAX {
        let reason = format!(
            "the input has {} bytes, at most {INPUT_BYTES_MAX} are read",
            text.len()
        );
        reader.fault(1, "", Fault::new(Position::START, reason));
    } else {
        for (i, tree) in tree::documents(text).enumerate() {
            match tree {
                Ok(tree) if tree.is_null() => {}
                Ok(tree) => reader.document(i + 1, tree),
                Err(fault) => reader.fault(i + 1, "", fault),
            }
        }
    }
    if reader.errors.is_empty() {
        Ok(reader.documents)
    } else {
        Err(YamlErrors(reader.errors))
    }
}

/// Reads an input that is one value of any shape, a configuration file for one; empty is null.
///
/// # Errors
/// If it is no YAML, too large, or several documents.
pub fn value(text: &str) -> Result<Value, YamlErrors> {
    let fault = |document: usize, fault: Fault| {
        let Fault { at, reason } = fault;
        let path = String::new();
        YamlErrors(vec![YamlError {
            document,
            at,
            path,
            reason,
        }])
    };
    if text.len() > INPUT_BYTES_MAX {
        let reason = format!("more than {INPUT_BYTES_MAX} bytes");
        return Err(fault(1, Fault::new(Position::START, reason)));
    }
    let mut found = Value::Null;
    for (i, tree) in tree::documents(text).enumerate() {
        let tree = tree.map_err(|e| fault(i + 1, e))?;
        if tree.is_null() {
            continue;
        }
        if !found.is_null() {
            return Err(fault(
                i + 1,
                Fault::new(tree.at(), "one document is expected".to_owned()),
            ));
        }
        found = tree.to_json();
    }
    Ok(found)
}

#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    errors: Vec<YamlError>,
}

impl Reader {
    fn fault(&mut self, document: usize, path: &str, fault: Fault) {
        if self.errors.len() < ERRORS_MAX {
            let Fault { at, reason } = fault;
            self.errors.push(YamlError {
                document,
                at,
                path: path.to_owned(),
                reason,
            });
        }
    }

    /// Reads a document that is an object or a list of them.
    fn document(&mut self, number: usize, mut tree: Node) {
        let Some(of) = tree.field("kind").and_then(Node::text).and_then(list_of) else {
            return self.object(number, String::new(), tree, None);
        };
        let at = tree.at();
        match tree.take("items").map(Node::into_list) {
            Some(Ok(items)) => {
                for (i, item) in items.into_iter().enumerate() {
                    self.object(number, format!("items[{i}]."), item, of);
                }
            }
            Some(Err(node)) => self.fault(
                number,
                "items",
                Fault::new(node.at(), "must be a list of objects"),
            ),
            None => self.fault(number, "items", Fault::new(at, "must be set in a list")),
        }
    }

    /// Reads one object. `listed` is the kind of an item that names none.
    fn object(&mut self, number: usize, prefix: String, tree: Node, listed: Option<Kind>) {
        match read(&tree, listed) {
            Ok(resource) => {
                let unknown = resource.unknown_fields();
                for path in &unknown {
                    let fault = Fault::new(tree.locate(path), "this field is not known");
                    self.fault(number, &format!("{prefix}{path}"), fault);
                }
                if unknown.is_empty() {
                    self.documents.push(Document {
                        resource,
                        number,
                        prefix,
                        tree,
                    });
                }
            }
            Err(DecodeError::Json { path, reason }) => {
                let path = path.trim_start_matches('.');
                let fault = Fault::new(tree.locate(path), reason);
                self.fault(number, &format!("{prefix}{path}"), fault);
            }
            Err(other) => self.fault(number, &prefix, Fault::new(tree.at(), other.to_string())),
        }
    }
}

/// Of which kind a list is: `List` of any, `IPPoolList` of pools; `None` if `kind` is no list.
fn list_of(kind: &str) -> Option<Option<Kind>> {
    let of = kind.strip_suffix("List")?;
    if of.is_empty() {
        return Some(None);
    }
    Kind::ALL.into_iter().find(|kind| kind.as_str() == of).map(Some)
}

fn read(tree: &Node, listed: Option<Kind>) -> Result<AnyResource, DecodeError> {
    let wrong = |path: &str, reason: String| DecodeError::Json {
        path: path.to_owned(),
        reason,
    };
    let Value::Object(mut json) = tree.to_json() else {
        return Err(wrong(
            "",
            "must be an object, with kind, apiVersion, metadata and spec".to_owned(),
        ));
    };
    let kind = match (json.get("kind"), listed) {
        (Some(Value::String(text)), _) => {
            let exact = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
            exact.ok_or_else(|| wrong("kind", unknown_kind(text)))?
        }
        (None, Some(kind)) => kind,
        (Some(_), _) => return Err(wrong("kind", "must be a name".to_owned())),
        (None, None) => return Err(wrong("kind", "must be set".to_owned())),
    };
    if listed.is_none() && !json.contains_key("apiVersion") {
        return Err(wrong(
            "apiVersion",
            format!("must be set to {}", kind.api_version()),
        ));
    }
    complete(kind, &mut json);
    AnyResource::from_value(kind, Value::Object(json))
}

fn unknown_kind(text: &str) -> String {
    match text.parse::<Kind>() {
        Ok(kind) => format!("{text:?} is written {kind}"),
        Err(error) => error.to_string(),
    }
}

/// Puts what a decoder of stored objects insists on and people leave out.
fn complete(kind: Kind, json: &mut Map<String, Value>) {
    let spec = json.entry("spec").or_insert_with(|| json!({}));
    if spec.is_null() {
        *spec = json!({});
    }
    if let (Kind::IpamConfiguration, Value::Object(spec)) = (kind, spec) {
        // Absent, this means true; in a stored object it would mean false.
        spec.entry("autoAllocateBlocks").or_insert(Value::Bool(true));
    }
}

#[cfg(test)]
mod tests;

//! YAML as a tree of values that know where they stand.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::{DEPTH_MAX, VALUES_MAX, scalar};

/// A place in the input; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Which line.
    pub line: usize,
    /// Which character of the line.
    pub column: usize,
}

impl Position {
    /// The first character.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    fn of(span: Span) -> Self {
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }
}

/// Something wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Position,
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn new(at: Position, reason: impl Into<String>) -> Self {
        Self {
            at,
            reason: reason.into(),
        }
    }
}

impl From<ScanError> for Fault {
    fn from(error: ScanError) -> Self {
        let marker = error.marker();
        let at = Position {
            line: marker.line().max(1),
            column: marker.col() + 1,
        };
        Self::new(at, error.info())
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    at: Position,
    data: Data,
    /// How many values it holds, itself included.
    values: usize,
}

#[derive(Clone, Debug)]
enum Data {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
struct Entry {
    key: String,
    at: Position,
    value: Node,
}

impl Node {
    pub(super) fn at(&self) -> Position {
        self.at
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.data, Data::Scalar(Value::Null))
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.key == name),
            _ => None,
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.entry(name).map(|entry| &entry.value)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Self> {
        let Data::Map(entries) = &mut self.data else {
            return None;
        };
        let at = entries.iter().position(|entry| entry.key == name)?;
        Some(entries.remove(at).value)
    }

    pub(super) fn into_list(self) -> Result<Vec<Self>, Self> {
        match self.data {
            Data::List(list) => Ok(list),
            _ => Err(self),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(list) => Value::Array(list.iter().map(Self::to_json).collect()),
            Data::Map(entries) => {
                let pairs = entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// Where a path such as `spec.nets[2]` or `metadata.labels["a.b"]` leads, as far as there is something.
    pub(super) fn locate(&self, path: &str) -> Position {
        match self.step(path) {
            Some((at, node, rest)) if rest.is_empty() || matches!(node.data, Data::Scalar(_)) => at,
            Some((at, node, rest)) => match node.step(rest) {
                Some(_) => node.locate(rest),
                None => at,
            },
            None => self.at,
        }
    }

    /// One step along a path: where it leads, to what, and what is left of the path.
    fn step<'a, 'p>(&'a self, path: &'p str) -> Option<(Position, &'a Self, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        match &self.data {
            Data::Scalar(_) => None,
            Data::List(list) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let node = list.get(index.parse::<usize>().ok()?)?;
                Some((node.at, node, rest))
            }
            Data::Map(entries) => entries.iter().find_map(|entry| {
                let quoted = format!("[{:?}]", entry.key);
                let rest = match path.strip_prefix(quoted.as_str()) {
                    Some(rest) => rest,
                    // A key may hold dots, so it is the keys that cut the path and not the dots.
                    None => path
                        .strip_prefix(entry.key.as_str())
                        .filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))?,
                };
                Some((entry.at, &entry.value, rest))
            }),
        }
    }
}

/// The documents of an input. After an error in the syntax nothing follows.
pub(super) fn documents(text: &str) -> impl Iterator<Item = Result<Node, Fault>> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        values: 0,
    };
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let next = builder.document().transpose();
        over = !matches!(next, Some(Ok(_)));
        next
    })
}

struct Builder<'input> {
    parser: Parser<'input, StrInput<'input>>,
    /// Values that aliases of this document may stand for.
    anchors: HashMap<usize, Node>,
    /// How many values this document holds so far, those under anchors twice.
    values: usize,
}

impl<'input> Builder<'input> {
    fn next(&mut self) -> Result<Option<(Event<'input>, Position)>, Fault> {
        let next = self.parser.next_event().transpose()?;
        Ok(next.map(|(event, span)| (event, Position::of(span))))
    }

    fn document(&mut self) -> Result<Option<Node>, Fault> {
        self.anchors.clear();
        self.values = 0;
        while let Some((event, at)) = self.next()? {
            match event {
                Event::StreamEnd => return Ok(None),
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                event => return self.node(event, at, 0).map(Some),
            }
        }
        Ok(None)
    }

    /// The value that begins with `event`.
    fn node(&mut self, event: Event<'input>, at: Position, depth: usize) -> Result<Node, Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::new(
                at,
                format!("is nested more than {DEPTH_MAX} levels deep"),
            ));
        }
        let (data, anchor) = match event {
            Event::Alias(id) => return self.alias(id, at),
            Event::Scalar(text, style, anchor, tag) => (
                Data::Scalar(scalar_value(&text, style, tag.as_deref(), at)?),
                anchor,
            ),
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq", at)?;
                (Data::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map", at)?;
                (Data::Map(self.map(depth)?), anchor)
            }
            _ => return Err(Fault::new(at, "a value is missing")),
        };
        let below: usize = match &data {
            Data::Scalar(_) => 0,
            Data::List(list) => list.iter().map(|node| node.values).sum(),
            Data::Map(entries) => entries.iter().map(|entry| entry.value.values).sum(),
        };
        let node = Node {
            at,
            data,
            values: below + 1,
        };
        self.count(1, at)?;
        if anchor != 0 {
            self.count(node.values, at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, values: usize, at: Position) -> Result<(), Fault> {
        self.values = self.values.saturating_add(values);
        if self.values > VALUES_MAX {
            return Err(Fault::new(
                at,
                format!("the document holds more than {VALUES_MAX} values"),
            ));
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, at: Position) -> Result<Node, Fault> {
        let values = self.anchors.get(&id).map(|node| node.values);
        self.count(values.unwrap_or(0), at)?;
        match self.anchors.get(&id) {
            Some(node) => Ok(Node { at, ..node.clone() }),
            None => Err(Fault::new(
                at,
                "an alias cannot stand inside the value that it names",
            )),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut list = Vec::new();
        while let Some((event, at)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            list.push(self.node(event, at, depth + 1)?);
        }
        Ok(list)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        // Finds repeated keys without comparing each with all.
        let mut keys = std::collections::HashSet::new();
        while let Some((event, at)) = self.next()? {
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Fault::new(at, "the name of a field must be text")),
            };
            if !keys.insert(key.clone()) {
                return Err(Fault::new(at, format!("{key:?} stands here twice")));
            }
            let Some((event, value_at)) = self.next()? else {
                break;
            };
            let value = self.node(event, value_at, depth + 1)?;
            entries.push(Entry { key, at, value });
        }
        Ok(entries)
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Value, Fault> {
    if let Some(tag) = tag {
        check_tag(Some(tag), "str", at)?;
        return Ok(Value::String(text.to_owned()));
    }
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.to_owned()));
    }
    scalar::resolve(text).ok_or_else(|| Fault::new(at, format!("{text} is not a number that can be stored")))
}

fn check_tag(tag: Option<&Tag>, suffix: &str, at: Position) -> Result<(), Fault> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == suffix => Ok(()),
        Some(tag) => Err(Fault::new(at, format!("the tag {tag} means nothing here"))),
    }
}

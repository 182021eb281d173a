//! Canonical text and unique id of an expression, as Calico prints and hashes them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha224};

use super::{Compare, Membership, Node};

/// The canonical text.
pub(super) fn text(node: &Node) -> String {
    let mut out = String::new();
    write(node, &mut out);
    out
}

/// The unique id of a canonical text.
pub(super) fn unique_id(canonical: &str) -> String {
    let mut hash = Sha224::new();
    hash.update("s:");
    hash.update(canonical);
    format!("s:{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
}

fn write(node: &Node, out: &mut String) {
    match node {
        Node::All => out.push_str("all()"),
        Node::Global => out.push_str("global()"),
        Node::Has(label) => {
            out.push_str("has(");
            out.push_str(label);
            out.push(')');
        }
        Node::Compare { label, op, value } => {
            out.push_str(label);
            out.push_str(match op {
                Compare::Equal => " == ",
                Compare::NotEqual => " != ",
                Compare::Contains => " contains ",
                Compare::StartsWith => " starts with ",
                Compare::EndsWith => " ends with ",
            });
            quote(value, out);
        }
        Node::Member { label, op, values } => {
            out.push_str(label);
            out.push_str(match op {
                Membership::In => " in {",
                Membership::NotIn => " not in {",
            });
            separated(values, ", ", out, |value, out| quote(value, out));
            out.push('}');
        }
        Node::Not(operand) => {
            out.push('!');
            write(operand, out);
        }
        Node::And(operands) => group(operands, " && ", out),
        Node::Or(operands) => group(operands, " || ", out),
    }
}

fn group(operands: &[Node], operator: &str, out: &mut String) {
    out.push('(');
    separated(operands, operator, out, write);
    out.push(')');
}

fn separated<T>(items: &[T], separator: &str, out: &mut String, mut item: impl FnMut(&T, &mut String)) {
    for (i, each) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        item(each, out);
    }
}

fn quote(value: &str, out: &mut String) {
    let quote = if value.contains('"') { '\'' } else { '"' };
    out.push(quote);
    out.push_str(value);
    out.push(quote);
}

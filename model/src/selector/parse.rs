//! Tokens to an expression, by recursive descent:
//!
//! ```text
//! or    := and ('||' and)*
//! and   := unary ('&&' unary)*
//! unary := '!'* (has | all | global | '(' or ')' | label operator literal-or-set)
//! set   := '{' (literal (',' literal)* ','?)? '}'
//! ```
//!
//! A group of one is its only member; repeated `!` cancel out in pairs.

use super::token::{Kind, Token, Tokens};
use super::{Compare, DEPTH_MAX, Membership, Node, SelectorError, TEXT_MAX};

/// Parses a whole text.
pub(super) fn selector(text: &str) -> Result<Node, SelectorError> {
    if text.len() > TEXT_MAX {
        return Err(SelectorError::TooLong { length: text.len() });
    }
    let mut tokens = Tokens::new(text);
    let head = tokens.next()?;
    if head.kind == Kind::End {
        return Ok(Node::All);
    }
    let mut parser = Parser {
        tokens,
        head,
        depth: 0,
    };
    let root = parser.or()?;
    if parser.head.kind == Kind::End {
        Ok(root)
    } else {
        Err(parser.expected("&&, || or the end"))
    }
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    head: Token<'a>,
    depth: usize,
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<(), SelectorError> {
        self.head = self.tokens.next()?;
        Ok(())
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        self.tokens.unexpected(self.head.at, expected)
    }

    fn or(&mut self) -> Result<Node, SelectorError> {
        let first = self.and()?;
        let mut operands = vec![first];
        while self.head.kind == Kind::Or {
            self.advance()?;
            operands.push(self.and()?);
        }
        Ok(group(operands, Node::Or))
    }

    fn and(&mut self) -> Result<Node, SelectorError> {
        let first = self.unary()?;
        let mut operands = vec![first];
        while self.head.kind == Kind::And {
            self.advance()?;
            operands.push(self.unary()?);
        }
        Ok(group(operands, Node::And))
    }

    fn unary(&mut self) -> Result<Node, SelectorError> {
        let mut negated = false;
        while self.head.kind == Kind::Not {
            negated = !negated;
            self.advance()?;
        }
        let operand = self.primary()?;
        Ok(if negated {
            Node::Not(Box::new(operand))
        } else {
            operand
        })
    }

    fn primary(&mut self) -> Result<Node, SelectorError> {
        let node = match self.head.kind {
            Kind::All => Node::All,
            Kind::Global => Node::Global,
            Kind::Has(label) => Node::Has(label.into()),
            Kind::LeftParen => return self.parenthesis(),
            Kind::Label(label) => return self.test(label),
            _ => return Err(self.expected("a label, has(), all(), global(), ! or (")),
        };
        self.advance()?;
        Ok(node)
    }

    fn parenthesis(&mut self) -> Result<Node, SelectorError> {
        if self.depth == DEPTH_MAX {
            return Err(SelectorError::TooDeep {
                at: self.tokens.character(self.head.at),
            });
        }
        self.depth += 1;
        self.advance()?;
        let inner = self.or()?;
        if self.head.kind != Kind::RightParen {
            return Err(self.expected("&&, || or )"));
        }
        self.advance()?;
        self.depth -= 1;
        Ok(inner)
    }

    fn test(&mut self, label: &str) -> Result<Node, SelectorError> {
        self.advance()?;
        let operator = self.head.kind;
        let compare = match operator {
            Kind::Equal => Compare::Equal,
            Kind::NotEqual => Compare::NotEqual,
            Kind::Contains => Compare::Contains,
            Kind::StartsWith => Compare::StartsWith,
            Kind::EndsWith => Compare::EndsWith,
            Kind::In | Kind::NotIn => {
                let op = if operator == Kind::In {
                    Membership::In
                } else {
                    Membership::NotIn
                };
                self.advance()?;
                return Ok(Node::member(label, op, self.set()?));
            }
            _ => {
                return Err(
                    self.expected("an operator (==, !=, in, not in, contains, starts with, ends with)")
                );
            }
        };
        self.advance()?;
        let Kind::Literal(value) = self.head.kind else {
            return Err(self.expected("a quoted string"));
        };
        self.advance()?;
        Ok(Node::Compare {
            label: label.into(),
            op: compare,
            value: value.into(),
        })
    }

    fn set(&mut self) -> Result<Vec<Box<str>>, SelectorError> {
        if self.head.kind != Kind::LeftBrace {
            return Err(self.expected("{"));
        }
        self.advance()?;
        let mut values = Vec::new();
        let mut expected = "a quoted string or }";
        while let Kind::Literal(value) = self.head.kind {
            values.push(value.into());
            self.advance()?;
            if self.head.kind != Kind::Comma {
                expected = ", or }";
                break;
            }
            self.advance()?;
        }
        if self.head.kind != Kind::RightBrace {
            return Err(self.expected(expected));
        }
        self.advance()?;
        Ok(values)
    }
}

/// One operand is itself, several are a group.
fn group(mut operands: Vec<Node>, many: fn(Box<[Node]>) -> Node) -> Node {
    match operands.pop() {
        Some(only) if operands.is_empty() => only,
        Some(last) => {
            operands.push(last);
            many(operands.into_boxed_slice())
        }
        None => Node::All,
    }
}

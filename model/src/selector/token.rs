//! Text to tokens, by the rules of Calico's tokenizer: blanks are space and tab, strings have no escapes, and words
//! such as `in` are operators only directly after a label.

use super::{LABEL_MAX, SelectorError};

/// A token with the byte at which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) at: usize,
    pub(super) kind: Kind<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Label(&'a str),
    Literal(&'a str),
    LeftBrace,
    RightBrace,
    Comma,
    LeftParen,
    RightParen,
    Equal,
    NotEqual,
    In,
    NotIn,
    Contains,
    StartsWith,
    EndsWith,
    Not,
    And,
    Or,
    All,
    Global,
    Has(&'a str),
    End,
}

/// Reads tokens off a text, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    rest: &'a str,
    after_label: bool,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            rest: text,
            after_label: false,
        }
    }

    /// The next token; [`Kind::End`] for ever at the end.
    pub(super) fn next(&mut self) -> Result<Token<'a>, SelectorError> {
        self.skip_blanks();
        let at = self.offset();
        let kind = match self.rest.as_bytes().first() {
            None => Kind::End,
            Some(b'(') => self.symbol("(", Kind::LeftParen)?,
            Some(b')') => self.symbol(")", Kind::RightParen)?,
            Some(b'{') => self.symbol("{", Kind::LeftBrace)?,
            Some(b'}') => self.symbol("}", Kind::RightBrace)?,
            Some(b',') => self.symbol(",", Kind::Comma)?,
            Some(b'=') => self.symbol("==", Kind::Equal)?,
            Some(b'&') => self.symbol("&&", Kind::And)?,
            Some(b'|') => self.symbol("||", Kind::Or)?,
            Some(b'!') if self.cut("!=") => Kind::NotEqual,
            Some(b'!') => self.symbol("!", Kind::Not)?,
            Some(b'"') => self.literal('"')?,
            Some(b'\'') => self.literal('\'')?,
            Some(_) if self.after_label => self.operator()?,
            Some(_) => self.operand()?,
        };
        self.after_label = matches!(kind, Kind::Label(_));
        Ok(Token { at, kind })
    }

    /// The error for what stands at byte `at`.
    pub(super) fn unexpected(&self, at: usize, expected: &'static str) -> SelectorError {
        let found = match self.text.get(at..) {
            None | Some("") => "the end".to_owned(),
            Some(rest) => format!("{:?}", shortened(rest)),
        };
        SelectorError::Unexpected {
            at: self.character(at),
            expected,
            found,
        }
    }

    /// The character, counted from 1, at byte `at`.
    pub(super) fn character(&self, at: usize) -> usize {
        self.text.get(..at).map_or(0, |before| before.chars().count()) + 1
    }

    fn offset(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn cut(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn symbol(&mut self, symbol: &'static str, kind: Kind<'a>) -> Result<Kind<'a>, SelectorError> {
        if self.cut(symbol) {
            Ok(kind)
        } else {
            Err(self.unexpected(self.offset(), symbol))
        }
    }

    fn literal(&mut self, quote: char) -> Result<Kind<'a>, SelectorError> {
        let opening = self.offset();
        let unterminated = SelectorError::UnterminatedString {
            at: self.character(opening),
            quote,
        };
        let inner = self.rest.get(1..).ok_or(unterminated.clone())?;
        let (value, rest) = inner.split_once(quote).ok_or(unterminated)?;
        self.rest = rest;
        Ok(Kind::Literal(value))
    }

    /// A word after a label.
    fn operator(&mut self) -> Result<Kind<'a>, SelectorError> {
        const WORDS: [(&[&str], Kind<'static>); 5] = [
            (&["contains"], Kind::Contains),
            (&["starts", "with"], Kind::StartsWith),
            (&["ends", "with"], Kind::EndsWith),
            (&["not", "in"], Kind::NotIn),
            (&["in"], Kind::In),
        ];
        for (words, kind) in WORDS {
            if let Some(rest) = cut_words(self.rest, words) {
                self.rest = rest;
                return Ok(kind);
            }
        }
        Err(self.unexpected(
            self.offset(),
            "an operator (==, !=, in, not in, contains, starts with, ends with)",
        ))
    }

    /// `has(..)`, `all()`, `global()` or a label.
    fn operand(&mut self) -> Result<Kind<'a>, SelectorError> {
        if self.cut("has(") {
            self.skip_blanks();
            let label = self.identifier("the name of a label")?;
            self.closing()?;
            return Ok(Kind::Has(label));
        }
        if self.cut("all(") {
            self.closing()?;
            return Ok(Kind::All);
        }
        if self.cut("global(") {
            self.closing()?;
            return Ok(Kind::Global);
        }
        self.identifier("a label, has(), all(), global(), ! or (")
            .map(Kind::Label)
    }

    fn closing(&mut self) -> Result<(), SelectorError> {
        self.skip_blanks();
        if self.cut(")") {
            Ok(())
        } else {
            Err(self.unexpected(self.offset(), ")"))
        }
    }

    fn identifier(&mut self, expected: &'static str) -> Result<&'a str, SelectorError> {
        let at = self.offset();
        let rest = self.rest.trim_start_matches(is_identifier);
        let (label, rest) = self.rest.split_at(self.rest.len() - rest.len());
        if label.is_empty() {
            return Err(self.unexpected(at, expected));
        }
        if label.len() > LABEL_MAX {
            return Err(SelectorError::LabelTooLong {
                at: self.character(at),
                length: label.len(),
            });
        }
        self.rest = rest;
        Ok(label)
    }
}

/// Whether a character may stand in a label's name.
fn is_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

/// What follows `words`, which may have blanks or nothing between them, if no label character follows the last one.
/// Blanks after several words are cut before that check, which refuses `a not in b` here rather than at `b`.
fn cut_words<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    let mut rest = text;
    for word in words {
        rest = rest.strip_prefix(word)?;
        if words.len() > 1 {
            rest = rest.trim_start_matches([' ', '\t']);
        }
    }
    if rest.starts_with(is_identifier) {
        None
    } else {
        Some(rest)
    }
}

/// The beginning of what was found, for an error.
fn shortened(text: &str) -> String {
    const CHARACTERS: usize = 20;
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(CHARACTERS).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

//! Errors as the runtime reads them (CNI spec 1.1.0, section "Error").

use std::fmt::Display;

use serde::Serialize;

/// Well-known codes of the spec that this plugin uses.
pub(crate) mod code {
    pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
    pub(crate) const UNSUPPORTED_FIELD: u32 = 2;
    pub(crate) const INVALID_ENVIRONMENT: u32 = 4;
    pub(crate) const IO: u32 = 5;
    pub(crate) const DECODE: u32 = 6;
    pub(crate) const INVALID_CONFIG: u32 = 7;
    pub(crate) const TRY_AGAIN: u32 = 11;
    pub(crate) const NOT_AVAILABLE: u32 = 50;
}

/// What goes to standard output when an operation fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CniError {
    /// A code of the spec, or 100 and above: the daemon's own.
    pub(crate) code: u32,
    /// One line for people.
    pub(crate) msg: String,
    /// More, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) details: String,
}

impl CniError {
    pub(crate) fn new(code: u32, msg: impl Display) -> Self {
        Self {
            code,
            msg: msg.to_string(),
            details: String::new(),
        }
    }

    pub(crate) fn details(mut self, details: impl Display) -> Self {
        self.details = details.to_string();
        self
    }

    /// A variable of the environment that is absent or malformed.
    pub(crate) fn environment(variable: &str, what: impl Display) -> Self {
        Self::new(code::INVALID_ENVIRONMENT, format_args!("{variable} {what}"))
    }

    pub(crate) fn config(what: impl Display) -> Self {
        Self::new(
            code::INVALID_CONFIG,
            format_args!("network configuration: {what}"),
        )
    }

    /// A key of the configuration whose value asks for something that is not done; the message names both.
    pub(crate) fn unsupported(key: &str, value: &str, what_to_do: &str) -> Self {
        Self::new(
            code::UNSUPPORTED_FIELD,
            format_args!("network configuration: {key} {value:?} is not supported: {what_to_do}"),
        )
    }

    pub(crate) fn io(doing: impl Display, error: &impl Display) -> Self {
        Self::new(code::IO, format_args!("{doing}: {error}"))
    }
}

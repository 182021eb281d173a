//! A BGP speaker: sans-IO core, tokio shell.

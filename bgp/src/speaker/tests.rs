//! What the speaker tells its peers, feature by feature.

mod attributes;
mod keeping;

//! What the speaker tells its peers, feature by feature.

mod attributes;
mod groups;
mod keeping;
mod paths;
mod reflection;

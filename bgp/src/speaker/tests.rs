//! What the speaker tells its peers, feature by feature.

mod attributes;
mod groups;
mod keeping;
mod limits;
mod paths;
mod reflection;

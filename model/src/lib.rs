//! Twill's resources, keys, selectors, validation and updates. Pure: no I/O.
//!
//! Everything stored under `/calico/` is Calico's, exactly: kinds, fields, key layout and JSON. A value that was
//! written by a Calico component decodes into a type from here and encodes back into the same bytes, fields that
//! this version does not know included.
//!
//! | module | holds |
//! |---|---|
//! | [`kind`] | the kinds of `projectcalico.org/v3` |
//! | [`key`] | etcd key ⇄ typed key |
//! | [`meta`] | `metadata` of an object |
//! | [`resource`] | an object: metadata, spec, status; [`AnyResource`] for one of any kind |
//! | [`resources`] | the specs, kind by kind |
//! | [`rule`] | the rules of policies and profiles |
//! | [`selector`] | the selector language |
//! | [`names`], [`policyname`] | names made from other names; the two names of a policy |
//! | [`defaults`], [`validate`], [`change`] | what a writer fills in, may store, and does to metadata |
//! | [`initial`] | the objects that a cluster needs before anything else |
//! | [`gojson`] | JSON as Go's `encoding/json` writes it |
//! | [`yaml`] | what people write and read |
//! | [`ipam`] | blocks, affinities, handles and settings of the allocator |
//! | [`update`] | what a watch of the store yields |

#![warn(clippy::indexing_slicing)]
#![deny(missing_docs)]

pub mod change;
pub mod defaults;
pub mod duration;
mod go;
pub mod gojson;
pub mod initial;
pub mod ipam;
pub mod key;
pub mod kind;
pub mod meta;
pub mod names;
pub mod net;
pub mod number;
pub mod policyname;
pub mod resource;
pub mod resources;
pub mod rule;
pub mod selector;
pub mod update;
pub mod validate;
pub mod yaml;

pub use go::{Extra, Field, Path};
pub use key::{AffinityOwner, Key, ResourceKey};
pub use kind::Kind;
pub use meta::ObjectMeta;
pub use resource::{AnyResource, DecodeError, Resource, Spec};
pub use update::{Event, Update, Value};

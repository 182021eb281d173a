//! A lab of network namespaces for Twill: real etcd, real `twilld`, real BIRD, pods by the real CNI plugin.
//!
//! The root namespace stays as it is: every device is made inside the lab's own namespaces. What a lab remembers is a plain file
//! below [`state::HOME`]; every command finds it there.

pub mod bench;
pub mod bird;
pub mod calico;
pub mod child;
pub mod cni;
pub mod ctl;
pub mod demo;
pub mod fabric;
pub mod lab;
pub mod netns;
pub mod pods;
pub mod probe;
pub mod routes;
pub mod run;
pub mod state;
pub mod topology;

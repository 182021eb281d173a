//! The speaker's public face: in virtual time, and against other implementations.

mod bird;
mod lab;

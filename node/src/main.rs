//! The Twill node daemon.

fn main() {}

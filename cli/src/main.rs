//! The Twill command line.

fn main() {}

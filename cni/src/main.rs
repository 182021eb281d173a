//! The Twill CNI plugin.

fn main() {}

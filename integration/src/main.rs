//! A lab of network namespaces for Twill, and its end-to-end tests.

fn main() {}

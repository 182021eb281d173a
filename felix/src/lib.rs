//! The host agent: calculation graph, desired state, kernel.

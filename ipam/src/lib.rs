//! Calico-compatible address management: pure plans and an allocator that runs them.

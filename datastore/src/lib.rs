//! The store behind Twill: a trait, an in-memory store with faults, etcd, and a list+watch syncer.

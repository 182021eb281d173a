//! Twill's wire contracts: gRPC for the command line, prost messages for the CNI plugin.
//!
//! | feature | gives | costs |
//! |---|---|---|
//! | `cni` | [`cni`]: the plugin's messages and their framing | prost |
//! | `grpc` | `api`: client and server of the command line's services | tonic |
#![warn(clippy::indexing_slicing)]

/// Messages of the CNI plugin (`proto/cni.proto`), and how they lie on the socket.
#[cfg(feature = "cni")]
pub mod cni {
    mod frame;
    pub mod spool;

    #[allow(
        missing_docs,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated; documented in proto/cni.proto"
    )]
    mod generated {
        include!(concat!(env!("OUT_DIR"), "/twill.cni.v1.rs"));
    }

    pub use frame::{FRAME_MAX, FrameError, LENGTH_BYTES, decode, encode, payload_length};
    pub use generated::*;
}

/// Services of the command line (`proto/twill.proto`).
#[cfg(feature = "grpc")]
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; documented in proto/twill.proto"
)]
pub mod api {
    tonic::include_proto!("twill.v1");
}

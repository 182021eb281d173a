//! Generates the messages and services that the features ask for.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    if cfg!(feature = "cni") {
        prost_build::Config::new()
            .btree_map(["."])
            .compile_protos(&["proto/cni.proto"], &["proto"])?;
    }
    #[cfg(feature = "grpc")]
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .compile_protos(&["proto/twill.proto"], &["proto"])?;
    Ok(())
}

//! `twillctl ipam split`: one pool becomes several.

use std::process::ExitCode;

use anyhow::{Result, bail};
use twill_proto::api::SplitRequest;
use twill_proto::api::ipam_client::IpamClient;

use super::said;
use crate::args::Split;
use crate::client;
use crate::config;
use crate::output::out;

pub(super) async fn run(daemon: &config::Target, asked: &Split) -> Result<ExitCode> {
    let (cidr, name) = (
        asked.cidr.clone().unwrap_or_default(),
        asked.name.clone().unwrap_or_default(),
    );
    if cidr.is_empty() && name.is_empty() {
        bail!("no name or CIDR provided. Provide a name or CIDR to denote the IP pool to split");
    }
    let Ok(parts) = asked.number.parse() else {
        bail!(
            "error reading number to split IP pools into. {} is not a valid number",
            asked.number
        );
    };
    let mut client = IpamClient::new(client::connect(daemon).await?);
    // A name wins over a CIDR, as with calicoctl.
    let request = SplitRequest { cidr, name, parts };
    let reply = client.split(request).await.map_err(|e| said(&e))?.into_inner();
    out!(ln
        "IP Pool {} was successfully split into {} smaller pools.",
        reply.old_name,
        reply.pools.len()
    );
    for pool in &reply.pools {
        out!(ln "Created {} with CIDR {}.", pool.name, pool.cidr);
    }
    out!(ln "Unlock the datastore (twillctl datastore unlock) when all splits are done.");
    Ok(ExitCode::SUCCESS)
}

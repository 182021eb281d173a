//! Settings of allocators, and what of them the resource says otherwise.

use tonic::Status;
use twill_datastore::Store;
use twill_datastore::client::birth;
use twill_ipam::admin::{Change, ConfigureError, Settings, configure, settings};
use twill_model::ipam::IpamConfig;
use twill_proto::api::{ConfigurationReply, ConfigureRequest};

pub(super) async fn get<S: Store>(store: &S) -> Result<ConfigurationReply, Status> {
    let Settings { config, warning } = settings(store).await.map_err(status)?;
    Ok(reply(&config, warning))
}

pub(super) async fn set<S: Store>(store: &S, asked: &ConfigureRequest) -> Result<ConfigurationReply, Status> {
    let config = configure(store, &change(asked)?, &birth())
        .await
        .map_err(status)?;
    tracing::info!("settings of allocators changed for the command line");
    Ok(reply(&config, None))
}

/// What to say to somebody who writes IPAMConfiguration.
pub(in crate::api) async fn warning<S: Store>(store: &S) -> Option<String> {
    settings(store).await.ok()?.warning
}

fn change(asked: &ConfigureRequest) -> Result<Change, Status> {
    let persistence = match asked.kubevirt_vm_address_persistence.as_deref() {
        None => None,
        Some("Enabled") => Some(true),
        Some("Disabled") => Some(false),
        Some(other) => {
            return Err(Status::invalid_argument(format!(
                "kubevirt_vm_address_persistence is {other:?}, and must be Enabled or Disabled"
            )));
        }
    };
    Ok(Change {
        strict_affinity: asked.strict_affinity,
        auto_allocate_blocks: None,
        max_blocks_per_host: asked.max_blocks_per_host,
        ip_cooldown_seconds: asked.ip_cooldown_seconds,
        vm_address_persistence: persistence,
    })
}

fn status(error: ConfigureError) -> Status {
    match error {
        ConfigureError::Store(error) => super::unavailable(error),
        ConfigureError::Unreadable { .. } => Status::data_loss(error.to_string()),
        ConfigureError::Contended => Status::aborted(error.to_string()),
        _ => Status::invalid_argument(format!("error: {error}")),
    }
}

fn reply(config: &IpamConfig, warning: Option<String>) -> ConfigurationReply {
    ConfigurationReply {
        strict_affinity: config.strict_affinity,
        auto_allocate_blocks: config.auto_allocate_blocks,
        max_blocks_per_host: config.max_blocks_per_host,
        kubevirt_vm_address_persistence: config
            .kube_virt_vm_address_persistence
            .clone()
            .unwrap_or_default(),
        ip_cooldown_seconds: config.ip_cooldown_seconds,
        warnings: warning.into_iter().collect(),
    }
}

//! `ipam configure`: the key that allocators obey and the resource that people see, in one transaction.

use twill_datastore::{Compare, Op, Store, StoreError, Txn};
use twill_model::change::{self, Birth, ChangeError};
use twill_model::ipam::IpamConfig;
use twill_model::kind::Kind;
use twill_model::resources::ipamconfiguration::{IpamConfiguration, Switch};
use twill_model::{AnyResource, Resource, ResourceKey, initial};

/// How often the settings are written against others who change them too.
const ATTEMPTS_MAX: u32 = 20;
/// The most blocks a node may be allowed, and the longest cool-down: Calico's bounds.
const BLOCKS_MAX: i64 = 1_000_000;
const COOLDOWN_SECS_MAX: i64 = 1200;

/// What to change; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Only a block's owner assigns from it.
    pub strict_affinity: Option<bool>,
    /// Nodes claim blocks as they need them.
    pub auto_allocate_blocks: Option<bool>,
    /// Most blocks of a node; 0 is the default of 20.
    pub max_blocks_per_host: Option<i64>,
    /// Seconds for which a released address is not given again.
    pub ip_cooldown_seconds: Option<i64>,
    /// Whether virtual machines keep their addresses.
    pub vm_address_persistence: Option<bool>,
}

/// Settings that no allocator could obey, or a store that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureError {
    /// Nobody could get an address.
    #[error(
        "strictAffinity and autoAllocateBlocks cannot both be off: nodes would own no block and borrow none"
    )]
    NeitherStrictNorAuto,
    /// The cap is only well defined with strict affinity.
    #[error("maxBlocksPerHost {0} requires strictAffinity: turn it on in the same command")]
    CapWithoutStrict(i64),
    /// Outside the bounds.
    #[error("{field} is {value}: it must be between 0 and {max}")]
    OutOfRange {
        /// The setting.
        field: &'static str,
        /// What was asked for.
        value: i64,
        /// The bound.
        max: i64,
    },
    /// What is stored cannot be read, so it is not overwritten.
    #[error("{key} cannot be read: {reason}")]
    Unreadable {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// Others kept changing the settings.
    #[error("others kept changing the settings: try again")]
    Contended,
    /// The resource would not be valid.
    #[error(transparent)]
    Invalid(#[from] ChangeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The settings after `change`.
///
/// # Errors
/// If no allocator could obey them.
pub fn configured(old: &IpamConfig, change: &Change) -> Result<IpamConfig, ConfigureError> {
    let mut new = old.clone();
    if let Some(on) = change.strict_affinity {
        new.strict_affinity = on;
    }
    if let Some(on) = change.auto_allocate_blocks {
        new.auto_allocate_blocks = on;
    }
    if let Some(cap) = change.max_blocks_per_host {
        new.max_blocks_per_host = cap;
    }
    if let Some(secs) = change.ip_cooldown_seconds {
        new.ip_cooldown_seconds = secs;
    }
    if let Some(on) = change.vm_address_persistence {
        new.kube_virt_vm_address_persistence = Some(if on { "Enabled" } else { "Disabled" }.to_owned());
    }
    bound("maxBlocksPerHost", new.max_blocks_per_host, BLOCKS_MAX)?;
    bound("ipCooldownSeconds", new.ip_cooldown_seconds, COOLDOWN_SECS_MAX)?;
    if !new.strict_affinity && !new.auto_allocate_blocks {
        return Err(ConfigureError::NeitherStrictNorAuto);
    }
    if new.max_blocks_per_host > 0 && !new.strict_affinity {
        return Err(ConfigureError::CapWithoutStrict(new.max_blocks_per_host));
    }
    Ok(new)
}

fn bound(field: &'static str, value: i64, max: i64) -> Result<(), ConfigureError> {
    if (0..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigureError::OutOfRange { field, value, max })
    }
}

/// Changes the settings and says what they are now. Key and resource are written in one transaction; allocators obey it from
/// their next one on.
///
/// # Errors
/// As [`ConfigureError`] says; nothing was written then, unless the store says that its outcome is unknown.
pub async fn configure(
    store: &impl Store,
    change: &Change,
    birth: &Birth,
) -> Result<IpamConfig, ConfigureError> {
    let resource_key = ResourceKey::cluster(Kind::IpamConfiguration, "default").path();
    for _ in 0..ATTEMPTS_MAX {
        let config = store.get(twill_model::key::IPAM_CONFIG).await?;
        let resource = store.get(resource_key.clone()).await?;
        let old = match &config {
            Some(kv) => {
                IpamConfig::decode(&kv.value).map_err(|e| unreadable(twill_model::key::IPAM_CONFIG, e))?
            }
            None => IpamConfig::default(),
        };
        let new = configured(&old, change)?;
        let stored = match &resource {
            Some(kv) => Some(IpamConfiguration::decode(&kv.value).map_err(|e| unreadable(&resource_key, e))?),
            None => None,
        };
        let shown = shown(&new, stored.as_ref(), birth)?;
        let at = |kv: &Option<twill_datastore::KeyValue>| kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let txn = Txn::when(vec![
            Compare::mod_revision(twill_model::key::IPAM_CONFIG, at(&config)),
            Compare::mod_revision(resource_key.clone(), at(&resource)),
        ])
        .then(vec![
            Op::put(twill_model::key::IPAM_CONFIG, encode(&new)?),
            Op::put(resource_key.clone(), shown.encode()),
        ]);
        if store.txn(txn).await?.succeeded {
            return Ok(new);
        }
    }
    Err(ConfigureError::Contended)
}

/// The resource that says the same.
fn shown(
    config: &IpamConfig,
    stored: Option<&IpamConfiguration>,
    birth: &Birth,
) -> Result<AnyResource, ChangeError> {
    let mut new = match stored {
        Some(stored) => stored.clone(),
        None => match initial::ipam_configuration() {
            AnyResource::IpamConfiguration(initial) => (*initial).clone(),
            _ => return Err(ChangeError::Provided("IPAMConfiguration default".to_owned())),
        },
    };
    new.spec.strict_affinity = config.strict_affinity;
    new.spec.auto_allocate_blocks = config.auto_allocate_blocks;
    new.spec.max_blocks_per_host = i32::try_from(config.max_blocks_per_host).unwrap_or(i32::MAX);
    new.spec.ip_cooldown_seconds = i32::try_from(config.ip_cooldown_seconds).unwrap_or(i32::MAX);
    new.spec.kubevirt_vm_address_persistence = match config.kube_virt_vm_address_persistence.as_deref() {
        Some("Enabled") => Some(Switch::Enabled),
        Some("Disabled") => Some(Switch::Disabled),
        _ => None,
    };
    let new: AnyResource = new.into();
    let stored: Option<AnyResource> = stored.map(|s| Resource::clone(s).into());
    change::apply(&new, stored.as_ref(), birth)
}

fn encode(config: &IpamConfig) -> Result<Vec<u8>, ConfigureError> {
    twill_model::gojson::to_vec(config).map_err(|e| unreadable(twill_model::key::IPAM_CONFIG, e))
}

fn unreadable(key: &str, reason: impl ToString) -> ConfigureError {
    ConfigureError::Unreadable {
        key: key.to_owned(),
        reason: reason.to_string(),
    }
}

//! `ipam configure`: the key that allocators obey and the resource that people see, in one transaction.

use twill_datastore::{Compare, KeyValue, Op, Revision, Store, StoreError, Txn};
use twill_model::change::{self, Birth, ChangeError};
use twill_model::initial::{self, DEFAULT};
use twill_model::ipam::IpamConfig;
use twill_model::key::IPAM_CONFIG;
use twill_model::kind::Kind;
use twill_model::resources::ipamconfiguration::{IpamConfiguration, Switch};
use twill_model::{AnyResource, Resource, ResourceKey};

/// How often the settings are written against others who change them too.
const ATTEMPTS_MAX: u32 = 20;
/// The greatest cap that the resource may show. Allocators obey any.
const BLOCKS_SHOWN_MAX: i64 = 1_000_000;
/// The longest cool-down: Calico's bound.
const COOLDOWN_SECS_MAX: i64 = 1200;

/// What to change; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Only a block's owner assigns from it.
    pub strict_affinity: Option<bool>,
    /// Nodes claim blocks as they need them.
    pub auto_allocate_blocks: Option<bool>,
    /// Most blocks of a node; 0 or less is the default of 20.
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
    #[error("Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time")]
    NeitherStrictNorAuto,
    /// The cap is only well defined with strict affinity.
    #[error("MaxBlocksPerHost requires StrictAffinity to be enabled")]
    CapWithoutStrict(i64),
    /// Outside the bounds.
    #[error("{field} is {value}, and must be 0 to {max}")]
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
        bound("ipCooldownSeconds", secs, COOLDOWN_SECS_MAX)?;
        new.ip_cooldown_seconds = secs;
    }
    if let Some(on) = change.vm_address_persistence {
        new.kube_virt_vm_address_persistence = Some(if on { "Enabled" } else { "Disabled" }.to_owned());
    }
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

/// The settings as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What allocators obey.
    pub config: IpamConfig,
    /// A sentence if people see something else.
    pub warning: Option<String>,
}

/// What allocators obey and, if people see something else, a sentence that says so.
///
/// # Errors
/// If the store fails, or what allocators obey cannot be read.
pub async fn settings(store: &impl Store) -> Result<Settings, ConfigureError> {
    let pair = Pair::read(store).await?;
    let warning = pair
        .shown
        .as_ref()
        .filter(|shown| said(shown, &pair.config).spec != shown.spec);
    let warning = warning.map(|_| {
        format!(
            "IPAMConfiguration {DEFAULT} differs from {IPAM_CONFIG}, and allocators obey the latter; twillctl ipam configure writes both"
        )
    });
    Ok(Settings {
        config: pair.config,
        warning,
    })
}

/// Changes the settings and says what they are now. Key and resource are written in one transaction; allocators obey it from
/// their next one on. A resource that cannot be read is not overwritten.
///
/// # Errors
/// As [`ConfigureError`] says; nothing was written then, unless the store says that its outcome is unknown.
pub async fn configure(
    store: &impl Store,
    change: &Change,
    birth: &Birth,
) -> Result<IpamConfig, ConfigureError> {
    for _ in 0..ATTEMPTS_MAX {
        let pair = Pair::read(store).await?;
        let new = configured(&pair.config, change)?;
        let shown = shown(&new, pair.shown.as_ref(), birth)?;
        let txn = Txn::when(vec![
            Compare::mod_revision(IPAM_CONFIG, pair.config_revision),
            Compare::mod_revision(shown_key(), pair.shown_revision),
        ])
        .then(vec![
            Op::put(IPAM_CONFIG, encode(&new)?),
            Op::put(shown_key(), shown.encode()),
        ]);
        if store.txn(txn).await?.succeeded {
            return Ok(new);
        }
    }
    Err(ConfigureError::Contended)
}

/// Both objects as stored; revision 0 is none.
struct Pair {
    config: IpamConfig,
    config_revision: Revision,
    shown: Option<IpamConfiguration>,
    shown_revision: Revision,
}

impl Pair {
    async fn read(store: &impl Store) -> Result<Self, ConfigureError> {
        let ops = vec![Op::get(IPAM_CONFIG), Op::get(shown_key())];
        let reply = store.txn(Txn::default().then(ops)).await?;
        let kv = |at: usize| -> Option<&KeyValue> { reply.responses.get(at)?.kvs().first() };
        let config = match kv(0) {
            Some(kv) => IpamConfig::decode(&kv.value).map_err(|e| unreadable(IPAM_CONFIG, e))?,
            None => IpamConfig::default(),
        };
        let shown = match kv(1) {
            Some(kv) => Some(IpamConfiguration::decode(&kv.value).map_err(|e| unreadable(&shown_key(), e))?),
            None => None,
        };
        let revision = |at: usize| kv(at).map_or(0, |kv| kv.mod_revision);
        Ok(Self {
            config,
            config_revision: revision(0),
            shown,
            shown_revision: revision(1),
        })
    }
}

fn shown_key() -> String {
    ResourceKey::cluster(Kind::IpamConfiguration, DEFAULT).path()
}

/// The resource that says the same.
fn shown(
    config: &IpamConfig,
    stored: Option<&IpamConfiguration>,
    birth: &Birth,
) -> Result<AnyResource, ChangeError> {
    let new = match stored {
        Some(stored) => stored.clone(),
        None => match initial::ipam_configuration() {
            AnyResource::IpamConfiguration(initial) => (*initial).clone(),
            _ => return Err(ChangeError::Provided("IPAMConfiguration default".to_owned())),
        },
    };
    let new: AnyResource = said(&new, config).into();
    let stored: Option<AnyResource> = stored.map(|s| Resource::clone(s).into());
    change::apply(&new, stored.as_ref(), birth)
}

/// `object`, saying what allocators obey.
fn said(object: &IpamConfiguration, config: &IpamConfig) -> IpamConfiguration {
    let mut said = object.clone();
    let spec = &mut said.spec;
    spec.strict_affinity = config.strict_affinity;
    spec.auto_allocate_blocks = config.auto_allocate_blocks;
    // A negative number means the default to allocators, and is not allowed here.
    spec.max_blocks_per_host =
        i32::try_from(config.max_blocks_per_host.clamp(0, BLOCKS_SHOWN_MAX)).unwrap_or(0);
    spec.ip_cooldown_seconds = i32::try_from(config.ip_cooldown_seconds).unwrap_or(0);
    spec.kubevirt_vm_address_persistence = match config.kube_virt_vm_address_persistence.as_deref() {
        Some("Enabled") => Some(Switch::Enabled),
        Some("Disabled") => Some(Switch::Disabled),
        _ => None,
    };
    said
}

fn encode(config: &IpamConfig) -> Result<Vec<u8>, ConfigureError> {
    twill_model::gojson::to_vec(config).map_err(|e| unreadable(IPAM_CONFIG, e))
}

fn unreadable(key: &str, reason: impl ToString) -> ConfigureError {
    ConfigureError::Unreadable {
        key: key.to_owned(),
        reason: reason.to_string(),
    }
}

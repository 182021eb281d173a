//! Settings of allocators: `/calico/ipam/v2/config`, which they obey, and IPAMConfiguration default, which people see. Written
//! together, in one transaction.

use tonic::Status;
use twill_datastore::client::birth;
use twill_datastore::{Compare, KeyValue, Op, Store, Txn};
use twill_model::ipam::IpamConfig;
use twill_model::key::{IPAM_CONFIG, ResourceKey};
use twill_model::resources::IpamConfiguration;
use twill_model::resources::ipamconfiguration::Switch;
use twill_model::{AnyResource, Kind, change, gojson, initial};
use twill_proto::api::{ConfigurationReply, ConfigureRequest};

/// How often the pair is written against others who write it.
const ATTEMPTS_MAX: u32 = 10;
/// Calico's longest cool-down.
const COOLDOWN_SECS_MAX: i64 = 1200;

/// Both objects as stored.
struct Pair {
    config: IpamConfig,
    config_revision: u64,
    shown: Option<(AnyResource, u64)>,
}

pub(super) async fn get<S: Store>(store: &S) -> Result<ConfigurationReply, Status> {
    let pair = read(store).await?;
    let warnings = difference(&pair).into_iter().collect();
    Ok(reply(&pair.config, warnings))
}

pub(super) async fn set<S: Store>(store: &S, asked: &ConfigureRequest) -> Result<ConfigurationReply, Status> {
    for _ in 0..ATTEMPTS_MAX {
        let pair = read(store).await?;
        let config = changed(&pair.config, asked)?;
        let shown = shown(&pair, &config)?;
        let path = shown_path();
        let bytes = gojson::to_vec(&config).map_err(|e| Status::internal(e.to_string()))?;
        let revision = pair.shown.as_ref().map_or(0, |(_, revision)| *revision);
        let txn = Txn::when(vec![
            Compare::mod_revision(IPAM_CONFIG, pair.config_revision),
            Compare::mod_revision(path.clone(), revision),
        ])
        .then(vec![Op::put(IPAM_CONFIG, bytes), Op::put(path, shown.encode())]);
        let done = store.txn(txn).await.map_err(super::unavailable)?;
        if done.succeeded {
            tracing::info!("settings of allocators changed for the command line");
            return Ok(reply(&config, Vec::new()));
        }
    }
    Err(Status::aborted("others keep changing the settings; try again"))
}

fn shown_path() -> String {
    ResourceKey::cluster(Kind::IpamConfiguration, initial::DEFAULT).path()
}

async fn read<S: Store>(store: &S) -> Result<Pair, Status> {
    let ops = vec![Op::get(IPAM_CONFIG), Op::get(shown_path())];
    let reply = store
        .txn(Txn::default().then(ops))
        .await
        .map_err(super::unavailable)?;
    let kv = |at: usize| -> Option<&KeyValue> { reply.responses.get(at)?.kvs().first() };
    let config = match kv(0) {
        Some(kv) => IpamConfig::decode(&kv.value)
            .map_err(|e| Status::data_loss(format!("{IPAM_CONFIG} cannot be read: {e}")))?,
        None => IpamConfig::default(),
    };
    let shown = kv(1).and_then(|kv| {
        let object = AnyResource::decode(Kind::IpamConfiguration, &kv.value).ok()?;
        Some((object, kv.mod_revision))
    });
    Ok(Pair {
        config,
        config_revision: kv(0).map_or(0, |kv| kv.mod_revision),
        shown,
    })
}

/// Calico's rules.
fn changed(old: &IpamConfig, asked: &ConfigureRequest) -> Result<IpamConfig, Status> {
    let mut config = old.clone();
    if let Some(on) = asked.strict_affinity {
        config.strict_affinity = on;
    }
    if let Some(most) = asked.max_blocks_per_host {
        config.max_blocks_per_host = most;
    }
    if let Some(word) = &asked.kubevirt_vm_address_persistence {
        config.kube_virt_vm_address_persistence = Some(word.clone());
    }
    if let Some(seconds) = asked.ip_cooldown_seconds {
        if !(0..=COOLDOWN_SECS_MAX).contains(&seconds) {
            return Err(Status::invalid_argument(format!(
                "error: IPCooldownSeconds is 0 to {COOLDOWN_SECS_MAX}"
            )));
        }
        config.ip_cooldown_seconds = seconds;
    }
    if !config.strict_affinity && !config.auto_allocate_blocks {
        return Err(Status::invalid_argument(
            "error: Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time",
        ));
    }
    if config.max_blocks_per_host > 0 && !config.strict_affinity {
        return Err(Status::invalid_argument(
            "error: MaxBlocksPerHost requires StrictAffinity to be enabled",
        ));
    }
    Ok(config)
}

/// The object that people see, saying what allocators now obey.
fn shown(pair: &Pair, config: &IpamConfig) -> Result<AnyResource, Status> {
    let mut next = match &pair.shown {
        Some((object, _)) => object.clone(),
        None => initial::ipam_configuration(),
    };
    if let AnyResource::IpamConfiguration(object) = &mut next {
        say(std::sync::Arc::make_mut(object), config);
    }
    let stored = pair.shown.as_ref().map(|(object, _)| object);
    change::apply(&next, stored, &birth()).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn say(object: &mut IpamConfiguration, config: &IpamConfig) {
    let spec = &mut object.spec;
    spec.strict_affinity = config.strict_affinity;
    spec.auto_allocate_blocks = config.auto_allocate_blocks;
    // A negative number means the default to allocators, and is not allowed here.
    spec.max_blocks_per_host = i32::try_from(config.max_blocks_per_host.max(0)).unwrap_or(i32::MAX);
    spec.kubevirt_vm_address_persistence = match config.kube_virt_vm_address_persistence.as_deref() {
        Some("Enabled") => Some(Switch::Enabled),
        Some("Disabled") => Some(Switch::Disabled),
        _ => None,
    };
    spec.ip_cooldown_seconds = i32::try_from(config.ip_cooldown_seconds).unwrap_or(0);
}

/// A sentence if people see something else than what holds.
fn difference(pair: &Pair) -> Option<String> {
    let AnyResource::IpamConfiguration(object) = &pair.shown.as_ref()?.0 else {
        return None;
    };
    let mut expected = IpamConfiguration::clone(object);
    say(&mut expected, &pair.config);
    (expected.spec != object.spec).then(|| {
        format!(
            "IPAMConfiguration default differs from {IPAM_CONFIG}, and allocators obey the latter; twillctl ipam configure writes both"
        )
    })
}

/// What to say to somebody who writes IPAMConfiguration.
pub(in crate::api) async fn warning<S: Store>(store: &S) -> Option<String> {
    difference(&read(store).await.ok()?)
}

fn reply(config: &IpamConfig, warnings: Vec<String>) -> ConfigurationReply {
    ConfigurationReply {
        strict_affinity: config.strict_affinity,
        auto_allocate_blocks: config.auto_allocate_blocks,
        max_blocks_per_host: config.max_blocks_per_host,
        kubevirt_vm_address_persistence: config
            .kube_virt_vm_address_persistence
            .clone()
            .unwrap_or_default(),
        ip_cooldown_seconds: config.ip_cooldown_seconds,
        warnings,
    }
}

//! `twillctl datastore lock` and `unlock`, and calicoctl's `datastore migrate lock` and `unlock`.

use std::process::ExitCode;

use anyhow::Result;
use twill_proto::api::datastore_client::DatastoreClient;
use twill_proto::api::{LockRequest, UnlockRequest};

use crate::args::{Datastore, Migrate};
use crate::client;
use crate::config;
use crate::output::out;

pub(crate) async fn run(daemon: &config::Target, asked: &Datastore) -> Result<ExitCode> {
    let mut client = DatastoreClient::new(client::connect(daemon).await?);
    let lock = match asked {
        Datastore::Lock | Datastore::Migrate(Migrate::Lock) => true,
        Datastore::Unlock | Datastore::Migrate(Migrate::Unlock) => false,
    };
    let (done, word) = if lock {
        (client.lock(LockRequest {}).await, "locked")
    } else {
        (client.unlock(UnlockRequest {}).await, "unlocked")
    };
    done.map_err(|status| {
        let what = word.trim_end_matches("ed");
        anyhow::anyhow!(
            "error updating ClusterInformation for {what}ing: {}",
            status.message()
        )
    })?;
    out!(ln "Datastore {word}.");
    Ok(ExitCode::SUCCESS)
}

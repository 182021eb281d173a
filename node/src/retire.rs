//! Endpoints that leave the kernel before the datastore hears of it.
//!
//! An address may be given again as soon as the datastore says that it is free. So a DEL first has felix take the endpoint out (its
//! policy, its addresses in sets, its routes), then has its link removed and its connections forgotten, and only then releases
//! address and endpoint in one transaction. Until the datastore shows that, felix is told that the endpoint is gone already.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};
use twill_model::{AnyResource, Key, ResourceKey, Update, Value};

use crate::fabric::Fabric;

/// Orders under way: as many as there are requests of the plugin.
const ORDERS_MAX: usize = 256;

/// What a request asks of the hub.
#[derive(Debug)]
enum What {
    /// Felix is to think that this container's endpoint is gone.
    Retire(ResourceKey, String),
    /// Felix is to hear of the endpoint again: its container is to be attached once more.
    Restore(ResourceKey),
}

/// An order, and whom to tell that it is in the state handed to the kernel.
#[derive(Debug)]
pub(crate) struct Order {
    what: What,
    done: oneshot::Sender<()>,
}

/// The way to give orders. When the hub is gone they are void, and so is the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Orders(mpsc::Sender<Order>);

/// Where orders arrive.
pub(crate) fn channel() -> (Orders, mpsc::Receiver<Order>) {
    let (sender, receiver) = mpsc::channel(ORDERS_MAX);
    (Orders(sender), receiver)
}

impl Orders {
    /// Has felix take the endpoint out of the state that it hands to the kernel.
    pub(crate) async fn retire(&self, key: ResourceKey, container: &str) {
        self.give(What::Retire(key, container.to_owned())).await;
    }

    /// Takes [`Orders::retire`] back.
    pub(crate) async fn restore(&self, key: ResourceKey) {
        self.give(What::Restore(key)).await;
    }

    async fn give(&self, what: What) {
        let (done, carried_out) = oneshot::channel();
        if self.0.send(Order { what, done }).await.is_ok() {
            // An end without an answer is the hub's end.
            let _ = carried_out.await;
        }
    }
}

/// The hub's memory of whom felix does not see.
#[derive(Debug, Default)]
pub(crate) struct Retired(BTreeMap<ResourceKey, String>);

impl Retired {
    /// Carries an order out: what felix is to be told, and whom to tell then.
    pub(crate) fn take(&mut self, order: Order, fabric: &Fabric) -> (Option<Update>, oneshot::Sender<()>) {
        let told = match order.what {
            What::Retire(key, container) => {
                let gone = update(&key, None, 0);
                self.0.insert(key, container);
                Some(gone)
            }
            What::Restore(key) => self.0.remove(&key).and_then(|_| {
                let namespace = key.namespace.clone().unwrap_or_default();
                let (endpoint, revision) = fabric.own_endpoints.get(&(namespace, key.name.clone()))?;
                let value = AnyResource::WorkloadEndpoint(endpoint.clone());
                Some(update(&key, Some(Value::Resource(value)), *revision))
            }),
        };
        (told, order.done)
    }

    /// Whether the endpoint is one of them.
    pub(crate) fn holds(&self, key: &ResourceKey) -> bool {
        self.0.contains_key(key)
    }

    /// What felix is told of a change in the datastore: of a retired endpoint that it is not there, until it is gone indeed or
    /// another container's.
    pub(crate) fn shown(&mut self, mut change: Update) -> Update {
        let Key::Resource(key) = &change.key else {
            return change;
        };
        let Some(container) = self.0.get(key) else {
            return change;
        };
        let is_same = match change.value.as_ref().and_then(Value::resource) {
            Some(AnyResource::WorkloadEndpoint(endpoint)) => endpoint.spec.container_id == *container,
            _ => false,
        };
        if is_same {
            change.value = None;
        } else {
            self.0.remove(key);
        }
        change
    }
}

fn update(key: &ResourceKey, value: Option<Value>, revision: i64) -> Update {
    Update {
        key: Key::Resource(key.clone()),
        value,
        revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use twill_model::Kind;
    use twill_model::resources::WorkloadEndpoint;

    fn key() -> ResourceKey {
        ResourceKey::namespaced(Kind::WorkloadEndpoint, "default", "e")
    }

    fn endpoint(container: &str, revision: i64) -> Update {
        let text = serde_json::json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "e", "namespace": "default"}, "spec": {"containerID": container, "node": "n1"}});
        let endpoint = WorkloadEndpoint::decode(text.to_string().as_bytes()).unwrap();
        let value = Value::Resource(AnyResource::WorkloadEndpoint(Arc::new(endpoint)));
        update(&key(), Some(value), revision)
    }

    fn order(what: What) -> Order {
        let (done, _) = oneshot::channel();
        Order { what, done }
    }

    #[test]
    fn a_retired_endpoint_stays_hidden_until_it_is_gone_or_anothers() {
        let mut retired = Retired::default();
        let (told, _) = retired.take(order(What::Retire(key(), "c1".into())), &Fabric::default());
        assert!(told.unwrap().value.is_none());
        let hidden = retired.shown(endpoint("c1", 7));
        assert_eq!((hidden.value.is_none(), hidden.revision), (true, 7));
        assert!(retired.shown(endpoint("c2", 8)).value.is_some());
        assert!(
            retired.shown(endpoint("c1", 9)).value.is_some(),
            "another container ended it"
        );

        retired.take(order(What::Retire(key(), "c1".into())), &Fabric::default());
        retired.shown(update(&key(), None, 10));
        assert!(
            retired.shown(endpoint("c1", 11)).value.is_some(),
            "its deletion ended it"
        );
    }

    #[test]
    fn a_container_that_is_attached_again_is_shown_again() {
        let (mut retired, mut fabric) = (Retired::default(), Fabric::default());
        fabric.apply("n1", &endpoint("c1", 7));
        retired.take(order(What::Retire(key(), "c1".into())), &fabric);
        let (told, _) = retired.take(order(What::Restore(key())), &fabric);
        assert!(told.unwrap().value.is_some());
        let (told, _) = retired.take(order(What::Restore(key())), &fabric);
        assert!(told.is_none(), "nothing was hidden any more");
    }
}

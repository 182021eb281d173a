//! Who is ready: each component says so itself; readiness of the daemon is all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The components whose word counts. A component that has not spoken is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Component {
    /// The first full pass over the datastore is done, and we are connected.
    Datastore,
    /// The kernel holds what was calculated last.
    Dataplane,
    /// The BGP speaker is configured and listens.
    Bgp,
    /// The plugin's socket is served.
    Cni,
}

impl Component {
    pub(crate) const ALL: [Self; 4] = [Self::Datastore, Self::Dataplane, Self::Bgp, Self::Cni];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Datastore => "datastore",
            Self::Dataplane => "dataplane",
            Self::Bgp => "bgp",
            Self::Cni => "cni",
        }
    }
}

/// One component's last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) ready: bool,
    pub(crate) detail: String,
}

impl Default for State {
    fn default() -> Self {
        Self {
            ready: false,
            detail: "starting".to_owned(),
        }
    }
}

/// The shared board. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    states: Arc<Mutex<BTreeMap<Component, State>>>,
}

impl Health {
    /// Says that a component is ready.
    pub(crate) fn ready(&self, component: Component, detail: impl Into<String>) {
        self.set(
            component,
            State {
                ready: true,
                detail: detail.into(),
            },
        );
    }

    /// Says that a component is not ready, and why.
    pub(crate) fn not_ready(&self, component: Component, why: impl Into<String>) {
        self.set(
            component,
            State {
                ready: false,
                detail: why.into(),
            },
        );
    }

    /// Says more of a component that is ready.
    pub(crate) fn detail(&self, component: Component, detail: impl Into<String>) {
        if let Some(state) = self.lock().get_mut(&component)
            && state.ready
        {
            state.detail = detail.into();
        }
    }

    fn set(&self, component: Component, state: State) {
        let old = self.lock().insert(component, state.clone());
        let was_ready = old.as_ref().is_some_and(|old| old.ready);
        if old.is_some_and(|old| old.ready == state.ready) {
            return;
        }
        if state.ready {
            tracing::info!(component = component.as_str(), detail = state.detail, "ready");
        } else if was_ready {
            tracing::warn!(
                component = component.as_str(),
                detail = state.detail,
                "no longer ready"
            );
        } else {
            tracing::info!(
                component = component.as_str(),
                detail = state.detail,
                "not ready yet"
            );
        }
    }

    /// Every component's last word, in their fixed order.
    pub(crate) fn states(&self) -> Vec<(Component, State)> {
        let states = self.lock();
        Component::ALL
            .iter()
            .map(|c| (*c, states.get(c).cloned().unwrap_or_default()))
            .collect()
    }

    /// All are ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.states().iter().all(|(_, s)| s.ready)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Component, State>> {
        // Nothing in here can be half done.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_must_have_spoken_before_the_daemon_is_ready() {
        let health = Health::default();
        for component in Component::ALL {
            assert!(!health.is_ready());
            health.ready(component, "");
        }
        assert!(health.is_ready());
        health.not_ready(Component::Datastore, "etcd is away");
        assert!(!health.is_ready());
        assert_eq!(health.states()[0].1.detail, "etcd is away");
    }
}

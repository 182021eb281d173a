//! Metrics: counted where things happen, read where they are kept, printed as Prometheus text.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use twill_datastore::syncer::{Health, State};

/// Buckets of the time that a request of the plugin takes, in seconds.
const CNI_SECONDS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CniLabels {
    command: &'static str,
    /// 0 is success.
    code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabel {
    command: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ComponentLabel {
    component: &'static str,
}

/// All metrics. Cheap to clone; one registry behind.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    cni_requests: Family<CniLabels, Counter>,
    cni_seconds: Family<CommandLabel, Histogram, fn() -> Histogram>,
    ready: Family<ComponentLabel, Gauge>,
    datastore_updates: Counter,
    datastore_unreadable: Counter,
    following: Following,
}

/// How the copy of the datastore follows it.
#[derive(Clone, Debug, Default)]
struct Following {
    state: Family<StateLabel, Gauge>,
    stale_since: Gauge,
    revision: Gauge,
    happened: Family<EventLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabel {
    event: &'static str,
}

impl Following {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "datastore_state",
            "1 for the state of the copy of the datastore: connected, stale or resyncing",
            self.state.clone(),
        );
        registry.register(
            "datastore_stale_since_seconds",
            "When contact to the datastore was lost, in seconds since 1970; 0 with contact",
            self.stale_since.clone(),
        );
        registry.register(
            "datastore_revision",
            "Newest revision of the datastore that was heard of",
            self.revision.clone(),
        );
        registry.register(
            "datastore_events",
            "How often: reconnect, listing, comparison, mismatch (a change that the watch had not told), restore",
            self.happened.clone(),
        );
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(CNI_SECONDS);
        let metrics = Self {
            registry: Arc::default(),
            cni_requests: Family::default(),
            cni_seconds: Family::new_with_constructor(seconds),
            ready: Family::default(),
            datastore_updates: Counter::default(),
            datastore_unreadable: Counter::default(),
            following: Following::default(),
        };
        let mut registry = Registry::with_prefix("twill");
        registry.register(
            "cni_requests",
            "Requests of the CNI plugin by command and code",
            metrics.cni_requests.clone(),
        );
        registry.register(
            "cni_request_seconds",
            "Time to answer the CNI plugin",
            metrics.cni_seconds.clone(),
        );
        registry.register(
            "ready",
            "1 for each component that is ready",
            metrics.ready.clone(),
        );
        registry.register(
            "datastore_updates",
            "Keys that changed",
            metrics.datastore_updates.clone(),
        );
        registry.register(
            "datastore_unreadable",
            "Values that could not be read",
            metrics.datastore_unreadable.clone(),
        );
        metrics.following.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }
}

impl Metrics {
    /// How the copy of the datastore follows it.
    pub(crate) fn following(&self, state: &State) {
        let mut stale_since = 0;
        let now = match state.health {
            Health::Connected => "connected",
            Health::Resyncing => "resyncing",
            Health::StaleSince(since) => {
                let lost = SystemTime::now().checked_sub(since.elapsed());
                let lost = lost.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
                stale_since = lost.map_or(0, |t| i64::try_from(t.as_secs()).unwrap_or(i64::MAX));
                "stale"
            }
        };
        for state in ["connected", "resyncing", "stale"] {
            let label = StateLabel { state };
            self.following
                .state
                .get_or_create(&label)
                .set(i64::from(state == now));
        }
        self.following.stale_since.set(stale_since);
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.following.revision.set(number(state.revision));
        let counts = state.counts;
        for (event, count) in [
            ("reconnect", counts.reconnects),
            ("listing", counts.listings),
            ("comparison", counts.comparisons),
            ("mismatch", counts.mismatches),
            ("restore", counts.restores),
        ] {
            self.following
                .happened
                .get_or_create(&EventLabel { event })
                .set(number(count));
        }
    }

    pub(crate) fn cni_request(&self, command: &'static str, code: u32, took: Duration) {
        self.cni_requests
            .get_or_create(&CniLabels { command, code })
            .inc();
        self.cni_seconds
            .get_or_create(&CommandLabel { command })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn datastore(&self, updates: usize, unreadable: usize) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        self.datastore_updates.inc_by(count(updates));
        self.datastore_unreadable.inc_by(count(unreadable));
    }

    /// The text of a scrape, with what is only known now: who is ready, and the text of the BGP peers.
    pub(crate) fn scrape(&self, ready: &[(&'static str, bool)], peers: &str) -> String {
        for (component, ready) in ready {
            self.ready
                .get_or_create(&ComponentLabel { component })
                .set((*ready).into());
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if encode_registry(&mut text, &registry).is_err() {
            // Writing to a string does not fail.
            text.clear();
        }
        text.push_str(peers);
        let _ = writeln!(text, "# EOF");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_what_was_counted_and_forgets_departed_peers() {
        let metrics = Metrics::default();
        metrics.cni_request("ADD", 11, Duration::from_millis(3));
        let peers = crate::bgp::metrics::text(
            &[crate::bgp::metrics::sample("10.0.0.2")],
            &twill_bgp::view::Totals::default(),
        );
        let text = metrics.scrape(&[("cni", true)], &peers);
        assert!(
            text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1,
            "{text}"
        );
        for line in [
            "twill_cni_requests_total{command=\"ADD\",code=\"11\"} 1",
            "twill_ready{component=\"cni\"} 1",
            "twill_bgp_peer_established{peer=\"10.0.0.2\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!metrics.scrape(&[], "").contains("10.0.0.2"));
    }
}

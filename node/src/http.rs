//! Health and metrics over HTTP: `/liveness` and `/readiness` on 127.0.0.1:9099, `/metrics` on :9091; addresses and ports
//! by FelixConfiguration, live.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bgp::Speaker;
use crate::health::Health;
use crate::metrics::Metrics;

/// Calico's ports.
const HEALTH_PORT: u16 = 9099;
const METRICS_PORT: u16 = 9091;
/// How soon to try again to listen where somebody else does.
const LISTEN_RETRY: Duration = Duration::from_secs(10);
/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";
/// How long a scrape waits for the speaker.
const SCRAPE_DEADLINE: Duration = Duration::from_secs(2);

/// Where to listen; `None` is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) health: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            health: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), HEALTH_PORT)),
            metrics: Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), METRICS_PORT)),
        }
    }
}

/// What the settings of FelixConfiguration mean; an address that is none falls back to the default.
pub(crate) fn endpoints(setting: &FelixHttp) -> Endpoints {
    let default = Endpoints::default();
    let address = |given: Option<&String>, default: IpAddr| {
        given
            .map(String::as_str)
            .filter(|h| !h.is_empty())
            .map_or(Some(default), |host| match host {
                "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
                host => host.parse().ok(),
            })
    };
    let place =
        |enabled: Option<bool>, host: Option<&String>, port: Option<u16>, default: Option<SocketAddr>| {
            let default = default.filter(|_| enabled.unwrap_or(true))?;
            let ip = address(host, default.ip()).unwrap_or(default.ip());
            Some(SocketAddr::new(ip, port.unwrap_or(default.port())))
        };
    Endpoints {
        health: place(
            setting.health_enabled,
            setting.health_host.as_ref(),
            setting.health_port,
            default.health,
        ),
        metrics: place(
            setting.metrics_enabled,
            setting.metrics_host.as_ref(),
            setting.metrics_port,
            default.metrics,
        ),
    }
}

/// The settings that concern HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FelixHttp {
    pub(crate) health_enabled: Option<bool>,
    pub(crate) health_host: Option<String>,
    pub(crate) health_port: Option<u16>,
    pub(crate) metrics_enabled: Option<bool>,
    pub(crate) metrics_host: Option<String>,
    pub(crate) metrics_port: Option<u16>,
}

#[derive(Clone, Debug)]
struct Served {
    health: Health,
    metrics: Metrics,
    speaker: Speaker,
}

/// Serves both, moving when the settings do, until cancelled.
///
/// # Errors
/// None: where somebody else listens, it tries again.
pub(crate) async fn serve(
    health: Health,
    metrics: Metrics,
    speaker: Speaker,
    mut places: watch::Receiver<Endpoints>,
    stop: CancellationToken,
) -> Result<()> {
    let served = Served {
        health,
        metrics,
        speaker,
    };
    let health_routes = Router::new()
        .route("/liveness", get(async || StatusCode::OK))
        .route("/readiness", get(readiness))
        .with_state(served.clone());
    let metrics_routes = Router::new().route("/metrics", get(scrape)).with_state(served);
    loop {
        let now = *places.borrow_and_update();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = places.changed() => {
                if changed.is_err() {
                    // The settings stay as they are from now on.
                    stop.cancelled().await;
                    return Ok(());
                }
            }
            () = place(now.health, health_routes.clone()) => {}
            () = place(now.metrics, metrics_routes.clone()) => {}
        }
    }
}

/// Serves one address for ever.
async fn place(address: Option<SocketAddr>, routes: Router) {
    let Some(address) = address else {
        return std::future::pending().await;
    };
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => match axum::serve(listener, routes.clone()).await {
                Ok(()) => tracing::warn!(%address, "HTTP ended"),
                Err(error) => tracing::warn!(%address, %error, "serving HTTP"),
            },
            Err(error) => tracing::warn!(%address, %error, "cannot listen for HTTP, trying again"),
        }
        tokio::time::sleep(LISTEN_RETRY).await;
    }
}

async fn readiness(State(served): State<Served>) -> impl IntoResponse {
    let states = served.health.states();
    let line = |(component, state): &(crate::health::Component, crate::health::State)| {
        let word = if state.ready { "ready" } else { "not ready" };
        format!("{}: {word} {}\n", component.as_str(), state.detail)
    };
    let code = if served.health.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, states.iter().map(line).collect::<String>())
}

/// The metrics of the speaker; empty while it cannot answer.
async fn bgp_text(speaker: &Speaker) -> String {
    let asked = async {
        let handle = speaker.handle()?;
        Some((handle.peers().await.ok()?, handle.totals().await.ok()?))
    };
    match tokio::time::timeout(SCRAPE_DEADLINE, asked).await {
        Ok(Some((peers, totals))) => crate::bgp::metrics::text(&peers, &totals),
        _ => String::new(),
    }
}

/// Serves `/metrics` of a speaker without a fabric, moving when the address does, until cancelled.
///
/// # Errors
/// None: where somebody else listens, it tries again.
pub(crate) async fn serve_bgp(
    speaker: Speaker,
    mut address: watch::Receiver<Option<SocketAddr>>,
    stop: CancellationToken,
) -> Result<()> {
    let scrape = async |State(speaker): State<Speaker>| {
        let text = bgp_text(&speaker).await + "# EOF\n";
        ([(header::CONTENT_TYPE, METRICS_TYPE)], text)
    };
    let routes = Router::new().route("/metrics", get(scrape)).with_state(speaker);
    loop {
        let now = *address.borrow_and_update();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = address.changed() => {
                if changed.is_err() {
                    stop.cancelled().await;
                    return Ok(());
                }
            }
            () = place(now, routes.clone()) => {}
        }
    }
}

async fn scrape(State(served): State<Served>) -> impl IntoResponse {
    let peers = bgp_text(&served.speaker).await;
    let ready: Vec<_> = served
        .health
        .states()
        .iter()
        .map(|(c, s)| (c.as_str(), s.ready))
        .collect();
    (
        [(header::CONTENT_TYPE, METRICS_TYPE)],
        served.metrics.scrape(&ready, &peers),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_move_and_switch_off() {
        assert_eq!(endpoints(&FelixHttp::default()), Endpoints::default());
        let moved = FelixHttp {
            health_host: Some("0.0.0.0".into()),
            health_port: Some(19099),
            metrics_enabled: Some(false),
            ..FelixHttp::default()
        };
        let expected = Endpoints {
            health: Some("0.0.0.0:19099".parse().unwrap()),
            metrics: None,
        };
        assert_eq!(endpoints(&moved), expected);
        let nonsense = FelixHttp {
            health_host: Some("nowhere at all".into()),
            ..FelixHttp::default()
        };
        assert_eq!(endpoints(&nonsense), Endpoints::default());
    }
}

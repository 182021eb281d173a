//! What changes, as messages.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;
use twill_bgp::view::Notice as Happened;
use twill_proto::api::notice::What;
use twill_proto::api::{Notice, RouteNotice, SessionNotice};

use super::show;
use crate::bgp::Speaker;

/// Which changes a watcher wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) peer: Option<IpAddr>,
    pub(super) sessions: bool,
    pub(super) routes: bool,
}

/// Changes until the speaker ends or the watcher goes.
pub(super) fn messages(
    notices: Receiver<Happened>,
    wanted: Wanted,
    speaker: Speaker,
) -> impl Stream<Item = Result<Notice, Status>> {
    stream::unfold((notices, speaker), move |(mut notices, speaker)| async move {
        loop {
            let what = match notices.recv().await {
                Ok(notice) => message(&notice, wanted, &speaker),
                Err(RecvError::Lagged(count)) => Some(What::Missed(count)),
                Err(RecvError::Closed) => return None,
            };
            if let Some(what) = what {
                return Some((Ok(now(what)), (notices, speaker)));
            }
        }
    })
}

fn now(what: What) -> Notice {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Notice {
        unix_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        what: Some(what),
    }
}

fn message(notice: &Happened, wanted: Wanted, speaker: &Speaker) -> Option<What> {
    let of = |peer: &IpAddr| wanted.peer.is_none_or(|p| p == *peer);
    let derived = speaker.derived();
    let name = |peer: IpAddr| {
        let peers = derived.iter().flat_map(|d| &d.config.peers);
        show::name(peers, peer)
    };
    match notice {
        Happened::Session { peer, state, why } if wanted.sessions && of(peer) => {
            let source = derived.as_ref().and_then(|d| d.sources.get(peer));
            Some(What::Session(SessionNotice {
                peer: name(*peer),
                source: source.map_or_else(String::new, |s| s.name.clone()),
                state: state.to_string(),
                why: why.clone().unwrap_or_default(),
            }))
        }
        // A route that is gone may have been anybody's.
        Happened::Best { prefix, best } if wanted.routes && best.as_ref().is_none_or(|b| of(&b.source)) => {
            let mut route = RouteNotice {
                prefix: prefix.to_string(),
                withdrawn: best.is_none(),
                ..RouteNotice::default()
            };
            if let Some(best) = best {
                route.next_hops = best.next_hops.iter().map(|h| show::next_hop(*h)).collect();
                route.peer = name(best.source);
                route.stale = best.stale;
            }
            Some(What::Route(route))
        }
        Happened::Session { .. } | Happened::Best { .. } => None,
    }
}

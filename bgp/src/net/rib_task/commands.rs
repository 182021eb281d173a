//! What the handle asks of the RIB task.

use super::{Listener, RibTask};
use crate::config::{Config, PeerConfig};
use crate::net::handle::{Command, ConfigureError, Reset};
use crate::net::peer_task::PeerCommand;
use crate::net::{dial, listener};
use crate::view::Best;
use crate::wire::Notification;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Best paths by prefix, `None` for none.
type BestPaths = BTreeMap<IpNet, Option<Best>>;

impl RibTask {
    /// Listens on these addresses and no others, as the peers' security asks.
    pub(in crate::net) fn listen(&mut self, addresses: &[SocketAddr]) -> Result<(), ConfigureError> {
        self.listeners.retain(|address, listener| {
            let wanted = addresses.contains(address);
            if !wanted {
                listener.task.abort();
            }
            wanted
        });
        let peers: Vec<PeerConfig> = self
            .speaker
            .peers()
            .filter_map(|p| self.speaker.peer_config(p))
            .cloned()
            .collect();
        let ranges = self.speaker.ranges().to_vec();
        for address in addresses {
            let failed = |cause| ConfigureError::Listen {
                address: *address,
                cause,
            };
            if !self.listeners.contains_key(address) {
                let socket = Arc::new(dial::listen(*address).map_err(failed)?);
                let task = self
                    .tasks
                    .spawn(listener::run(Arc::clone(&socket), self.accepted_tx.clone()));
                self.listeners.insert(
                    *address,
                    Listener {
                        socket,
                        task,
                        keyed: BTreeMap::new(),
                    },
                );
            }
            if let Some(listener) = self.listeners.get_mut(address) {
                dial::protect_listener(
                    &listener.socket,
                    address.is_ipv6(),
                    &peers,
                    &ranges,
                    &mut listener.keyed,
                )
                .map_err(failed)?;
            }
        }
        Ok(())
    }

    pub(super) fn command(&mut self, command: Command) {
        // Whoever asked may have gone; then nobody misses the answer.
        match command {
            Command::Configure(config, answer) => {
                let _ = answer.send(self.configure(*config));
            }
            Command::Originate(routes) => self.speaker.originate(routes),
            Command::OwnRoutesKnown => self.speaker.own_routes_known(),
            Command::NextHops(said) => self.speaker.next_hops_reached(&said),
            Command::Peers(answer) => {
                let _ = answer.send(self.show_peers());
            }
            Command::Routes(query, answer) => {
                let _ = answer.send(self.speaker.show_routes(&query));
            }
            Command::Events(address, answer) => {
                let handle = self.speaker.peer_at(address).and_then(|p| self.peers.get(&p));
                let _ = answer.send(
                    handle
                        .map(|h| h.report.events(Instant::now()))
                        .unwrap_or_default(),
                );
            }
            Command::Reset(address, how, answer) => {
                let _ = answer.send(self.reset(address, how));
            }
            Command::Subscribe => {
                self.subscribed = true;
                self.untaken.clear();
                self.speaker.subscribe();
            }
            Command::Watch(answer) => {
                if !self.watchers.any() && !self.subscribed {
                    self.speaker.subscribe_from_now();
                }
                let _ = answer.send(self.watchers.join());
            }
            Command::Totals(answer) => {
                let _ = answer.send(self.totals());
            }
            Command::BestChanges(answer) => self.best_wanted = Some(answer),
            Command::BestChangesNow(answer) => {
                self.best_wanted = None;
                let changes = self.newest_best();
                self.hand_over(answer, changes);
            }
            // Both end the loop before they come here.
            Command::Stop | Command::Shutdown(_) => {}
        }
    }

    fn configure(&mut self, config: Config) -> Result<(), ConfigureError> {
        let listen = config.listen.clone();
        let changes = self.speaker.configure(Instant::now(), config)?;
        self.peers_changed(changes);
        self.watch();
        self.listen(&listen)
    }

    fn reset(&mut self, address: IpAddr, how: Reset) -> bool {
        let Some(peer) = self.speaker.peer_at(address) else {
            return false;
        };
        match how {
            Reset::Hard { text } => self.tell(peer, PeerCommand::Reset(Notification::reset(&text))),
            Reset::Soft => {
                self.speaker.soft_reset(peer);
            }
        }
        true
    }

    /// Without anybody who programs best paths, watchers are shown them, and nobody keeps them when the last has gone.
    fn show_best(&mut self) {
        if self.subscribed || !self.watchers.has_channel() {
            return;
        }
        if !self.watchers.any() {
            self.speaker.unsubscribe();
        } else if self.speaker.has_best_changes() {
            self.watchers.best(&self.speaker.best_changes());
        }
    }

    pub(super) fn answer_best(&mut self) {
        self.show_best();
        let nothing = self.untaken.is_empty() && !self.speaker.has_best_changes();
        if self.best_wanted.is_none() || nothing {
            return;
        }
        let changes = self.newest_best();
        if changes.is_empty() {
            return;
        }
        if let Some(answer) = self.best_wanted.take() {
            self.hand_over(answer, changes);
        }
    }

    /// Changes that nobody has taken yet, the newest state of each prefix.
    fn newest_best(&mut self) -> BestPaths {
        let changes = self.speaker.best_changes();
        self.watchers.best(&changes);
        let mut untaken = std::mem::take(&mut self.untaken);
        untaken.extend(changes);
        untaken
    }

    /// Whoever asked may have given up meanwhile; then the changes are for his next question.
    fn hand_over(&mut self, answer: oneshot::Sender<BestPaths>, changes: BestPaths) {
        if let Err(changes) = answer.send(changes) {
            self.untaken = changes;
        }
    }
}

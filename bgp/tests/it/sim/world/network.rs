//! The network: connections that delay, split, partition and reset.

use super::*;

impl World {
    pub(super) fn latency(&mut self) -> Duration {
        Duration::from_millis(1 + self.below(40) as u64)
    }

    /// Puts a packet on its way to one side.
    pub(super) fn push(&mut self, wire: usize, to: usize, packet: Packet) {
        self.wires[wire].queues[to].push_back(packet);
        let delay = self.latency();
        self.at(delay, What::Deliver(wire, to));
    }

    pub(super) fn is_cut(&self, wire: usize) -> bool {
        let [a, b] = self.wires[wire].routers;
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn find(&self, router: usize, peer: PeerId, conn: ConnId) -> Option<(usize, usize)> {
        let end = End {
            router,
            life: self.lives[router],
            peer,
            conn,
        };
        (0..self.wires.len()).rev().find_map(|w| {
            (0..2)
                .find(|s| self.wires[w].ends[*s] == Some(end))
                .map(|side| (w, side))
        })
    }

    /// Octets onto the wire, in pieces.
    pub(super) fn send(
        &mut self,
        router: usize,
        conn: ConnId,
        peer: PeerId,
        octets: Vec<u8>,
        batch: Option<u32>,
    ) {
        let Some((wire, side)) = self.find(router, peer, conn) else {
            return;
        };
        let cut = self.below(octets.len() + 1);
        let (head, tail) = octets.split_at(cut);
        if !head.is_empty() {
            self.push(wire, 1 - side, Packet::Octets(head.to_vec(), None));
        }
        self.push(wire, 1 - side, Packet::Octets(tail.to_vec(), batch));
    }

    /// The dialled side answers, or does not.
    pub(super) fn arrive(&mut self, wire: usize) {
        if self.is_cut(wire) {
            return;
        }
        let [from, to] = self.wires[wire].routers;
        let Some(running) = self.routers[to].as_mut() else {
            self.push(wire, 0, Packet::Fin);
            return;
        };
        let Some((peer, session)) = running.peers.iter_mut().find(|(_, s)| s.address == address(from)) else {
            return;
        };
        let (peer, conn) = (*peer, session.fsm.conn_id());
        self.wires[wire].ends[1] = Some(End {
            router: to,
            life: self.lives[to],
            peer,
            conn,
        });
        if let Some(end) = self.wires[wire].ends[0] {
            self.input(
                end.router,
                end.peer,
                Input::Connected(end.conn, address(end.router)),
            );
            self.drain(end.router);
        } else {
            self.push(wire, 1, Packet::Fin);
        }
        self.input(to, peer, Input::Accepted(conn, address(to)));
        self.drain(to);
    }

    pub(super) fn deliver(&mut self, wire: usize, side: usize) {
        if self.is_cut(wire) {
            self.at(Duration::from_secs(1), What::Deliver(wire, side));
            return;
        }
        let Some(packet) = self.wires[wire].queues[side].pop_front() else {
            return;
        };
        let sender = self.wires[wire].ends[1 - side];
        let Some(end) = self.wires[wire].ends[side] else {
            // Nobody is there any more: a reset.
            if let (Some(_), Packet::Octets(..)) = (sender, packet) {
                self.push(wire, 1 - side, Packet::Fin);
            }
            return;
        };
        match packet {
            Packet::Fin => {
                self.wires[wire].ends[side] = None;
                self.input(end.router, end.peer, Input::Closed(end.conn, "closed".into()));
            }
            Packet::Octets(octets, batch) => {
                self.octets(end, &octets);
                if let Some(sender) = sender {
                    self.input(
                        sender.router,
                        sender.peer,
                        Input::Written {
                            conn: sender.conn,
                            drained: true,
                        },
                    );
                    if let (Some(running), Some(session)) = (self.routers[sender.router].as_mut(), batch) {
                        running.speaker.sent(sender.peer, session);
                    }
                    self.drain(sender.router);
                }
            }
        }
        self.drain(end.router);
    }

    pub(super) fn octets(&mut self, end: End, octets: &[u8]) {
        let Some(running) = self.routers[end.router].as_mut() else {
            return;
        };
        let Some(session) = running.peers.get_mut(&end.peer) else {
            return;
        };
        let mut inbox = session.inbox.remove(&end.conn).unwrap_or_default();
        inbox.extend_from_slice(octets);
        self.input(end.router, end.peer, Input::Bytes(end.conn, &mut inbox));
        let running = self.routers[end.router].as_mut();
        if let Some(session) = running.and_then(|r| r.peers.get_mut(&end.peer)) {
            session.inbox.insert(end.conn, inbox);
        }
    }
}

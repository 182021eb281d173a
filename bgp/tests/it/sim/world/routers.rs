//! What routers do: the FSMs, the speaker, the FIB, and how they are joined.

use super::*;

impl World {
    pub(super) fn input(&mut self, router: usize, peer: PeerId, input: Input<'_>) {
        let now = self.now;
        let Some(session) = self.routers[router].as_mut().and_then(|r| r.peers.get_mut(&peer)) else {
            return;
        };
        session.fsm.handle(now, input);
        while let Some(output) = self.routers[router]
            .as_mut()
            .and_then(|r| r.peers.get_mut(&peer)?.fsm.poll())
        {
            self.apply(router, peer, output);
        }
    }

    pub(super) fn apply(&mut self, router: usize, peer: PeerId, output: FsmOutput) {
        let now = self.now;
        let Some(running) = self.routers[router].as_mut() else {
            return;
        };
        let Some(session) = running.peers.get_mut(&peer) else {
            return;
        };
        match output {
            FsmOutput::Dial(conn) => {
                let other = router_of(session.address);
                let end = End {
                    router,
                    life: self.lives[router],
                    peer,
                    conn,
                };
                self.wires.push(Wire {
                    ends: [Some(end), None],
                    routers: [router, other],
                    queues: [VecDeque::new(), VecDeque::new()],
                });
                let delay = self.latency();
                self.at(delay, What::Arrive(self.wires.len() - 1));
            }
            FsmOutput::Send(conn, octets) => self.send(router, conn, peer, octets, None),
            FsmOutput::Close(conn) => {
                session.inbox.remove(&conn);
                if let Some((wire, side)) = self.find(router, peer, conn) {
                    self.wires[wire].ends[side] = None;
                    self.push(wire, 1 - side, Packet::Fin);
                }
            }
            FsmOutput::Up(conn, up) => {
                session.up = Some((conn, up.id));
                running.speaker.up(now, peer, *up);
            }
            FsmOutput::Down(down) => {
                session.up = None;
                running.speaker.down(now, peer, &down);
            }
            FsmOutput::Routes(routes) => {
                let id = session.up.map_or(0, |(_, id)| id);
                running.speaker.routes(now, peer, id, &routes);
            }
            FsmOutput::Refresh(refresh) => {
                let id = session.up.map_or(0, |(_, id)| id);
                running.speaker.refresh(now, peer, id, refresh);
            }
            FsmOutput::Event(_) => {}
        }
    }

    /// Lets the speaker do all it has to do.
    pub(super) fn drain(&mut self, router: usize) {
        loop {
            let now = self.now;
            let Some(running) = self.routers[router].as_mut() else {
                return;
            };
            let worked = running.speaker.work(now);
            let Some(output) = running.speaker.poll() else {
                if worked {
                    continue;
                }
                break;
            };
            self.carry_out(router, output);
        }
        self.update_fib(router);
    }

    pub(super) fn carry_out(&mut self, router: usize, output: Output) {
        match output {
            Output::Send { peer, session, batch } => {
                let up = self.routers[router].as_ref().and_then(|r| r.peers.get(&peer)?.up);
                if let Some((conn, _)) = up.filter(|(_, id)| *id == session) {
                    self.send(router, conn, peer, batch.parts.concat(), Some(session));
                    self.input(router, peer, Input::Queued(conn));
                }
            }
            Output::Warning(..) | Output::Alarm(_) => {}
            Output::Reset(peer, n) => self.input(router, peer, Input::Stop(Stop::Reset(n))),
            Output::Converged(_, own) => {
                for id in self.peers_of(router) {
                    let config = self.routers[router].as_ref().unwrap().peers[&id]
                        .fsm
                        .config()
                        .clone();
                    self.input(router, id, Input::Configure(Box::new(config), own));
                }
            }
        }
    }

    pub(super) fn update_fib(&mut self, router: usize) {
        let Some(running) = self.routers[router].as_mut() else {
            return;
        };
        while running.speaker.has_best_changes() {
            for (net, best) in running.speaker.best_changes() {
                match best {
                    Some(best) => {
                        running.fib.insert(net, best);
                    }
                    None => {
                        running.fib.remove(&net);
                        if let Some(losses) = &mut self.losses {
                            losses.push(format!("{net} at router {router}"));
                        }
                    }
                }
            }
        }
    }

    pub(super) fn deadline(&self, router: usize) -> Option<Instant> {
        let running = self.routers[router].as_ref()?;
        let fsms = running.peers.values().filter_map(|p| p.fsm.deadline());
        fsms.chain(running.speaker.deadline()).min()
    }

    pub(super) fn tick(&mut self, router: usize) {
        let now = self.now;
        let Some(running) = self.routers[router].as_mut() else {
            return;
        };
        running.speaker.tick(now);
        let ids: Vec<PeerId> = running.peers.keys().copied().collect();
        for id in ids {
            self.input(router, id, Input::Tick);
        }
        self.drain(router);
    }
}

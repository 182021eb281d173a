//! What must hold in the end, and what was lost on the way.

use super::*;

impl World {
    pub(in crate::sim) fn watch_losses(&mut self) {
        self.losses = Some(Vec::new());
    }

    pub(in crate::sim) fn losses(&self) -> Vec<String> {
        self.losses.clone().unwrap_or_default()
    }

    /// Makes the model believe in a prefix that nobody announces.
    pub(in crate::sim) fn spoil(&mut self) {
        self.nodes[0].prefixes.push("10.250.0.0/24".into());
    }

    /// Compares every router's best paths, and its FIB, with the model.
    pub(in crate::sim) fn check(&self) {
        let model = oracle::best_paths(&self.nodes, &self.links);
        for (router, expected) in model.iter().enumerate() {
            let running = self.routers[router].as_ref().expect("all routers run in the end");
            let query = RouteQuery {
                table: RouteTable::Best,
                peer: None,
                prefix: None,
                limit: 10_000,
            };
            let text = |asns: &[u32]| asns.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
            let got: BTreeMap<String, (Option<IpAddr>, String, bool)> = running
                .speaker
                .show_routes(&query)
                .into_iter()
                .map(|r| (r.prefix.to_string(), (r.peer, r.as_path, r.stale)))
                .collect();
            let want: BTreeMap<String, (Option<IpAddr>, String, bool)> = expected
                .iter()
                .map(|(prefix, p)| (prefix.clone(), (p.from.map(address), text(&p.as_path), false)))
                .collect();
            let at = self.now - self.start;
            assert_eq!(got, want, "seed {}, router {router}, after {at:?}", self.seed);
            let fib: BTreeMap<String, Option<IpAddr>> = running
                .fib
                .iter()
                .map(|(net, b)| (net.to_string(), Some(b.source)))
                .collect();
            let want: BTreeMap<String, Option<IpAddr>> = want
                .into_iter()
                .filter(|(_, (p, ..))| p.is_some())
                .map(|(net, (p, ..))| (net, p))
                .collect();
            assert_eq!(fib, want, "FIB, seed {}, router {router}", self.seed);
        }
    }
}

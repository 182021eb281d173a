//! The naive model: every router's best path to every prefix, by rounds until nothing changes. It shares no code with the
//! speaker.

use std::collections::BTreeMap;

/// What the model knows of a router.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) asn: u32,
    /// Ascending with the router's number, as its address.
    pub(super) router_id: u32,
    pub(super) prefixes: Vec<String>,
}

/// A path in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) as_path: Vec<u32>,
    /// The neighbour it came from; `None` for an own prefix.
    pub(super) from: Option<usize>,
    internal: bool,
}

pub(super) type Table = BTreeMap<String, Path>;

/// The best paths of all routers; `links` are sessions that are up.
pub(super) fn best_paths(nodes: &[Node], links: &[(usize, usize)]) -> Vec<Table> {
    let own = |n: &Node| -> Table {
        let path = Path {
            as_path: Vec::new(),
            from: None,
            internal: false,
        };
        n.prefixes.iter().map(|p| (p.clone(), path.clone())).collect()
    };
    let mut tables: Vec<Table> = nodes.iter().map(own).collect();
    for _round in 0..nodes.len() * 4 {
        let next: Vec<Table> = (0..nodes.len())
            .map(|me| decide(me, nodes, links, &tables))
            .collect();
        if next == tables {
            return tables;
        }
        tables = next;
    }
    panic!("the model does not converge");
}

fn decide(me: usize, nodes: &[Node], links: &[(usize, usize)], tables: &[Table]) -> Table {
    let mut mine: Table = tables[me]
        .iter()
        .filter(|(_, p)| p.from.is_none())
        .map(|(k, p)| (k.clone(), p.clone()))
        .collect();
    let neighbours = links.iter().filter_map(|(a, b)| {
        if *a == me {
            Some(*b)
        } else if *b == me {
            Some(*a)
        } else {
            None
        }
    });
    for from in neighbours {
        let internal = nodes[from].asn == nodes[me].asn;
        for (prefix, path) in &tables[from] {
            if path.from == Some(me) || (internal && path.internal) {
                continue;
            }
            let mut as_path = path.as_path.clone();
            if !internal {
                as_path.insert(0, nodes[from].asn);
            }
            if as_path.contains(&nodes[me].asn) {
                continue;
            }
            let candidate = Path {
                as_path,
                from: Some(from),
                internal,
            };
            let better = |old: &Path| rank(nodes, &candidate) < rank(nodes, old);
            if mine.get(prefix).is_none_or(better) {
                mine.insert(prefix.clone(), candidate);
            }
        }
    }
    mine
}

fn rank(nodes: &[Node], path: &Path) -> (bool, usize, bool, u32) {
    (
        path.from.is_some(),
        path.as_path.len(),
        path.internal,
        path.from.map_or(0, |f| nodes[f].router_id),
    )
}

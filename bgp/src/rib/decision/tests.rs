//! The decision against a naive one, in any order of paths.

use super::*;
use crate::prefix::{Prefix, V4};
use crate::rib::table::{FILTERED, Table};
use crate::wire::attr::{Attr, OPTIONAL, TRANSITIVE};
use crate::wire::{AttrSet, NextHopValue};
use proptest::prelude::*;
use std::sync::Arc;

/// What a test path differs in.
#[derive(Clone, Debug)]
struct Sketch {
    peer: u16,
    local_pref: Option<u32>,
    asns: Vec<u32>,
    origin: u8,
    med: Option<u32>,
    filtered: bool,
}

fn arb_sketch() -> impl Strategy<Value = Sketch> {
    let asns = proptest::collection::vec(1u32..4, 0..3);
    (
        1u16..6,
        proptest::option::of(99u32..102),
        asns,
        0u8..2,
        proptest::option::of(0u32..3),
        any::<u8>(),
    )
        .prop_map(|(peer, local_pref, asns, origin, med, dice)| Sketch {
            peer,
            local_pref,
            asns,
            origin,
            med,
            filtered: dice < 20,
        })
}

fn sources() -> Sources {
    let mut sources = Sources::default();
    for peer in 0u8..6 {
        *sources.at_mut(PeerId(peer.into())) = PathSource {
            from: match peer {
                0 => LearnedFrom::Local,
                1 | 2 => LearnedFrom::Ibgp,
                _ => LearnedFrom::Ebgp,
            },
            // Two peers with one identifier: the address decides.
            router_id: Ipv4Addr::new(10, 0, 0, peer / 2),
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200 - peer)),
            client: false,
            generation: crate::family::PerFamily::default(),
        };
    }
    sources
}

fn set(sketch: &Sketch) -> AttrSet {
    let origin = [sketch.origin];
    let mut path = Vec::new();
    for asn in sketch.asns.iter().rev() {
        let mut longer = Vec::new();
        crate::wire::as_path::prepend(&path, *asn, 1, &mut longer);
        path = longer;
    }
    let (med, pref) = (
        sketch.med.map(u32::to_be_bytes),
        sketch.local_pref.map(u32::to_be_bytes),
    );
    let mut attrs = vec![
        Attr {
            code: 1,
            flags: TRANSITIVE,
            value: &origin,
        },
        Attr {
            code: 2,
            flags: TRANSITIVE,
            value: &path,
        },
    ];
    attrs.extend(med.as_ref().map(|value| Attr {
        code: 4,
        flags: OPTIONAL,
        value,
    }));
    attrs.extend(pref.as_ref().map(|value| Attr {
        code: 5,
        flags: TRANSITIVE,
        value,
    }));
    AttrSet::new(NextHopValue::V4(Ipv4Addr::new(192, 0, 2, 1)), &attrs)
}

/// RFC 4271 section 9.1.2.2, word by word: each step removes paths from the list.
fn naive(sketches: &[Sketch]) -> Option<u16> {
    let sources = sources();
    let mut left: Vec<&Sketch> = sketches.iter().filter(|s| !s.filtered).collect();
    let pref = |s: &Sketch| s.local_pref.unwrap_or(100);
    let most = left.iter().map(|s| pref(s)).max()?;
    left.retain(|s| pref(s) == most);
    let shortest = left.iter().map(|s| s.asns.len()).min()?;
    left.retain(|s| s.asns.len() == shortest);
    let lowest = left.iter().map(|s| s.origin).min()?;
    left.retain(|s| s.origin == lowest);
    let neighbour = |s: &Sketch| s.asns.first().copied().unwrap_or(0);
    let med = |s: &Sketch| s.med.unwrap_or(0);
    let all = left.clone();
    left.retain(|s| {
        !all.iter()
            .any(|o| neighbour(o) == neighbour(s) && med(o) < med(s))
    });
    if left
        .iter()
        .any(|s| sources.at(PeerId(s.peer)).from == LearnedFrom::Ebgp)
    {
        left.retain(|s| sources.at(PeerId(s.peer)).from == LearnedFrom::Ebgp);
    }
    left.sort_by_key(|s| {
        (
            sources.at(PeerId(s.peer)).router_id,
            sources.at(PeerId(s.peer)).address,
        )
    });
    left.first().map(|s| s.peer)
}

proptest! {
    /// Incremental equals naive after every single change, whatever came before.
    #[test]
    fn incremental_decision_equals_the_naive_one(script in proptest::collection::vec((arb_sketch(), any::<bool>()), 1..30)) {
        let (mut table, mut attrs, sources) = (Table::<V4>::default(), AttrTable::default(), sources());
        let prefix = V4::from_octets(&[10], 8).unwrap();
        let mut state: std::collections::BTreeMap<u16, Sketch> = std::collections::BTreeMap::new();
        for (sketch, remove) in script {
            let before = table.find(prefix).and_then(|d| table.best(d));
            let change = if remove {
                state.remove(&sketch.peer);
                table.find(prefix).and_then(|d| table.remove(d, PeerId(sketch.peer), 0, &attrs, &sources))
            } else {
                let attr = attrs.intern(Arc::new(set(&sketch)));
                let flags = if sketch.filtered { FILTERED } else { 0 };
                let path = Path { attr, path_id: 0, peer: PeerId(sketch.peer), generation: 0, flags };
                state.insert(sketch.peer, sketch);
                Some(table.insert(prefix, path, &attrs, &sources))
            };
            let best = table.find(prefix).and_then(|d| table.best(d));
            let sketches: Vec<Sketch> = state.values().cloned().collect();
            prop_assert_eq!(best.map(|p| p.peer.0), naive(&sketches));
            let differs = before.map(|p| (p.attr, p.peer)) != best.map(|p| (p.attr, p.peer));
            prop_assert_eq!(change.is_some_and(|c| c.best), differs, "the change is told exactly when there is one");
        }
    }

    /// Every path that is not best names a step, and the best is alone in naming none.
    #[test]
    fn every_loser_names_its_step(sketches in proptest::collection::vec(arb_sketch(), 1..6)) {
        let (mut table, mut attrs, sources) = (Table::<V4>::default(), AttrTable::default(), sources());
        let prefix = V4::from_octets(&[10], 8).unwrap();
        for sketch in &sketches {
            let attr = attrs.intern(Arc::new(set(sketch)));
            let flags = if sketch.filtered { FILTERED } else { 0 };
            table.insert(prefix, Path { attr, path_id: 0, peer: PeerId(sketch.peer), generation: 0, flags }, &attrs, &sources);
        }
        let paths = table.paths(table.find(prefix).unwrap());
        let won = paths.iter().filter(|p| step(p, paths, &attrs, &sources) == Step::Best).count();
        prop_assert_eq!(won, usize::from(paths.iter().any(Path::eligible)));
    }
}

#[test]
fn our_own_route_wins_over_everything() {
    let (mut table, mut attrs, sources) = (Table::<V4>::default(), AttrTable::default(), sources());
    let prefix = V4::from_octets(&[10], 8).unwrap();
    let sketch = |peer, local_pref| Sketch {
        peer,
        local_pref,
        asns: vec![],
        origin: 0,
        med: None,
        filtered: false,
    };
    for s in [sketch(1, Some(u32::MAX)), sketch(0, None)] {
        let attr = attrs.intern(Arc::new(set(&s)));
        table.insert(
            prefix,
            Path {
                attr,
                path_id: 0,
                peer: PeerId(s.peer),
                generation: 0,
                flags: 0,
            },
            &attrs,
            &sources,
        );
    }
    let dest = table.find(prefix).unwrap();
    assert_eq!(table.best(dest).map(|p| p.peer), Some(PeerId::LOCAL));
    let paths = table.paths(dest);
    assert_eq!(step(&paths[1], paths, &attrs, &sources), Step::Local);
}

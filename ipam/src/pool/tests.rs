use proptest::prelude::*;

use super::*;

fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    Pool {
        name: name.to_owned(),
        cidr: cidr.parse().unwrap(),
        block_size,
        node_selector: String::new(),
        namespace_selector: String::new(),
        allowed_uses: vec![AllowedUse::Workload],
        automatic: true,
        disabled: false,
        encapsulation: Encapsulation::None,
    }
}

fn chosen(pools: &[Pool], requested: &[&str], purpose: AllowedUse) -> Result<Vec<String>, Error> {
    let node = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
    let namespace = BTreeMap::from([("team".to_owned(), "x".to_owned())]);
    let requested: Vec<String> = requested.iter().map(|p| (*p).to_owned()).collect();
    let choice = Choice {
        family: Family::V4,
        requested: &requested,
        purpose,
        node_labels: Some(&node),
        namespace_labels: &namespace,
    };
    let pools: Vec<&Pool> = pools.iter().collect();
    Ok(select(&pools, &choice)?
        .into_iter()
        .map(|p| p.name.clone())
        .collect())
}

#[test]
fn selectors_modes_uses_and_families_choose_pools() {
    let base = || pool("p", "10.0.0.0/24", 28);
    let with = |change: fn(&mut Pool)| {
        let mut pool = base();
        change(&mut pool);
        chosen(&[pool], &[], AllowedUse::Workload).is_ok()
    };
    assert!(with(|_| {}));
    assert!(with(|p| p.node_selector = "rack == 'a'".into()));
    assert!(!with(|p| p.node_selector = "rack == 'b'".into()));
    assert!(with(|p| p.namespace_selector = "team == 'x'".into()));
    assert!(!with(|p| p.namespace_selector = "team == 'y'".into()));
    assert!(!with(|p| p.disabled = true));
    assert!(!with(|p| p.automatic = false));
    assert!(!with(|p| p.allowed_uses = vec![AllowedUse::Tunnel]));
    assert!(!with(|p| p.cidr = "fd00::/64".parse().unwrap()));
    assert!(!with(|p| p.node_selector = "rack ==".into()));
}

#[test]
fn pools_asked_for_ignore_selectors_but_not_disabled_and_uses() {
    let mut pools = vec![
        pool("a", "10.0.0.0/24", 28),
        pool("b", "10.1.0.0/24", 28),
        pool("c", "10.2.0.0/24", 28),
    ];
    pools[1].node_selector = "!all()".into();
    pools[1].automatic = false;
    pools[2].disabled = true;
    let workload = AllowedUse::Workload;
    assert_eq!(
        chosen(&pools, &["b", "10.0.0.0/24"], workload).unwrap(),
        ["b", "a"]
    );
    assert_eq!(
        chosen(&pools, &["c"], workload),
        Err(Error::PoolDisabled { pool: "c".into() })
    );
    let missing = Error::NoSuchPool {
        pool: "x".into(),
        family: Family::V4,
    };
    assert_eq!(chosen(&pools, &["x"], workload), Err(missing));
    let none = Error::NoPool {
        family: Family::V4,
        purpose: AllowedUse::Tunnel,
    };
    assert_eq!(chosen(&pools, &["b"], AllowedUse::Tunnel), Err(none));
}

#[test]
fn nodes_begin_at_different_blocks() {
    let pool = pool("p", "10.0.0.0/16", 26);
    let starts: std::collections::BTreeSet<u64> = (0..64).map(|i| pool.start(&format!("node-{i}"))).collect();
    assert!(starts.len() > 48, "{} of 64", starts.len());
    assert!(starts.iter().all(|s| *s < pool.block_count()));
}

proptest! {
    #[test]
    fn blocks_of_a_pool_cover_it_once(len in 8u8..=28, more in 0u8..=12, at in any::<u64>(), v6 in any::<bool>()) {
        let (base, bits) = if v6 { ("fd00::", 96) } else { ("10.0.0.0", 0) };
        let cidr = format!("{base}/{}", len + bits);
        let pool = pool("p", &cidr, (len + more + bits).min(32 + bits));
        let index = at % pool.block_count();
        let block = pool.block_at(index).unwrap();
        prop_assert_eq!(pool.index_of(&block), index);
        prop_assert!(pool.cidr.contains(&block));
        prop_assert_eq!(pool.block_of(block.network()), Some(block));
        prop_assert_eq!(pool.block_of(block.broadcast()), Some(block));
        prop_assert_eq!(pool.block_at(pool.block_count()), None);
    }
}

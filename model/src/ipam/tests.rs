use super::*;
use crate::gojson;

const EMPTY: &str = r#"{"cidr":"10.244.0.0/30","affinity":"host:n1","affinity_claim_time":"2026-08-22T13:33:20Z","allocations":[null,null,null,null],"unallocated":[0,1,2,3],"attributes":null,"sequenceNumber":1787405600000000000,"sequenceNumberForAllocation":{},"deleted":false}"#;
const TAKEN: &str = r#"{"cidr":"10.244.0.0/30","affinity":"host:n1","affinity_claim_time":"2026-08-22T13:33:20Z","allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"k8s-pod-network.0a1b","secondary":{"namespace":"default","node":"n1","pod":"web-0","timestamp":"2026-08-22 13:33:21.123456789 +0000 UTC"}}],"sequenceNumber":1787405600000000001,"sequenceNumberForAllocation":{"0":1787405600000000000},"deleted":false}"#;

fn cidr() -> ipnet::IpNet {
    "10.244.0.0/30".parse().unwrap()
}

#[track_caller]
fn block_round_trips(json: &str) -> Block {
    let block = Block::decode(cidr(), json.as_bytes()).unwrap();
    assert_eq!(gojson::to_string(&block).unwrap(), json);
    view_agrees(&block, json);
    block
}

/// The borrowed form says what the whole one does.
#[track_caller]
fn view_agrees(block: &Block, json: &str) {
    let view = BlockView::decode(cidr(), json.as_bytes()).unwrap();
    assert_eq!(
        (view.affinity(), view.host()),
        (block.affinity.as_deref(), block.host())
    );
    assert_eq!(view.affinity_claim_time(), block.affinity_claim_time.as_deref());
    assert_eq!(
        (&view.allocations, &view.unallocated),
        (&block.allocations, &block.unallocated)
    );
    assert_eq!(view.problems(), block.problems());
    for ordinal in 0..5 {
        assert_eq!(view.address(ordinal), block.address(ordinal));
        let (lean, whole) = (view.attribute(ordinal), block.attribute(ordinal));
        assert_eq!(
            lean.and_then(AttributeView::handle),
            whole.and_then(Attribute::handle)
        );
        assert_eq!(
            lean.and_then(AttributeView::released_at),
            whole.and_then(|a| a.released_at.as_deref())
        );
        let of = |key: &str| whole.and_then(|a| a.secondary.get(key)).map(String::as_str);
        let lean = lean.map(|a| &a.secondary);
        assert_eq!(lean.and_then(OwnerView::node), of("node"));
        assert_eq!(lean.and_then(OwnerView::pod), of("pod"));
        assert_eq!(lean.and_then(OwnerView::namespace), of("namespace"));
        assert_eq!(lean.and_then(OwnerView::kind), of("type"));
        assert_eq!(lean.and_then(OwnerView::service), of("service"));
    }
}

#[track_caller]
fn block_is_refused(json: &str, want: &IpamDecodeError) {
    assert_eq!(Block::decode(cidr(), json.as_bytes()).as_ref(), Err(want));
    assert_eq!(
        BlockView::decode(cidr(), json.as_bytes()).map(drop),
        Err(want.clone())
    );
}

#[test]
fn blocks_round_trip_byte_for_byte() {
    assert!(block_round_trips(EMPTY).problems().is_empty());
    let taken = block_round_trips(TAKEN);
    assert!(taken.problems().is_empty());
    assert_eq!(taken.host(), Some("n1"));
    assert_eq!(
        taken.attribute(0).and_then(Attribute::handle),
        Some("k8s-pod-network.0a1b")
    );
    assert_eq!(taken.attribute(1), None);
    // Emptied again, without owner, and with a nil map of an old version.
    block_round_trips(&EMPTY.replace("\"attributes\":null", "\"attributes\":[]"));
    block_round_trips(&EMPTY.replace(
        "\"host:n1\",\"affinity_claim_time\":\"2026-08-22T13:33:20Z\"",
        "null",
    ));
    block_round_trips(&EMPTY.replace("Allocation\":{}", "Allocation\":null"));
    block_round_trips(&EMPTY.replace("\"deleted\":false", "\"deleted\":false,\"hostAffinity\":\"n1\""));
}

#[test]
fn unknown_fields_and_escapes_survive() {
    block_round_trips(&EMPTY.replace(
        "\"deleted\":false",
        "\"deleted\":false,\"laterField\":{\"b\":1,\"a\":[1.5]}",
    ));
    block_round_trips(&TAKEN.replace("web-0", "a\\u003cb\\u0026c"));
    block_round_trips(&TAKEN.replace(
        "\"}}]",
        "\"},\"releasedAt\":\"2026-08-22T13:33:20Z\",\"later\":true}]",
    ));
}

#[test]
fn numbers_beyond_f64_stay_exact() {
    let block = block_round_trips(&EMPTY.replace("1787405600000000000", "18446744073709551615"));
    assert_eq!(block.sequence_number, u64::MAX);
}

#[test]
fn blocks_that_could_hand_an_address_out_twice_are_refused() {
    let key = "10.244.0.0/30".to_owned();
    block_is_refused(
        &EMPTY.replace("10.244.0.0/30", "10.244.0.4/30"),
        &IpamDecodeError::CidrMismatch {
            found: "10.244.0.4/30".into(),
            key,
        },
    );
    block_is_refused(
        &EMPTY.replace("[null,", "["),
        &IpamDecodeError::AllocationsLength {
            found: 3,
            expected: 4,
        },
    );
    block_is_refused(
        &TAKEN.replace("[0,null", "[1,null"),
        &IpamDecodeError::AttributeIndex {
            ordinal: 0,
            index: 1,
            attributes: 1,
        },
    );
    block_is_refused(
        &TAKEN.replace("[1,2,3]", "[0,1,2,3]"),
        &IpamDecodeError::UnallocatedInUse(0),
    );
    block_is_refused(
        &TAKEN.replace("[1,2,3]", "[1,2,2]"),
        &IpamDecodeError::UnallocatedTwice(2),
    );
    block_is_refused(
        &TAKEN.replace("[1,2,3]", "[1,2,4]"),
        &IpamDecodeError::UnallocatedOutside(4),
    );
}

#[test]
fn hostile_blocks_are_errors_and_nothing_worse() {
    for json in [
        "",
        "{",
        "{}",
        "null",
        "[]",
        "{\"cidr\":\"10.244.0.0/30\"}",
        &EMPTY.replace("0,1", "-1,1"),
        "[\"10.244.0.0/30\",null,null,[null,null,null,null],[0,1,2,3],null,1,{},false,null]",
        &TAKEN
            .replace("{\"handle_id\":\"k8s-pod-network.0a1b\",", "[\"h\",{")
            .replace("UTC\"}}]", "UTC\"},null,null]]"),
        &TAKEN.replace("\"web-0\"", "7"),
        &EMPTY.replace("Allocation\":{}", "Allocation\":{\"0\":\"x\"}"),
    ] {
        let error = Block::decode(cidr(), json.as_bytes()).unwrap_err();
        assert!(matches!(error, IpamDecodeError::Json(_)), "{json}: {error}");
        let error = BlockView::decode(cidr(), json.as_bytes()).unwrap_err();
        assert!(matches!(error, IpamDecodeError::Json(_)), "{json}: {error}");
    }
    let wide = "10.0.0.0/8".parse().unwrap();
    let error = Block::decode(wide, EMPTY.replace("10.244.0.0/30", "10.0.0.0/8").as_bytes());
    assert_eq!(error, Err(IpamDecodeError::TooLarge("10.0.0.0/8".into())));
    let everything = "::/0".parse().unwrap();
    assert_eq!(Block::addresses_in(&everything), None);
    let long = vec![b' '; VALUE_BYTES_MAX + 1];
    assert_eq!(
        Block::decode(cidr(), &long),
        Err(IpamDecodeError::TooLong(long.len()))
    );
}

#[test]
fn harmless_defects_are_named() {
    let unused = TAKEN.replace("\"attributes\":[", "\"attributes\":[{},");
    let unused = Block::decode(cidr(), unused.replace("[0,null", "[1,null").as_bytes()).unwrap();
    assert_eq!(unused.problems(), ["attribute 0 is used by no address"]);
    let lost = Block::decode(cidr(), TAKEN.replace("[1,2,3]", "[1,3]").as_bytes()).unwrap();
    assert_eq!(lost.problems(), ["ordinal 2 is neither allocated nor free"]);
}

#[test]
fn ordinals_and_addresses_agree_in_both_families() {
    for (net, first, last) in [
        ("10.244.0.0/30", "10.244.0.0", "10.244.0.3"),
        ("fd00::10/126", "fd00::10", "fd00::13"),
    ] {
        let cidr: ipnet::IpNet = net.parse().unwrap();
        let block = Block::decode(cidr, EMPTY.replace("10.244.0.0/30", net).as_bytes()).unwrap();
        for (ordinal, address) in [(0, first), (3, last)] {
            let address = address.parse().unwrap();
            assert_eq!(block.address(ordinal), Some(address));
            assert_eq!(block.ordinal(address), Some(ordinal));
        }
        assert_eq!(block.address(4), None);
        assert_eq!(block.ordinal("192.0.2.1".parse().unwrap()), None);
    }
}

#[test]
fn the_borrowed_form_of_a_handle_says_what_the_whole_one_does() {
    for json in [
        r#"{"block":{"10.244.0.0/30":2,"fd00::/126":1},"deleted":false}"#,
        r#"{"block":{},"deleted":false}"#,
        r#"{"block":null}"#,
        r#"{"block":{"a\u0062":1},"later":[1]}"#,
        r#"{"block":{"a":"1"}}"#,
        r#"{"block":[]}"#,
        r#"[{"a":1},false]"#,
        "[]",
        "null",
    ] {
        let whole = Handle::decode(json.as_bytes()).map(|h| h.block.into_iter().collect::<Vec<_>>());
        let lean = HandleView::decode(json.as_bytes());
        let lean = lean.map(|h| {
            h.counts()
                .map(|(cidr, n)| (cidr.to_owned(), n))
                .collect::<Vec<_>>()
        });
        assert_eq!(lean.ok(), whole.ok(), "{json}");
    }
}

#[test]
fn a_handle_of_a_defective_migration_is_cut() {
    let attribute = Attribute {
        handle_id: Some("h\r\neth0".into()),
        ..Attribute::default()
    };
    assert_eq!(attribute.handle(), Some("h"));
}

#[test]
fn affinities_round_trip_and_old_ones_are_confirmed() {
    for (state, confirmed) in [
        ("confirmed", true),
        ("pending", false),
        ("pendingDeletion", false),
        ("", true),
        ("later", false),
    ] {
        let json = format!("{{\"state\":\"{state}\",\"deleted\":false}}");
        let affinity = BlockAffinity::decode(json.as_bytes()).unwrap();
        assert_eq!(affinity.state.is_confirmed(), confirmed, "{state}");
        assert_eq!(gojson::to_string(&affinity).unwrap(), json);
    }
    assert!(BlockAffinity::decode(b"").unwrap().state.is_confirmed());
    assert!(BlockAffinity::decode(b"{\"state\":1}").is_err());
}

#[test]
fn handles_round_trip_and_never_print_null() {
    let json = r#"{"block":{"10.244.0.0/30":1,"fd00::/122":2},"deleted":false}"#;
    let mut handle = Handle::decode(json.as_bytes()).unwrap();
    assert_eq!(gojson::to_string(&handle).unwrap(), json);
    assert_eq!(handle.count(&cidr()), 1);
    handle.set(&cidr(), 0);
    assert_eq!(
        gojson::to_string(&handle).unwrap(),
        r#"{"block":{"fd00::/122":2},"deleted":false}"#
    );
    let null = Handle::decode(b"{\"block\":null,\"deleted\":false}").unwrap();
    assert_eq!(
        gojson::to_string(&null).unwrap(),
        "{\"block\":{},\"deleted\":false}"
    );
    assert!(Handle::decode(b"{\"block\":{\"x\":\"y\"}}").is_err());
}

#[test]
fn config_prints_as_go_and_a_missing_auto_allocate_is_false() {
    let json = r#"{"auto_allocate_blocks":true,"kubeVirtVMAddressPersistence":"Enabled"}"#;
    assert_eq!(gojson::to_string(&IpamConfig::default()).unwrap(), json);
    assert_eq!(
        IpamConfig::decode(json.as_bytes()).unwrap(),
        IpamConfig::default()
    );
    let strict = IpamConfig::decode(b"{\"strict_affinity\":true,\"maxBlocksPerHost\":3}").unwrap();
    assert!(strict.strict_affinity && !strict.auto_allocate_blocks);
    assert_eq!(strict.blocks_per_host(), 3);
    assert_eq!(
        IpamConfig::default().blocks_per_host(),
        IpamConfig::BLOCKS_PER_HOST_DEFAULT
    );
}

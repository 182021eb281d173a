use super::*;

fn range(a: &str, b: &str) -> Atom {
    Atom::Range(Value::Ipv4(a.parse().unwrap()), Value::Ipv4(b.parse().unwrap()))
}

fn net(s: &str) -> Atom {
    Atom::net(s.parse().unwrap())
}

#[test]
fn names_are_what_nft_parses_without_quotes() {
    for good in ["a", "_x", "egress-0123456789abcdef", "g/1.2"] {
        assert_eq!(Name::new(good).unwrap().as_str(), good);
    }
    for bad in ["", "1a", "a b", "a;drop", "ä", &"x".repeat(64)] {
        assert!(Name::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn concatenated_keys_are_padded_to_registers() {
    let key = Key::new(&[Value::Proto(6).into(), Value::Service(80).into()]);
    assert_eq!(key.from(), [6, 0, 0, 0, 0, 80, 0, 0]);
    assert_eq!(key.to(), key.from());
    assert_eq!(Set::of(&[Kind::Proto, Kind::Service]).key_len(), 8);
    assert_eq!(Key::new(&[Value::Service(80).into()]).from(), [0, 80]);
}

#[test]
fn overlapping_and_adjacent_ranges_merge() {
    let merged = merge_intervals([
        net("10.1.0.0/16"),
        net("10.0.0.0/16"),
        net("10.0.3.0/24"),
        net("192.168.0.1/32"),
        range("255.255.255.0", "255.255.255.255"),
        net("255.255.255.255/32"),
    ]);
    assert_eq!(
        merged,
        [
            net("10.0.0.0/15"),
            net("192.168.0.1/32"),
            range("255.255.255.0", "255.255.255.255")
        ]
    );
    assert_eq!(
        merge_intervals([net("0.0.0.0/0"), net("10.0.0.0/8")]),
        [net("0.0.0.0/0")]
    );
}

#[test]
fn elements_are_replaced_by_key() {
    let mut map = Set::vmap(&[Kind::IfName]);
    let eth0 = Atom::from(crate::plan::IfName::fixed("eth0"));
    assert!(map.insert_verdict(&[eth0], Verdict::Drop));
    assert!(!map.insert_verdict(&[eth0], Verdict::Accept));
    assert_eq!(map.elements.len(), 1);
}

#[test]
fn text_shows_networks_ranges_and_verdicts() {
    let mut table = Table::default();
    let mut nets = Set::vmap(&[Kind::Ipv4, Kind::Proto, Kind::Service]).interval();
    let port = |a, b| Atom::Range(Value::Service(a), Value::Service(b));
    nets.insert_verdict(
        &[net("10.0.0.0/8"), Value::Proto(6).into(), port(1, 1024)],
        Verdict::Accept,
    );
    nets.insert_verdict(
        &[
            range("10.0.0.1", "10.0.0.2"),
            Value::Proto(200).into(),
            port(7, 7),
        ],
        Verdict::Goto(Name::fixed("x")),
    );
    table.sets.insert(Name::fixed("nets"), Arc::new(nets));
    let rules = vec![
        Rule::new([
            Stmt::Net(Field::Ip4Saddr, Op::Ne, "10.2.3.4/8".parse().unwrap()),
            Stmt::Range(Field::ThDport, Op::Eq, Value::Service(1), Value::Service(9)),
            Stmt::Bits {
                field: Field::Mark,
                mask: 0xf0,
                op: Op::Eq,
                value: 0x10,
            },
            Stmt::SetMark { mask: 0xf, value: 1 },
            Stmt::Counter,
            Stmt::Reject(Reject::TcpReset),
        ]),
        Rule::new([
            Stmt::Limit(Rate {
                packets: 3,
                per: Per::Minute,
                burst: 5,
            }),
            Stmt::Log {
                prefix: "x: ".into(),
                level: LogLevel::Info,
            },
        ])
        .comment("why"),
    ];
    table
        .chains
        .insert(Name::fixed("x"), Arc::new(Chain { base: None, rules }));
    insta::assert_snapshot!(table);
}

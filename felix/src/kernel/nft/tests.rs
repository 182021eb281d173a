//! The encoder against the kernel and the `nft` tool, in namespaces that live as long as a test.

use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::kernel::netns::Netns;
use crate::plan::IfName;
use crate::plan::base::{self, BaseConfig};
use crate::plan::nft::*;

mod deltas;

/// Runs the `nft` tool in the current namespace.
pub(super) fn nft(args: &str) -> String {
    let out = Command::new("nft")
        .args(args.split_whitespace())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "nft {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// Both texts in one form: implied family and protocol tests left out, elements of each set sorted, space collapsed.
fn canonical(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("elements = { ") {
        let (head, tail) = rest.split_at(at + "elements = { ".len());
        let end = tail.find('}').unwrap();
        let mut elements: Vec<_> = tail[..end].split(',').map(str::trim).collect();
        elements.sort_unstable();
        out += head;
        out += &elements.join(", ");
        rest = &tail[end..];
    }
    out += rest;
    for implied in [
        "meta nfproto ipv4 ",
        "meta nfproto ipv6 ",
        "meta l4proto tcp ",
        "meta l4proto udp ",
    ] {
        out = out.replace(implied, "");
    }
    for (theirs, ours) in [
        ("tcp dport", "th dport"),
        ("udp dport", "th dport"),
        ("tcp sport", "th sport"),
    ] {
        out = out.replace(theirs, ours);
    }
    out.replace("meta l4proto ipv6-icmp ", "")
        .replace("ct state == ", "ct state ")
}

#[track_caller]
fn check_listing(table: &Table) {
    let listed = Netns::new().unwrap().run(|| {
        let mut writer = Writer::open().unwrap();
        writer.apply(table, Mode::Exact).unwrap();
        assert!(
            !writer.resync(table).unwrap(),
            "what is read back differs from what was applied"
        );
        assert_eq!(writer.apply(table, Mode::Exact).unwrap().operations, 0);
        nft("list ruleset")
    });
    assert_eq!(
        canonical(&listed),
        canonical(&table.to_string()),
        "\n{listed}\n{table}"
    );
}

fn net(s: &str) -> ipnet::IpNet {
    s.parse().unwrap()
}

fn with_rules(rules: Vec<Rule>) -> Table {
    let mut table = Table::default();
    table.chains.insert(Name::fixed("other"), Arc::default());
    table
        .chains
        .insert(Name::fixed("c"), Arc::new(Chain { base: None, rules }));
    table
}

#[test]
fn the_static_table_is_listed_as_rendered() {
    let table = base::table(&BaseConfig::default());
    let listed = Netns::new().unwrap().run(|| {
        let mut writer = Writer::open().unwrap();
        writer.apply(&table, Mode::Exact).unwrap();
        assert!(!writer.resync(&table).unwrap());
        nft("-n list ruleset")
    });
    let numbers = |text: &str| {
        let names = [
            ("ipv6-icmp", "58"),
            ("ipencap", "4"),
            ("udp", "17"),
            ("priority filter", "priority 0"),
            ("priority raw", "priority -300"),
        ];
        let states = [
            ("invalid :", "0x1 :"),
            ("established :", "0x2 :"),
            ("related :", "0x4 :"),
        ];
        let replace = |t: String, (name, number): &(&str, &str)| t.replace(name, number);
        let text = states.iter().fold(text.to_owned(), replace);
        let text = names.iter().fold(canonical(&text), replace);
        text.replace("meta l4proto 58 ", "")
            .replace("meta l4proto 17 ", "")
    };
    assert_eq!(numbers(&listed), numbers(&table.to_string()), "\n{listed}");
}

#[test]
fn matches_are_listed_as_rendered() {
    let tcp = || Stmt::is(Field::L4Proto, Value::Proto(6));
    let v4 = || Stmt::is(Field::NfProto, expr::NfProto::Ipv4);
    let v6 = || Stmt::is(Field::NfProto, expr::NfProto::Ipv6);
    let port = Value::Service;
    let counted = |mut s: Vec<Stmt>| {
        s.push(Stmt::accept());
        Rule::new(s)
    };
    check_listing(&with_rules(vec![
        counted(vec![Stmt::is(Field::IifName, IfName::fixed("eth0"))]),
        counted(vec![Stmt::NamePrefix(
            Field::OifName,
            Op::Ne,
            IfName::fixed("cali"),
        )]),
        counted(vec![v4(), Stmt::Net(Field::Ip4Saddr, Op::Eq, net("10.0.0.0/8"))]),
        counted(vec![v4(), Stmt::Net(Field::Ip4Daddr, Op::Ne, net("10.1.2.0/23"))]),
        counted(vec![v4(), Stmt::Net(Field::Ip4Daddr, Op::Eq, net("10.1.2.3/32"))]),
        counted(vec![v6(), Stmt::Net(Field::Ip6Saddr, Op::Eq, net("fd00:1::/33"))]),
        counted(vec![
            tcp(),
            Stmt::Range(Field::ThDport, Op::Eq, port(1), port(1024)),
        ]),
        counted(vec![tcp(), Stmt::Range(Field::ThSport, Op::Ne, port(7), port(9))]),
        counted(vec![Stmt::Bits {
            field: Field::Mark,
            mask: 0xf0,
            op: Op::Eq,
            value: 0x10,
        }]),
        counted(vec![Stmt::Bits {
            field: Field::CtMark,
            mask: 0xff,
            op: Op::Ne,
            value: 1,
        }]),
        counted(vec![Stmt::is(Field::CtState, CtState::New)]),
    ]));
}

#[test]
fn actions_are_listed_as_rendered() {
    check_listing(&with_rules(vec![
        Rule::new([Stmt::Limit(Rate {
            packets: 10,
            per: Per::Second,
            burst: 7,
        })]),
        Rule::new([
            Stmt::Limit(Rate {
                packets: 3,
                per: Per::Hour,
                burst: 5,
            }),
            Stmt::drop(),
        ]),
        Rule::new([Stmt::Log {
            prefix: "twill: ".into(),
            level: LogLevel::Info,
        }]),
        Rule::new([Stmt::SetMark {
            mask: u32::MAX,
            value: 0x2a,
        }]),
        Rule::new([Stmt::jump(&Name::fixed("other"))]),
        Rule::new([Stmt::Verdict(Verdict::Return)]).comment("back, \u{e4}nd why"),
        Rule::new([Stmt::Verdict(Verdict::Continue)]),
        Rule::new([
            Stmt::is(Field::L4Proto, Value::Proto(6)),
            Stmt::Reject(Reject::TcpReset),
        ]),
        Rule::new([Stmt::Reject(Reject::AdminProhibited)]),
        Rule::new([Stmt::goto(&Name::fixed("other"))]),
    ]));
}

#[test]
fn sets_and_maps_are_listed_as_rendered() {
    let mut table = with_rules(vec![]);
    let mut add = |name, set: Set| table.sets.insert(Name::fixed(name), Arc::new(set));
    let ip = |s: &str| Value::Ipv4(s.parse().unwrap());
    let port = |a, b| Atom::Range(Value::Service(a), Value::Service(b));

    let mut hash = Set::of(&[Kind::Ipv4]);
    hash.insert(&[ip("10.0.0.1").into()]);
    hash.insert(&[ip("10.0.0.2").into()]);
    add("hash", hash);

    let mut nets = Set::of(&[Kind::Ipv4]).interval();
    for n in ["10.0.0.0/8", "192.168.1.1/32", "240.0.0.0/4"] {
        nets.insert(&[Atom::net(net(n))]);
    }
    nets.insert(&[Atom::Range(ip("11.0.0.3"), ip("11.0.0.9"))]);
    add("nets", nets);

    let mut from = Set::vmap(&[Kind::IfName]);
    from.insert_verdict(&[IfName::fixed("cali1").into()], Verdict::Goto(Name::fixed("c")));
    from.insert_verdict(&[IfName::fixed("cali2").into()], Verdict::Drop);
    add("from", from);

    let mut spoof = Set::of(&[Kind::IfName, Kind::Ipv4]);
    spoof.insert(&[IfName::fixed("cali1").into(), ip("10.0.0.1").into()]);
    add("spoof", spoof);

    let mut group = Set::vmap(&[Kind::Ipv4, Kind::Proto, Kind::Service]).interval();
    group.insert_verdict(
        &[Atom::net(net("10.0.0.0/8")), Value::Proto(6).into(), port(80, 80)],
        Verdict::Accept,
    );
    group.insert_verdict(
        &[Atom::net(net("11.0.0.0/8")), Value::Proto(17).into(), port(1, 99)],
        Verdict::Jump(Name::fixed("c")),
    );
    add("group", group);

    let mut marks = Set::map(&[Kind::IfName], Kind::Mark);
    marks.insert_value(&[IfName::fixed("cali1").into()], Value::Mark(0x7));
    add("marks", marks);
    check_listing(&table);
}

#[test]
fn addresses_of_both_families_and_look_ups_are_taken() {
    let mut table = with_rules(vec![
        Rule::new([
            Stmt::is(Field::NfProto, expr::NfProto::Ipv6),
            Stmt::In(
                vec![Field::Ip6Daddr, Field::L4Proto, Field::ThDport],
                Op::Eq,
                Name::fixed("six"),
            ),
            Stmt::Counter,
            Stmt::accept(),
        ]),
        Rule::new([
            Stmt::In(vec![Field::OifName], Op::Ne, Name::fixed("ifs")),
            Stmt::drop(),
        ]),
        Rule::new([Stmt::SetMark { mask: 0xf, value: 3 }]),
        Rule::new([Stmt::Masquerade { fully_random: true }]),
    ]);
    let base = Base {
        kind: ChainType::Nat,
        hook: Hook::Postrouting,
        priority: 100,
        policy: Policy::Accept,
    };
    let chain = Chain {
        base: Some(base),
        rules: table.chains[&Name::fixed("c")].rules.clone(),
    };
    table.chains.insert(Name::fixed("c"), Arc::new(chain));
    let mut six = Set::of(&[Kind::Ipv6, Kind::Proto, Kind::Service]);
    six.insert(&[
        Value::Ipv6("fd00::1".parse().unwrap()).into(),
        Value::Proto(6).into(),
        Value::Service(80).into(),
    ]);
    table.sets.insert(Name::fixed("six"), Arc::new(six));
    table
        .sets
        .insert(Name::fixed("ifs"), Arc::new(Set::of(&[Kind::IfName])));
    let listed = Netns::new().unwrap().run(|| {
        Writer::open().unwrap().apply(&table, Mode::Exact).unwrap();
        nft("list ruleset")
    });
    assert!(
        listed.contains("ip6 daddr . meta l4proto . th dport @six counter packets 0 bytes 0 accept"),
        "{listed}"
    );
    assert!(listed.contains("oifname != @ifs drop"), "{listed}");
    assert!(
        listed.contains("meta mark set meta mark & 0xfffffff3 | 0x00000003"),
        "{listed}"
    );
    assert!(listed.contains("masquerade fully-random"), "{listed}");
    assert!(
        listed.contains("type nat hook postrouting priority srcnat; policy accept;"),
        "{listed}"
    );
}

#[test]
fn a_refused_operation_is_named_and_changes_nothing() {
    let good = base::table(&BaseConfig::default());
    let mut bad = good.clone();
    let to_base = Rule::new([Stmt::jump(&Name::fixed("forward"))]);
    bad.chains.insert(
        Name::fixed("wrong"),
        Arc::new(Chain {
            base: None,
            rules: vec![to_base],
        }),
    );
    Netns::new().unwrap().run(|| {
        let mut writer = Writer::open().unwrap();
        writer.apply(&good, Mode::Exact).unwrap();
        let before = nft("list ruleset");
        let error = writer.apply(&bad, Mode::Exact).unwrap_err().to_string();
        assert!(
            error.contains("add rule 0 of chain wrong: jump forward: "),
            "{error}"
        );
        assert_eq!(nft("list ruleset"), before);
        writer.apply(&good, Mode::Exact).unwrap();
    });
}

#[test]
fn a_dangling_name_is_refused_before_the_kernel_sees_it() {
    let table = with_rules(vec![Rule::new([Stmt::jump(&Name::fixed("nowhere"))])]);
    Netns::new().unwrap().run(|| {
        let error = Writer::open().unwrap().apply(&table, Mode::Exact).unwrap_err();
        assert!(matches!(error, ApplyError::Dangling(names) if names == [Name::fixed("nowhere")]));
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn element_changes_send_elements_only() {
    let mut table = base::table(&BaseConfig::default());
    Netns::new().unwrap().run(|| {
        let mut writer = Writer::open().unwrap();
        assert!(!writer.apply(&table, Mode::Exact).unwrap().elements_only);
        let workloads = table.sets.get_mut("workloads").unwrap();
        Arc::make_mut(workloads).insert(&[IfName::fixed("cali1").into()]);
        let applied = writer.apply(&table, Mode::Exact).unwrap();
        assert_eq!((applied.operations, applied.elements_only), (1, true));
        assert!(nft("list set inet twill workloads").contains("\"cali1\""));
    });
}

/// The listing with its chains and sets in order of their names: what is made anew is listed last.
fn sorted_listing() -> Vec<String> {
    let text = nft("list ruleset");
    let mut parts: Vec<_> = canonical(&text).split(" } ").map(str::to_owned).collect();
    parts
        .iter_mut()
        .for_each(|p| *p = p.replace("table inet twill { ", "").replace(" }", ""));
    parts.sort_unstable();
    parts
}

/// What a stranger does to the table, and that the writer notices and repairs it.
#[track_caller]
fn check_repair(strangers: &[&str]) {
    let mut table = base::table(&BaseConfig::default());
    let from = table.sets.get_mut("from_wl").unwrap();
    Arc::make_mut(from).insert_verdict(
        &[IfName::fixed("cali1").into()],
        Verdict::Goto(Name::fixed("egress_ok")),
    );
    Netns::new().unwrap().run(|| {
        let mut writer = Writer::open().unwrap();
        writer.apply(&table, Mode::Exact).unwrap();
        let before = sorted_listing();
        assert_eq!(writer.drain(&table.name).unwrap(), Foreign::Quiet);
        for stranger in strangers {
            nft(stranger);
        }
        assert_eq!(
            writer.drain(&table.name).unwrap(),
            Foreign::Touched,
            "{strangers:?}"
        );
        assert!(writer.resync(&table).unwrap(), "{strangers:?}");
        assert!(writer.apply(&table, Mode::Exact).unwrap().operations > 0);
        assert_eq!(sorted_listing(), before, "{strangers:?}");
        assert!(!writer.resync(&table).unwrap());
    });
}

#[test]
fn drift_is_noticed_and_repaired() {
    check_repair(&["flush chain inet twill forward"]);
    check_repair(&["delete table inet twill"]);
    check_repair(&["flush ruleset"]);
    check_repair(&["insert rule inet twill forward accept"]);
    check_repair(&["delete element inet twill from_wl { \"cali1\" }"]);
    check_repair(&["add element inet twill workloads { \"cali9\" }"]);
    check_repair(&[
        "add chain inet twill mine",
        "add rule inet twill forward jump mine",
    ]);
    check_repair(&[
        "add set inet twill mine { type ipv4_addr; }",
        "add rule inet twill output ip daddr @mine drop",
    ]);
    check_repair(&[
        "flush chain inet twill forward",
        "delete chain inet twill forward",
    ]);
}

#[test]
fn foreign_tables_are_untouched() {
    let table = base::table(&BaseConfig::default());
    Netns::new().unwrap().run(|| {
        nft("add table ip others");
        nft("add chain ip others c { type filter hook forward priority 0; }");
        nft("add rule ip others c counter accept");
        let before = nft("list table ip others");
        let mut writer = Writer::open().unwrap();
        writer.apply(&table, Mode::Exact).unwrap();
        writer.apply(&Table::default(), Mode::Exact).unwrap();
        assert_eq!(nft("list table ip others"), before);
        assert_eq!(
            nft("list table inet twill")
                .split_whitespace()
                .collect::<String>(),
            "tableinettwill{}"
        );
    });
}

#[test]
fn ten_thousand_elements_take_several_nests_and_one_batch() {
    let mut table = with_rules(vec![]);
    let mut set = Set::of(&[Kind::Ipv4]);
    for i in 0..10_000_u32 {
        set.insert(&[Value::Ipv4((0x0a00_0000 + i).into()).into()]);
    }
    table.sets.insert(Name::fixed("big"), Arc::new(set));
    Netns::new().unwrap().run(|| {
        let mut writer = Writer::open().unwrap();
        let applied = writer.apply(&table, Mode::Exact).unwrap();
        assert!(applied.bytes > 130_000, "{applied:?}");
        assert!(!writer.resync(&table).unwrap());
        Arc::make_mut(table.sets.get_mut("big").unwrap()).elements = Arc::default();
        assert!(writer.apply(&table, Mode::Exact).unwrap().elements_only);
        assert!(!writer.resync(&table).unwrap());
    });
}

#[test]
fn a_new_writer_takes_over_what_it_finds() {
    let table = base::table(&BaseConfig::default());
    Netns::new().unwrap().run(|| {
        Writer::open().unwrap().apply(&table, Mode::Exact).unwrap();
        assert_eq!(
            Writer::open()
                .unwrap()
                .apply(&table, Mode::Exact)
                .unwrap()
                .operations,
            0
        );
        // Before in-sync an almost empty desired table takes nothing away.
        let nearly = Table::default();
        assert_eq!(
            Writer::open()
                .unwrap()
                .apply(&nearly, Mode::Additive)
                .unwrap()
                .operations,
            0
        );
        assert!(nft("list ruleset").contains("chain forward"));
    });
}

#[test]
fn more_tiers_than_the_kernel_nests_chains_are_taken() {
    use crate::calc::Graph;
    use twill_model::{Key, Kind, Update, Value};

    let mut graph = Graph::new("n1");
    let mut update = |kind: Kind, namespace: Option<&str>, name: &str, spec: &str| {
        let key = namespace.map_or_else(|| Key::cluster(kind, name), |n| Key::namespaced(kind, n, name));
        let at = namespace
            .map(|n| format!(r#","namespace":"{n}""#))
            .unwrap_or_default();
        let body = format!(
            r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"{at}}},"spec":{spec}}}"#
        );
        let value = Some(Value::decode(&key, &body.into()).unwrap());
        graph.update(&Update {
            key,
            value,
            revision: 1,
        });
    };
    for n in 0..12 {
        update(Kind::Tier, None, &format!("t{n}"), &format!(r#"{{"order":{n}}}"#));
        let rules =
            r#""types":["Ingress","Egress"],"ingress":[{"action":"Pass"}],"egress":[{"action":"Pass"}]"#;
        let spec = format!(r#"{{"tier":"t{n}","selector":"all()",{rules}}}"#);
        update(Kind::GlobalNetworkPolicy, None, &format!("t{n}.p"), &spec);
    }
    update(
        Kind::WorkloadEndpoint,
        Some("ns1"),
        "n1-k8s-p-eth0",
        r#"{"orchestrator":"k8s","node":"n1","pod":"p","endpoint":"eth0","ipNetworks":["10.65.0.1/32"],"interfaceName":"cali1","mac":"ee:00:00:00:00:01","profiles":[]}"#,
    );
    let table = graph.flush().unwrap().desired.table;
    assert!(table.chains.len() > 30, "{table}");
    Netns::new().unwrap().run(|| {
        Writer::open().unwrap().apply(&table, Mode::Exact).unwrap();
    });
}

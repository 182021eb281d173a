use proptest::prelude::*;

use super::*;

const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: allow-web
  namespace: default
  labels: {a.b/c: d}
spec:
  selector: app == 'web'
  ingress:
  - action: Allow
    protocol: TCP
    source:
      nets: [10.0.0.0/8]
    destination:
      ports:
      - 8080
      - 1:2
";

/// The errors of an input, each as `line:column path: reason`.
fn errors(text: &str) -> Vec<String> {
    let errors = match parse(text) {
        Err(errors) => errors,
        Ok(documents) => documents
            .iter()
            .find_map(|document| document.check().err())
            .expect("an error"),
    };
    errors
        .iter()
        .map(|e| format!("{}:{} {}: {}", e.at.line, e.at.column, e.path, e.reason))
        .collect()
}

fn check(text: &str, wanted: &str) {
    let errors = errors(text);
    assert!(
        errors.len() == 1 && errors[0].starts_with(wanted),
        "{wanted:?} is not in {errors:#?}"
    );
}

#[test]
fn an_object_is_read_as_written() {
    let documents = parse(POLICY).unwrap();
    let AnyResource::NetworkPolicy(policy) = &documents[0].resource else {
        panic!()
    };
    assert_eq!(policy.spec.selector, "app == 'web'");
    assert_eq!(policy.spec.ingress[0].destination.ports.len(), 2);
    assert_eq!(
        documents[0].locate("spec.ingress[0].destination.ports[1]"),
        Position { line: 17, column: 9 }
    );
    assert_eq!(
        documents[0].locate("metadata.labels[\"a.b/c\"]"),
        Position { line: 6, column: 12 }
    );
    assert_eq!(
        documents[0].locate("spec.egress[3].action"),
        Position { line: 7, column: 1 }
    );
    documents[0].check().unwrap();
}

#[test]
fn many_documents_lists_and_json_are_read() {
    let json = r#"{"kind":"List","apiVersion":"v1","items":[{"kind":"Tier","apiVersion":"projectcalico.org/v3","metadata":{"name":"a"}}]}"#;
    let pools = "kind: IPPoolList\napiVersion: projectcalico.org/v3\nitems:\n- metadata: {name: p}\n  spec: {cidr: 10.0.0.0/8}\n";
    let documents = parse(&format!(
        "---\n{POLICY}---\n# nothing\n---\n{json}\n---\n{pools}...\n"
    ))
    .unwrap();
    let keys: Vec<String> = documents
        .iter()
        .map(|document| document.resource.key().to_string())
        .collect();
    assert_eq!(keys, ["NetworkPolicy default/allow-web", "Tier a", "IPPool p"]);
    assert!(parse("").unwrap().is_empty());
    assert!(parse("---\n---\n").unwrap().is_empty());
}

#[test]
fn a_wrong_field_is_named_with_its_place() {
    check(
        &POLICY.replace("Allow", "Alow"),
        "10:5 spec.ingress[0].action: unknown variant `Alow`, expected one of",
    );
    check(
        &POLICY.replace("8080", "808080"),
        "16:9 spec.ingress[0].destination.ports[0]: \"808080\" is not a port",
    );
    check(
        &POLICY.replace("action: Allow\n    ", ""),
        "10:5 spec.ingress[0]: missing field `action`",
    );
    check(
        &POLICY.replace("selector:", "selektor:"),
        "8:3 spec.selektor: this field is not known",
    );
    check(&POLICY.replace("'web'", ""), "8:3 spec.selector: ");
    check(&POLICY.replace("allow-web", "Allow"), "4:3 metadata.name: ");
    check(
        &POLICY.replace("10.0.0.0/8", "10.0.0.1/8"),
        "13:14 spec.ingress[0].source.nets[0]: ",
    );
    check(
        &POLICY.replace("name: allow-web", "name: 7"),
        "4:3 metadata.name: invalid type: integer `7`",
    );
}

#[test]
fn all_unknown_fields_are_reported_at_once() {
    let text = POLICY.replace("selector:", "x: 1\n  y: 2\n  selector:");
    let errors = errors(&text);
    assert_eq!(
        errors,
        [
            "8:3 spec.x: this field is not known",
            "9:3 spec.y: this field is not known"
        ]
    );
}

#[test]
fn kind_and_version_must_be_there() {
    check("a: b", "1:1 kind: must be set");
    check("kind: Pod", "1:1 kind: resource type \"Pod\" is not known");
    check("kind: ippool", "1:1 kind: \"ippool\" is written IPPool");
    check(
        "kind: Tier\nmetadata: {name: a}",
        "1:1 apiVersion: must be set to projectcalico.org/v3",
    );
    check(
        "kind: Tier\napiVersion: v1\nmetadata: {name: a}",
        "2:1 apiVersion: \"v1\" is not",
    );
    check(
        "kind: Tier\napiVersion: projectcalico.org/v3",
        "1:1 : missing field `metadata`",
    );
    check("- a", "1:1 : must be an object");
    check("hello", "1:1 : must be an object");
    check("kind: List\nitems: {}", "2:8 items: must be a list");
    check("kind: TierList", "1:1 items: must be set");
}

#[test]
fn errors_in_later_documents_and_items_say_which() {
    let error = parse(&format!("{POLICY}---\nkind: Tier\n")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "document 2, line 19, column 1, field apiVersion: must be set to projectcalico.org/v3"
    );
    check(
        "kind: TierList\nitems:\n- metadata: {name: a}\n- metadata: {name: a}\n  spec: {order: x}\n",
        "5:10 items[1].spec.order: invalid type: string \"x\"",
    );
}

#[test]
fn broken_yaml_is_an_error_with_its_place() {
    check("a: [1, 2\nb: 3", "2:2 : ");
    check("a: b\na: c", "2:1 : \"a\" stands here twice");
    check("a: *x", "1:4 : ");
    check("? [a]\n: b", "1:3 : the name of a field must be text");
    check("a: !!binary b", "1:4 : the tag");
    check("a: .inf", "1:4 : .inf is not a number that can be stored");
}

#[test]
fn aliases_are_copies_within_bounds() {
    let text = "kind: GlobalNetworkSet\napiVersion: projectcalico.org/v3\nmetadata: {name: a, labels: &l {x: y}, annotations: *l}\n";
    assert_eq!(parse(text).unwrap()[0].resource.metadata().annotations["x"], "y");
    check(
        "a: &x [*x]",
        "1:8 : an alias cannot stand inside the value that it names",
    );
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    let error = &errors(&bomb)[0];
    assert!(error.contains("more than 1000000 values"), "{error}");
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = errors(&format!("{}1{}", "[".repeat(100), "]".repeat(100)));
    assert!(deep[0].contains("nested more than 64 levels deep"), "{deep:?}");
    let block: String = (0..100).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert!(errors(&block)[0].contains("nested more than 64 levels deep"));
    let large = errors(&" ".repeat(INPUT_BYTES_MAX + 1));
    assert!(large[0].contains("at most 16777216 are read"));
}

#[test]
fn what_a_configuration_leaves_out_is_what_calico_means() {
    let documents = parse("kind: IPAMConfiguration\napiVersion: projectcalico.org/v3\nmetadata: {name: default}\nspec: {strictAffinity: true}\n").unwrap();
    let AnyResource::IpamConfiguration(config) = &documents[0].resource else {
        panic!()
    };
    assert!(config.spec.auto_allocate_blocks);
    let felix = "kind: FelixConfiguration\napiVersion: projectcalico.org/v3\nmetadata: {name: default}\nspec: {bpfMapSizeRoute: 5}\n";
    parse(felix).unwrap();
    check(
        &felix.replace("MapSize", "MopSize"),
        "4:8 spec.bpfMopSizeRoute: this field is not known",
    );
}

#[test]
fn objects_are_printed_as_calicoctl_prints_them() {
    let documents = parse(POLICY).unwrap();
    assert_eq!(
        to_string(&documents[0].resource.presented(7)).unwrap(),
        "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  labels:
    a.b/c: d
    projectcalico.org/tier: default
  name: allow-web
  namespace: default
  resourceVersion: \"7\"
spec:
  ingress:
  - action: Allow
    destination:
      ports:
      - 8080
      - \"1:2\"
    protocol: TCP
    source:
      nets:
      - 10.0.0.0/8
  selector: app == 'web'
"
    );
    let list = to_string(&list(Kind::Tier, &[], 9)).unwrap();
    assert_eq!(
        list,
        "apiVersion: projectcalico.org/v3\nitems: []\nkind: TierList\nmetadata:\n  resourceVersion: \"9\"\n"
    );
}

/// As the calicoctl of Calico v3.32.1 prints these annotations.
#[test]
fn text_that_yaml_1_1_takes_for_something_else_is_quoted() {
    let quoted = [
        "2026-11-21 10:00:00",
        "2026-11-21T05:38:20Z",
        "2026-11-21",
        "2026-1-2",
        "10:20:30.5",
        "12:30",
        "+1:2",
        "0b11",
        "0x_1",
        ".5",
        "1e3",
        "0777",
        "089",
        "0o17",
        "1_000",
        "null",
        "~",
        "",
    ];
    let plain = [
        "a:b",
        "22:61",
        "8000:8010",
        "10.0.0.0/8",
        "2026-11",
        "v1.2",
        "fd00::1",
    ];
    for text in quoted {
        assert_eq!(to_string(&Value::from(text)).unwrap(), format!("\"{text}\"\n"));
    }
    for text in plain {
        assert_eq!(to_string(&Value::from(text)).unwrap(), format!("{text}\n"));
    }
}

/// JSON without floats, whose digits have more than one spelling.
fn arb_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[-?:,{}#&*!|>'\"%@` =<~.0-9a-z\\[\\]]{0,8}",
        Just("no".to_owned()),
        Just("null".to_owned()),
        Just("0x1f".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(json in arb_json()) {
        let yaml = to_string(&json).unwrap();
        let tree = tree::documents(&yaml).next().unwrap().map_err(|f| format!("{f:?}\n{yaml}"));
        prop_assert_eq!(tree.map(|tree| tree.to_json()), Ok(json), "{}", yaml);
    }

    #[test]
    fn arbitrary_input_is_read_or_refused(text in any::<String>()) {
        drop(parse(&text));
    }

    #[test]
    fn arbitrary_yaml_is_read_or_refused(text in "([-?:,{}#&*!|>'\"%@` \\n\\t\\[\\]]|a|kind: |List|items|- |Tier|1|---\\n){0,40}") {
        drop(parse(&text));
    }

    #[test]
    fn a_damaged_object_is_read_or_refused(at in 0..POLICY.len(), with in any::<char>()) {
        let mut text: Vec<char> = POLICY.chars().collect();
        text[at] = with;
        drop(parse(&text.into_iter().collect::<String>()).map(|documents| documents.iter().for_each(|d| drop(d.check()))));
    }
}

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::{Compare, DEPTH_MAX, LABEL_MAX, Membership, Node, Selector, SelectorError, TEXT_MAX};

fn parse(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refused(text: &str) -> SelectorError {
    match Selector::parse(text) {
        Ok(selector) => panic!("{text:?} was accepted as {selector}"),
        Err(error) => error,
    }
}

/// The truth table of the language: the test, then its answer for the label absent, equal, longer and other.
#[test]
fn a_missing_label_fails_every_test_but_the_negative_ones() {
    let table = [
        ("a == 'v'", [false, true, false, false]),
        ("a != 'v'", [true, false, true, true]),
        ("a in {'v', 'u'}", [false, true, false, false]),
        ("a in {}", [false, false, false, false]),
        ("a not in {'v', 'u'}", [true, false, true, true]),
        ("a not in {}", [true, true, true, true]),
        ("has(a)", [false, true, true, true]),
        ("!has(a)", [true, false, false, false]),
        ("a contains 'v'", [false, true, true, false]),
        ("a contains ''", [false, true, true, true]),
        ("a starts with 'v'", [false, true, true, false]),
        ("a ends with 'w'", [false, false, true, false]),
        ("!(a == 'v')", [true, false, true, true]),
        ("!(a contains 'v')", [true, false, false, true]),
        ("all()", [true; 4]),
        ("", [true; 4]),
        ("global()", [true; 4]),
        ("!all()", [false; 4]),
    ];
    for (text, expected) in table {
        let selector = parse(text);
        for (have, expected) in [None, Some("v"), Some("vw"), Some("x")].into_iter().zip(expected) {
            let labels: HashMap<&str, &str> = have.map(|value| ("a", value)).into_iter().collect();
            assert_eq!(selector.matches(&labels), expected, "{text:?} of {labels:?}");
        }
    }
}

#[test]
fn and_binds_closer_than_or_and_not_closer_than_both() {
    for (text, canonical) in [
        ("has(a)||has(b)&&has(c)", "(has(a) || (has(b) && has(c)))"),
        ("has(a)&&has(b)||has(c)", "((has(a) && has(b)) || has(c))"),
        ("!has(a)&&has(b)", "(!has(a) && has(b))"),
        ("!(has(a)&&has(b))", "!(has(a) && has(b))"),
    ] {
        assert_eq!(parse(text).canonical(), canonical);
    }
}

#[test]
fn errors_name_the_character_and_what_was_expected() {
    for (text, message) in [
        (
            "a == b",
            "selector, character 6: expected a quoted string, found \"b\"",
        ),
        (
            "has(a) &&",
            "selector, character 10: expected a label, has(), all(), global(), ! or (, found the end",
        ),
        (
            "é",
            "selector, character 1: expected a label, has(), all(), global(), ! or (, found \"é\"",
        ),
        (
            "a == 'é' x",
            "selector, character 10: expected &&, || or the end, found \"x\"",
        ),
        (
            "a == 'x",
            "selector, character 6: this string lacks its closing '",
        ),
        (
            "(has(a)",
            "selector, character 8: expected &&, || or ), found the end",
        ),
        (
            "a in {'x' 'y'}",
            "selector, character 11: expected , or }, found \"'y'}\"",
        ),
        (
            "a is 'x'",
            "selector, character 3: expected an operator (==, !=, in, not in, contains, starts with, ends with), \
             found \"is 'x'\"",
        ),
        ("a = 'x'", "selector, character 3: expected ==, found \"= 'x'\""),
        (
            "a == 'x'\n",
            "selector, character 9: expected a label, has(), all(), global(), ! or (, found \"\\n\"",
        ),
    ] {
        assert_eq!(refused(text).to_string(), message, "{text:?}");
    }
}

#[test]
fn label_names_end_at_their_bound() {
    let fits = "l".repeat(LABEL_MAX);
    parse(&format!("has({fits})"));
    let error = refused(&format!("has(a) && has({fits}l)"));
    assert_eq!(
        error,
        SelectorError::LabelTooLong {
            at: 15,
            length: LABEL_MAX + 1
        }
    );
}

#[test]
fn nesting_ends_at_its_bound() {
    let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(parse(&nested(DEPTH_MAX)).canonical(), "has(a)");
    assert_eq!(
        refused(&nested(DEPTH_MAX + 1)),
        SelectorError::TooDeep { at: DEPTH_MAX + 1 }
    );
    assert_eq!(
        refused(&"(".repeat(TEXT_MAX)),
        SelectorError::TooDeep { at: DEPTH_MAX + 1 }
    );
}

#[test]
fn parentheses_side_by_side_do_not_count_as_nesting() {
    let many = vec!["(has(a) || has(b))"; 4 * DEPTH_MAX].join(" && ");
    assert!(parse(&many).matches(&BTreeMap::from([("a", "")])));
}

#[test]
fn the_deepest_tree_is_matched_printed_and_dropped() {
    let text = (0..DEPTH_MAX).fold("has(a)".to_owned(), |inner, _| {
        format!("!(has(b) || has(c) && {inner})")
    });
    let selector = parse(&text);
    let labels = BTreeMap::from([("a".to_owned(), String::new()), ("c".to_owned(), String::new())]);
    assert_eq!(selector.matches(&labels), naive(selector.root(), &labels));
    assert!(selector.clone() == selector && selector.prefixed("p.").canonical().len() > text.len());
}

#[test]
fn text_ends_at_its_bound() {
    let text = " ".repeat(TEXT_MAX);
    assert_eq!(parse(&text), Selector::all());
    assert_eq!(
        refused(&format!("{text} ")),
        SelectorError::TooLong { length: TEXT_MAX + 1 }
    );
}

#[test]
fn the_inner_label_hides_the_outer_one() {
    struct Inherited<'a>(&'a BTreeMap<&'a str, &'a str>, &'a BTreeMap<&'a str, &'a str>);
    impl super::Labels for Inherited<'_> {
        fn label(&self, key: &str) -> Option<&str> {
            self.0.get(key).or_else(|| self.1.get(key)).copied()
        }
    }
    let (own, profile) = (
        BTreeMap::from([("a", "own")]),
        BTreeMap::from([("a", "profile"), ("b", "profile")]),
    );
    assert!(parse("a == 'own' && b == 'profile'").matches(&Inherited(&own, &profile)));
    assert!(!parse("a == 'profile'").matches(&Inherited(&own, &profile)));
}

#[test]
fn selectors_are_equal_when_their_canonical_texts_are() {
    assert_eq!(parse("a=='x'"), parse("( a == \"x\" )"));
    assert_ne!(parse("a=='x'"), parse("a != 'x'"));
    assert_eq!(
        parse("a in {'y','x','y'}").unique_id(),
        parse("a in {'x', 'y'}").unique_id()
    );
}

#[test]
fn a_name_with_both_kinds_of_quotes_is_refused_where_text_is_built_from_it() {
    let names = [r#"a'b"c"#.to_owned()];
    let entity = super::scope::Entity {
        service_accounts: &names,
        ..Default::default()
    };
    assert!(matches!(
        super::scope::rule_entity(entity),
        Err(SelectorError::Unquotable { .. })
    ));
}

/// Evaluation without any cleverness, as the table in the documentation reads.
fn naive(node: &Node, labels: &BTreeMap<String, String>) -> bool {
    match node {
        Node::All | Node::Global => true,
        Node::Has(label) => labels.keys().any(|key| **key == **label),
        Node::Compare { label, op, value } => match (labels.get(&**label), op) {
            (None, op) => *op == Compare::NotEqual,
            (Some(have), Compare::Equal) => **have == **value,
            (Some(have), Compare::NotEqual) => **have != **value,
            (Some(have), Compare::Contains) => {
                (0..=have.len()).any(|i| have.get(i..).is_some_and(|h| h.starts_with(&**value)))
            }
            (Some(have), Compare::StartsWith) => have.get(..value.len()) == Some(value),
            (Some(have), Compare::EndsWith) => have.strip_suffix(&**value).is_some(),
        },
        Node::Member { label, op, values } => match (labels.get(&**label), op) {
            (None, op) => *op == Membership::NotIn,
            (Some(have), Membership::In) => values.iter().any(|value| **value == **have),
            (Some(have), Membership::NotIn) => !values.iter().any(|value| **value == **have),
        },
        Node::Not(operand) => !naive(operand, labels),
        Node::And(operands) => operands.iter().filter(|o| !naive(o, labels)).count() == 0,
        Node::Or(operands) => operands.iter().filter(|o| naive(o, labels)).count() > 0,
    }
}

fn arb_label() -> impl Strategy<Value = Box<str>> {
    prop_oneof![Just("a"), Just("b"), Just("in"), Just("has"), Just("x/y-z.1_")].prop_map(Into::into)
}

fn arb_value() -> impl Strategy<Value = Box<str>> {
    prop_oneof![
        Just(""),
        Just("x"),
        Just("xy"),
        Just("y"),
        Just("it's"),
        Just("q\"q"),
        Just("é\n")
    ]
    .prop_map(Into::into)
}

/// Expressions as the parser makes them: no negation directly under another, groups of two or more.
fn arb_node() -> impl Strategy<Value = Node> {
    let compare = prop_oneof![
        Just(Compare::Equal),
        Just(Compare::NotEqual),
        Just(Compare::Contains),
        Just(Compare::StartsWith),
        Just(Compare::EndsWith)
    ];
    let membership = prop_oneof![Just(Membership::In), Just(Membership::NotIn)];
    let leaf = prop_oneof![
        Just(Node::All),
        Just(Node::Global),
        arb_label().prop_map(Node::Has),
        (arb_label(), compare, arb_value()).prop_map(|(label, op, value)| Node::Compare { label, op, value }),
        (arb_label(), membership, prop::collection::vec(arb_value(), 0..4))
            .prop_map(|(label, op, values)| Node::member(&label, op, values)),
    ];
    leaf.prop_recursive(4, 32, 3, |inner| {
        let many = prop::collection::vec(inner.clone(), 2..4).prop_map(Vec::into_boxed_slice);
        prop_oneof![
            inner.prop_map(|node| if matches!(node, Node::Not(_)) {
                node
            } else {
                Node::Not(Box::new(node))
            }),
            many.clone().prop_map(Node::And),
            many.prop_map(Node::Or),
        ]
    })
}

fn arb_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(
        arb_label().prop_map(String::from),
        arb_value().prop_map(String::from),
        0..5,
    )
}

/// Texts that are mostly made of the language's own words.
fn arb_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z!=&|(){},'\" ]{1,3}",
        prop::sample::select(vec![
            "has(", "all(", "global(", "(", ")", "{", "}", "!", "&&", "||", "==", "!=", "in", "not",
            "contains", "starts", "ends", "with", "'x'", "\"y\"", "a", " ", "\t", "\n", "é", ",",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn canonical_text_parses_to_the_same_expression(node in arb_node()) {
        let selector = Selector::new(node.clone());
        let again = Selector::parse(selector.canonical()).unwrap();
        prop_assert_eq!(again.root(), &node);
        prop_assert_eq!(again.canonical(), selector.canonical());
    }

    #[test]
    fn matching_equals_the_naive_evaluation(node in arb_node(), labels in arb_labels()) {
        prop_assert_eq!(Selector::new(node.clone()).matches(&labels), naive(&node, &labels));
    }

    #[test]
    fn labels_that_match_meet_every_restriction(node in arb_node(), labels in arb_labels()) {
        let selector = Selector::new(node);
        if selector.matches(&labels) {
            for (label, restriction) in selector.restrictions() {
                let have = labels.get(label).map(String::as_str);
                prop_assert!(restriction.satisfiable());
                prop_assert!(!restriction.present || have.is_some());
                prop_assert!(!restriction.absent || have.is_none());
                prop_assert!(restriction.one_of.is_none_or(|values: BTreeSet<&str>| have.is_some_and(|have| values.contains(have))));
            }
        }
    }

    #[test]
    fn prefixing_moves_every_label_and_nothing_else(node in arb_node(), labels in arb_labels()) {
        let selector = Selector::new(node);
        let moved: BTreeMap<String, String> = labels.iter().map(|(k, v)| (format!("pcns.{k}"), v.clone())).collect();
        prop_assert_eq!(selector.prefixed("pcns.").matches(&moved), selector.matches(&labels));
    }

    #[test]
    fn any_text_is_answered_and_what_is_accepted_prints_to_an_equivalent(text in arb_text(), labels in arb_labels()) {
        if let Ok(selector) = Selector::parse(&text) {
            let again = Selector::parse(selector.canonical()).unwrap();
            prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
            prop_assert!(selector.canonical().len() <= 8 * text.len() + 5);
        }
    }
}

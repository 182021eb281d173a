use super::*;

#[test]
fn static_table_reads_as_reviewed() {
    insta::assert_snapshot!(table(&BaseConfig::default()));
}

#[test]
fn every_chain_and_set_that_is_named_exists() {
    let table = table(&BaseConfig::default());
    assert_eq!(table.dangling(), Vec::<Name>::new());
    let mut broken = table.clone();
    broken.chains.remove(&Name::fixed(TO_HOST));
    assert_eq!(broken.dangling(), [Name::fixed(TO_HOST)]);
}

#[test]
fn each_prefix_is_closed_in_every_direction() {
    let prefixes = vec![IfName::fixed("cali"), IfName::fixed("tap")];
    let text = table(&BaseConfig {
        prefixes,
        ..BaseConfig::default()
    })
    .to_string();
    for prefix in ["cali", "tap"] {
        assert_eq!(
            text.matches(&format!("iifname \"{prefix}*\" goto anti_spoof"))
                .count(),
            1
        );
        assert_eq!(
            text.matches(&format!("oifname \"{prefix}*\" oifname != @workloads drop"))
                .count(),
            2
        );
    }
}

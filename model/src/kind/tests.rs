use super::*;

#[test]
fn all_names_plurals_and_aliases_lead_to_one_kind_in_any_case() {
    for kind in Kind::ALL {
        assert_eq!(format!("{kind:?}").to_lowercase(), kind.as_str().to_lowercase());
        for text in [kind.as_str(), kind.plural()].iter().chain(kind.aliases()) {
            assert_eq!(text.parse(), Ok(kind), "{text}");
            assert_eq!(text.to_uppercase().parse(), Ok(kind), "{text}");
        }
        assert_eq!(Kind::from_plural(kind.plural()), Some(kind));
        assert_eq!(kind.plural(), kind.plural().to_lowercase());
    }
    assert!(Kind::ALL.is_sorted_by_key(|kind| kind.as_str().to_lowercase()));
}

#[test]
fn an_unknown_kind_is_named() {
    assert_eq!(
        "pods".parse::<Kind>().unwrap_err().to_string(),
        "resource type \"pods\" is not known"
    );
    assert_eq!(Kind::from_plural("BGPFilters"), None);
}

#[test]
fn an_objects_kind_is_read_exactly() {
    assert_eq!(serde_json::from_str::<Kind>("\"IPPool\"").unwrap(), Kind::IpPool);
    assert!(serde_json::from_str::<Kind>("\"ippool\"").is_err());
}

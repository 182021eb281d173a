//! What names look like.

use std::net::IpAddr;

/// Most bytes of a name.
pub const NAME_BYTES_MAX: usize = 253;
/// Most bytes of a label of a DNS name, of the value of a Kubernetes label, and of the name part of its key.
pub const LABEL_BYTES_MAX: usize = 63;
/// What [`is_subdomain`] wants, for people.
pub const SUBDOMAIN: &str =
    "a name: lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit";

fn ends_alphanumeric(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.into_iter()
        .all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
}

fn consists_of(text: &str, more: &[u8]) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_uppercase())
}

/// A label of a DNS name in lower case (RFC 1123), of any length.
#[must_use]
pub fn is_label(text: &str) -> bool {
    ends_alphanumeric(text) && consists_of(text, b"-") && is_lower(text)
}

/// Labels joined by dots.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// The name of a container: as a label, but in any case.
#[must_use]
pub fn is_container_id(text: &str) -> bool {
    ends_alphanumeric(text) && consists_of(text, b"-")
}

/// The name of a network interface: at most 15 of letters, digits and `_.-`, or `*`.
#[must_use]
pub fn is_interface(text: &str) -> bool {
    text == "*" || (1..=15).contains(&text.len()) && consists_of(text, b"_.-")
}

/// A pattern of names of network interfaces, but not `*` alone.
#[must_use]
pub fn is_interface_pattern(text: &str) -> bool {
    text != "*" && (1..=15).contains(&text.len()) && consists_of(text, b"_.*-")
}

/// The key of a label: a name of at most 63 bytes, perhaps after a DNS prefix and a slash.
#[must_use]
pub fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let named = ends_alphanumeric(name) && consists_of(name, b"-_.") && name.len() <= LABEL_BYTES_MAX;
    named && prefix.is_none_or(|prefix| prefix.len() <= NAME_BYTES_MAX && is_subdomain(prefix))
}

/// The value of a label: empty, or at most 63 bytes of a name.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || ends_alphanumeric(text) && consists_of(text, b"-_.") && text.len() <= LABEL_BYTES_MAX
}

/// The name of a port (RFC 6335 section 5.1): at most 15 of lower-case letters, digits and single dashes, with a
/// letter.
#[must_use]
pub fn is_port_name(text: &str) -> bool {
    text.len() <= 15 && is_label(text) && !text.contains("--") && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// An address of one IP version. What maps IPv4 into IPv6 is of neither.
#[must_use]
pub fn is_address(text: &str, v4: bool) -> bool {
    text.parse()
        .is_ok_and(|addr: IpAddr| addr.is_ipv4() == v4 && addr.to_canonical() == addr)
}

/// The host part of a URL, loosely: what Calico takes for the address of its metrics.
#[must_use]
pub fn is_metrics_host(text: &str) -> bool {
    (1..=64).contains(&text.len()) && consists_of(text, b":._+-")
}

/// A MAC address of six octets, joined by colons or dashes.
#[must_use]
pub fn is_mac(text: &str) -> bool {
    parse_mac(text).is_some()
}

/// The octets of a MAC address that is written with colons or dashes.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let octet = |part: &str| match part.len() {
        2 if part.bytes().all(|b| b.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
        _ => None,
    };
    let octets: Option<Vec<u8>> = text.split(separator).map(octet).collect();
    octets?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(test(text), "{text:?}");
        }
        for text in bad {
            assert!(!test(text), "{text:?}");
        }
    }

    #[test]
    fn names_are_what_kubernetes_takes() {
        check(
            is_label,
            &["a", "a-1", "1"],
            &["", "-a", "a-", "A", "a.b", "a_b", "ä"],
        );
        check(is_subdomain, &["a", "a.b-1"], &["", ".a", "a.", "a..b", "a.B"]);
        check(is_container_id, &["aB-1"], &["", "a_", "-a"]);
        check(
            is_label_key,
            &["a", "A_1.b", "k8s.io/Name"],
            &["", "/a", "a/", "A.b/c", "a/b/c", "-a"],
        );
        check(is_label_value, &["", "A_1", "a.b"], &["-a", "a b", "a/b"]);
        assert!(is_label_value(&"a".repeat(63)) && !is_label_value(&"a".repeat(64)));
    }

    #[test]
    fn ports_interfaces_and_macs_have_names_of_their_own() {
        check(
            is_port_name,
            &["http", "h-1"],
            &["", "123", "a--b", "-a", "HTTP", "sixteen-letters-"],
        );
        check(
            is_interface,
            &["*", "eth0.5", "a_b-c"],
            &["", "eth0*", "a/b", "sixteencharacters"],
        );
        check(is_interface_pattern, &["eth*"], &["*", ""]);
        check(
            is_mac,
            &["ee:EE:ee:ee:ee:00", "ee-ee-ee-ee-ee-ee"],
            &["", "ee:ee", "eg:ee:ee:ee:ee:ee", "+e:ee:ee:ee:ee:ee"],
        );
    }
}

//! What may be created, against the verdicts of Calico's own client.

use serde::Deserialize;
use serde_json::Value;
use twill_model::change::{self, Birth};
use twill_model::resources::FelixConfigurationSpec;
use twill_model::{AnyResource, Kind};

#[derive(Deserialize)]
struct Recorded {
    verdicts: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    object: Value,
    accepted: bool,
    #[serde(default)]
    error: String,
}

/// What creating the object answers here: refused with a reason, or what would be stored.
fn create(object: &Value) -> Result<AnyResource, String> {
    create_as(
        object,
        &birth("88aa3be9-e59e-4192-8d55-7806f7160dc4", "2026-06-24T18:32:35Z"),
    )
}

fn create_as(object: &Value, birth: &Birth) -> Result<AnyResource, String> {
    let kind: Kind = object["kind"]
        .as_str()
        .unwrap_or_default()
        .parse()
        .map_err(|e| format!("{e}"))?;
    let resource = AnyResource::decode(kind, object.to_string().as_bytes()).map_err(|e| e.to_string())?;
    let unknown = resource.unknown_fields();
    if !unknown.is_empty() {
        return Err(format!("unknown fields {unknown:?}"));
    }
    change::create(&resource, birth).map_err(|e| e.to_string())
}

fn birth(uid: &str, at: &str) -> Birth {
    Birth {
        uid: uid.to_owned(),
        at: at.parse().expect("a time"),
    }
}

/// Of FelixConfiguration, Twill reads the fields that it obeys and passes the others through unread, where they stood.
fn is_passed_through(object: &Value) -> bool {
    let spec = object["spec"].as_object();
    object["kind"] == "FelixConfiguration"
        && spec.is_some_and(|spec| {
            spec.keys()
                .any(|field| FelixConfigurationSpec::PASSED_THROUGH.contains(&&**field))
        })
}

/// Who is stricter.
#[derive(Clone, Copy, PartialEq)]
enum Stricter {
    Twill,
    Calico,
}

/// Where Twill decides otherwise on purpose: what the object's text holds, and why.
const DELIBERATE: &[(Stricter, &str, &str)] = &[
    (
        Stricter::Twill,
        r#":"""#,
        "an empty text is no value: leave the field out",
    ),
    (
        Stricter::Twill,
        r#":[""]"#,
        "an empty text is no value: leave it out",
    ),
    (Stricter::Twill, "/024", "a prefix length has no leading zero"),
    (Stricter::Twill, "::ffff:", "IPv4 is not written as IPv6"),
    (
        Stricter::Twill,
        r#""metadata":{"name":"node-1"}}"#,
        "a spec must be written",
    ),
    (
        Stricter::Twill,
        r#""metadata":{"name":"p"}}"#,
        "a spec must be written",
    ),
    (
        Stricter::Twill,
        "6611.2233.4455",
        "no MAC address in groups of four",
    ),
    (Stricter::Twill, "fe:80:00:00", "no address of eight octets"),
    (Stricter::Twill, ":66:77", "no address of eight octets"),
    (Stricter::Twill, r#""address":"x""#, "no address"),
    (
        Stricter::Twill,
        r#""type":"Other""#,
        "no type of address that anything knows",
    ),
    (
        Stricter::Twill,
        r#""communities":[]}"#,
        "an advertisement that adds nothing",
    ),
    (
        Stricter::Twill,
        r#""kind":"BGPPeer","metadata":{"name":"p"},"spec":{}"#,
        "a peer without address",
    ),
    (
        Stricter::Twill,
        r#""kind":"BGPPeer","metadata":{"name":"p"},"spec":{"asNumber":1}"#,
        "a peer without address",
    ),
    (Stricter::Twill, "[192.0.2.1]:179", "brackets are for IPv6"),
    (Stricter::Twill, r#""ipipMTU":-1"#, "out of range"),
    (Stricter::Twill, r#""vxlanMTU":-1"#, "out of range"),
    (Stricter::Twill, r#"Port":-1"#, "out of range"),
    (Stricter::Twill, r#"Port":65536"#, "out of range"),
    (Stricter::Twill, r#""vxlanVNI":-1"#, "out of range"),
    (Stricter::Twill, r#""deviceRouteProtocol":-1"#, "out of range"),
    (Stricter::Twill, r#""deviceRouteProtocol":256"#, "out of range"),
    (
        Stricter::Twill,
        r#""protocol":"ICMP","port":22"#,
        "ICMP has no ports",
    ),
    (Stricter::Twill, r#""net":"x""#, "no prefix"),
    (
        Stricter::Twill,
        r#""namespace":"Prod""#,
        "no namespace can have that name",
    ),
    (
        Stricter::Twill,
        r#""kind":"GlobalNetworkPolicy","metadata":{"name":"p","namespace""#,
        "a global policy has no namespace",
    ),
    (
        Stricter::Twill,
        r#""metadata":{"name":"r"}}"#,
        "a spec must be written",
    ),
    (
        Stricter::Twill,
        r#""metadata":{"name":"default"}}"#,
        "a spec must be written",
    ),
    (
        Stricter::Twill,
        r#""metadata":{"name":"p","namespace":"prod"}}"#,
        "a spec must be written",
    ),
    (
        Stricter::Twill,
        r#""kind":"HostEndpoint","metadata":{"name":"h","namespace""#,
        "a host endpoint has no namespace",
    ),
    (
        Stricter::Twill,
        r#""kind":"StagedGlobalNetworkPolicy","metadata":{"name":"p","namespace""#,
        "a global policy has no namespace",
    ),
    (Stricter::Twill, r#""classes":[]"#, "a question that asks nothing"),
    (
        Stricter::Calico,
        r#""state":"x""#,
        "not checked: the status is not the user's",
    ),
    (
        Stricter::Calico,
        r#""type":"x""#,
        "not checked: the status is not the user's",
    ),
    (Stricter::Calico, "EnabledIPIPOnly", "a value of 3.33"),
    (Stricter::Calico, "EnabledNoEncapOnly", "a value of 3.33"),
    (
        Stricter::Calico,
        r#"rotocol":"tcp""#,
        "read in any case, stored as TCP",
    ),
    (
        Stricter::Calico,
        r#"rotocol":"Tcp""#,
        "read in any case, stored as TCP",
    ),
    (
        Stricter::Calico,
        r#"rotocol":"icmpv6""#,
        "read in any case, stored as ICMPv6",
    ),
    (
        Stricter::Calico,
        r#""tier":"missing""#,
        "needs the store: whoever writes checks it",
    ),
    (
        Stricter::Calico,
        r#""tier":"a.b""#,
        "needs the store: whoever writes checks it",
    ),
    (
        Stricter::Calico,
        "mtuIfacePattern",
        "not checked: Go's regular expressions",
    ),
    (
        Stricter::Calico,
        "wireguardPublicKey",
        "not checked: the status is not the user's",
    ),
];

#[test]
fn it_accepts_and_refuses_what_calico_does() {
    let recorded: Recorded = serde_json::from_str(include_str!("v3.32.1/validation.json")).unwrap();
    let mut wrong = Vec::new();
    let mut used = vec![false; DELIBERATE.len()];
    for verdict in recorded
        .verdicts
        .iter()
        .filter(|verdict| !is_passed_through(&verdict.object))
    {
        let (stricter, why) = match create(&verdict.object) {
            Ok(_) if !verdict.accepted => (Stricter::Calico, &verdict.error),
            Err(ref error) if verdict.accepted => (Stricter::Twill, &error.clone()),
            _ => continue,
        };
        let text = verdict.object.to_string();
        let known = DELIBERATE
            .iter()
            .position(|(who, part, _)| *who == stricter && text.contains(part));
        match known {
            Some(at) => used[at] = true,
            None => {
                let who = if stricter == Stricter::Twill {
                    "only we refuse"
                } else {
                    "only Calico refuses"
                };
                wrong.push(format!("{who}: {why}\n  {text}"));
            }
        }
    }
    let all = recorded.verdicts.len();
    assert!(all > 2500, "the recording is whole");
    assert!(
        wrong.is_empty(),
        "{} of {all} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    for ((_, part, why), used) in DELIBERATE.iter().zip(used) {
        assert!(used, "{part} ({why}) is no difference any more");
    }
}

#[test]
fn it_would_notice_a_wrong_verdict() {
    let right = serde_json::json!({"kind": "Tier", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "t"}, "spec": {}});
    let mut wrong = right.clone();
    wrong["spec"]["defaultAction"] = "Allow".into();
    assert!(create(&right).is_ok() && create(&wrong).is_err());
}

/// An object as it was given, and as Calico stored it.
#[derive(Deserialize)]
struct Stored {
    object: Value,
    key: String,
    stored: String,
}

#[test]
fn it_stores_the_bytes_that_calico_stores() {
    let recorded: Vec<Stored> = serde_json::from_str(include_str!("v3.32.1/stored.json")).unwrap();
    assert!(recorded.len() > 300, "the recording is whole");
    let mut wrong = Vec::new();
    let mut same = 0;
    for it in recorded.iter().filter(|it| !is_passed_through(&it.object)) {
        let calico: Value = serde_json::from_str(&it.stored).unwrap();
        let metadata = &calico["metadata"];
        let birth = birth(
            metadata["uid"].as_str().unwrap(),
            metadata["creationTimestamp"].as_str().unwrap(),
        );
        // What Twill refuses on purpose is told above.
        let Ok(ours) = create_as(&it.object, &birth) else {
            continue;
        };
        let bytes = String::from_utf8(ours.encode()).unwrap();
        if bytes == it.stored && ours.key().path() == it.key {
            same += 1;
        } else {
            wrong.push(format!(
                "{}\n  Calico {} {}\n  ours   {} {bytes}",
                it.object,
                it.key,
                it.stored,
                ours.key().path()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(same > 300, "only {same} could be compared");
}

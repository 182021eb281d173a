//! Incidents and CVEs of BGP speakers in the field, each trigger sent to a peer's FSM with the speaker behind it. The session
//! stays or ends as the RFCs say, a session that ended comes back, a sound route still arrives, and what other peers are sent
//! is lawful.

mod cases;
mod octets;
mod world;

use cases::cases;
use octets::{NLRI, along, message, path};
use twill_bgp::wire::as_path;
use twill_bgp::wire::header::MessageType;
use world::{play, still_works};

const OWN: u32 = 65000;
const THEIR: u16 = 65001;

/// What becomes of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It stays; the route of the message is passed on to the next peer, or is not.
    Stays(Passed),
    /// We end it with this code and subcode.
    Reset(u8, u8),
    /// The peer's own NOTIFICATION ends it.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Yes,
    No,
}

const PASSED: Fate = Fate::Stays(Passed::Yes);
const WITHHELD: Fate = Fate::Stays(Passed::No);

/// What the attacker says.
enum Trigger {
    /// The optional parameters of its OPEN.
    Open(Vec<u8>),
    /// A message on an established session of speakers with four-octet AS numbers.
    Message(Vec<u8>),
    /// The same between a two-octet speaker and us.
    TwoOctets(Vec<u8>),
}

use Trigger::{Message, TwoOctets};

/// What happened where, what it takes, and what becomes of it here.
type Case = (&'static str, Trigger, Fate);

#[test]
fn every_trigger_of_an_incident_is_harmless() {
    let mut wrong = Vec::new();
    for (id, trigger, expected) in cases() {
        let (fate, mut world) = play(&trigger);
        if fate != expected {
            wrong.push(format!("{id}: {fate:?} instead of {expected:?}"));
        }
        still_works(&mut world);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_long_path_is_passed_on_whole() {
    let (_, world) = play(&along(&path(999)));
    let passed = world.bystander_has(NLRI).unwrap();
    assert_eq!(as_path::length(&passed), 1000);
    assert_eq!(as_path::first(&passed), Some(OWN));
}

/// The negative twin: a speaker that lets a session die, or that passes nothing on, is told from one that does not.
#[test]
fn harm_would_be_noticed() {
    let (fate, mut world) = play(&Message(message(MessageType::Update, &[0])));
    assert_eq!(fate, Fate::Reset(1, 2));
    world.bystander = world.attacker;
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| still_works(&mut world))).is_err());
}

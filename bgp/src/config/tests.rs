use super::*;
use crate::family::Families;
use crate::policy::Policy;
use std::net::IpAddr;

fn config(change: impl FnOnce(&mut PeerConfig)) -> Config {
    let mut peer = PeerConfig::new(Ipv4Addr::new(192, 0, 2, 1).into(), 65001);
    change(&mut peer);
    Config {
        peers: vec![peer],
        ..Config::new(65000, Ipv4Addr::new(192, 0, 2, 2))
    }
}

#[test]
fn what_no_session_could_live_with_is_refused() {
    let peer = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(config(|_| ()).check(), Ok(()));
    assert_eq!(
        config(|p| p.timers.hold_secs = 2).check(),
        Err(ConfigError::HoldTime { peer, secs: 2 })
    );
    assert_eq!(config(|p| p.timers.hold_secs = 0).check(), Ok(()));
    assert_eq!(
        config(|p| p.families = Families::NONE).check(),
        Err(ConfigError::NoFamily(peer))
    );
    assert_eq!(
        config(|p| p.route_reflector_client = true).check(),
        Err(ConfigError::ExternalClient(peer))
    );
    assert_eq!(
        config(|p| p.graceful_restart.restart_secs = 4096).check(),
        Err(ConfigError::RestartTime { peer, secs: 4096 })
    );
    assert!(matches!(
        config(|p| p.asn = PeerAs::Number(0)).check(),
        Err(ConfigError::ReservedAsn { .. })
    ));
    // Who may have any number but ours is no client; who has ours may be one.
    let client = |asn| move |p: &mut PeerConfig| (p.asn, p.route_reflector_client) = (asn, true);
    assert_eq!(
        config(client(PeerAs::External)).check(),
        Err(ConfigError::ExternalClient(peer))
    );
    assert_eq!(config(client(PeerAs::Internal)).check(), Ok(()));
    let mut twice = config(|_| ());
    twice.peers.push(twice.peers[0].clone());
    assert_eq!(twice.check(), Err(ConfigError::DuplicatePeer(peer)));
}

#[test]
fn only_what_the_session_carries_needs_a_reset() {
    let old = config(|_| ()).peers.remove(0);
    let reset = |change: fn(&mut PeerConfig)| old.needs_reset(&config(change).peers[0]);
    assert!(!reset(|_| ()));
    assert!(!reset(|p| p.export = Policy::reject_all()));
    assert!(!reset(|p| p.description = "tor".into()));
    assert!(reset(|p| p.asn = PeerAs::Number(65002)));
    assert!(reset(|p| p.timers.hold_secs = 30));
    assert!(reset(|p| p.families = Families::BOTH));
}

#[test]
fn a_secret_does_not_print_itself() {
    assert_eq!(format!("{:?}", Secret("hunter2".into())), "Secret(..)");
}

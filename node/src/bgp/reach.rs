//! How the speaker's next hops are reached: asked of felix, told to the speaker, whenever either changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use twill_bgp::Reach;
use twill_bgp::net::Handle;
use twill_felix::kernel;

/// Carries questions one way and answers the other. Ends when the speaker or felix does.
pub(super) async fn follow(speaker: Handle, kernel: kernel::Handle) {
    let mut wanted = speaker.next_hops();
    let mut status = kernel.watch();
    loop {
        kernel.track(Arc::clone(&wanted.borrow_and_update()));
        // An address that was forgotten and asked for again between two looks must be spoken of again.
        let mut told = Arc::default();
        loop {
            let now = Arc::clone(&status.borrow_and_update().reach);
            if !Arc::ptr_eq(&told, &now) {
                let news = news(&told, &now);
                if !news.is_empty() && speaker.next_hops_reached(news).await.is_err() {
                    return;
                }
                told = now;
            }
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                changed = status.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }
}

/// What felix says now and did not say before.
pub(crate) fn news(
    before: &BTreeMap<IpAddr, kernel::Reach>,
    now: &BTreeMap<IpAddr, kernel::Reach>,
) -> BTreeMap<IpAddr, Reach> {
    now.iter()
        .filter(|(address, reach)| before.get(*address) != Some(*reach))
        .map(|(address, reach)| (*address, speak(reach)))
        .collect()
}

fn speak(reach: &kernel::Reach) -> Reach {
    match reach {
        kernel::Reach::OnLink(link) => Reach::OnLink { link: *link },
        kernel::Reach::Via(links) => Reach::Via { links: links.clone() },
        kernel::Reach::Unreached(_) => Reach::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told_and_what_went_unasked_is_told_again() {
        let at = |address: &str, reach: kernel::Reach| (address.parse::<IpAddr>().unwrap(), reach);
        let on_link = || at("172.31.0.2", kernel::Reach::OnLink(3));
        let before = BTreeMap::from([
            on_link(),
            at("172.31.1.1", kernel::Reach::Unreached("no route".into())),
        ]);
        let now = BTreeMap::from([on_link(), at("172.31.1.1", kernel::Reach::Via(vec![3]))]);
        let said = news(&before, &now);
        assert_eq!(
            said,
            BTreeMap::from([("172.31.1.1".parse().unwrap(), Reach::Via { links: vec![3] })])
        );
        assert!(news(&now, &now).is_empty());
        assert_eq!(news(&BTreeMap::new(), &now).len(), 2);
        let withheld = kernel::Reach::Unreached("no route".into());
        assert_eq!(speak(&withheld), Reach::Unreachable);
    }
}

//! All cases, by what they are about.
#![expect(clippy::too_many_lines, reason = "a table has a line or more for each case")]

mod attributes;
mod decision;
mod fsm;
mod guards;
mod header;
mod lists;
mod load;
mod multiprotocol;
mod open;
mod optional;
mod refresh;
mod restart;
mod routes;
mod timers;
mod wide;

use crate::case::Case;

pub(crate) fn all() -> Vec<Case> {
    [
        header::cases(),
        open::cases(),
        fsm::cases(),
        attributes::cases(),
        optional::cases(),
        lists::cases(),
        multiprotocol::cases(),
        routes::cases(),
        decision::cases(),
        wide::cases(),
        refresh::cases(),
        restart::cases(),
        guards::cases(),
        timers::cases(),
        load::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_case_has_a_name_of_its_own_and_a_basis() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|c| !c.basis.is_empty()));
        assert!(all.len() >= 236, "{}", all.len());
    }
}

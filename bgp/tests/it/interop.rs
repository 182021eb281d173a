//! One table: BIRD, FRR, GoBGP and OpenBGPD, and the cases of [`cases`] that are proved with each. A daemon that is missing is a
//! failure.

mod cases;
mod theirs;

use theirs::Kind;

/// A module a daemon, a test a case.
macro_rules! table {
    ($($daemon:ident = $kind:expr, [$($case:ident),* $(,)?];)*) => { $(
        mod $daemon {
            use super::{Kind, cases};

            $( #[tokio::test]
            async fn $case() {
                cases::$case($kind).await;
            } )*
        }
    )* };
}

table! {
    bird = Kind::Bird, [
        external_sessions_carry_routes_and_communities_both_ways,
        internal_sessions_carry_local_pref,
        a_key_must_be_the_same_at_both_ends,
        it_keeps_our_routes_over_our_restart,
        we_keep_its_routes_over_its_restart,
        too_many_prefixes_end_the_session,
        we_reflect_for_it_and_it_for_us,
        equal_paths_are_used_together,
    ];
    frr = Kind::Frr, [
        external_sessions_carry_routes_and_communities_both_ways,
        internal_sessions_carry_local_pref,
        a_key_must_be_the_same_at_both_ends,
        it_keeps_our_routes_over_our_restart,
        we_keep_its_routes_over_its_restart,
        too_many_prefixes_end_the_session,
        equal_paths_are_used_together,
    ];
    gobgp = Kind::GoBgp, [
        external_sessions_carry_routes_and_communities_both_ways,
        internal_sessions_carry_local_pref,
        a_key_must_be_the_same_at_both_ends,
        we_keep_its_routes_over_its_restart,
        too_many_prefixes_end_the_session,
        we_reflect_for_it_and_it_for_us,
    ];
    openbgpd = Kind::OpenBgpd, [
        external_sessions_carry_routes_and_communities_both_ways,
        internal_sessions_carry_local_pref,
        we_keep_its_routes_over_its_restart,
        too_many_prefixes_end_the_session,
        we_reflect_for_it_and_it_for_us,
        equal_paths_are_used_together,
    ];
}

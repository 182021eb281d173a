//! One table: BIRD, FRR, GoBGP and OpenBGPD, and the cases of [`cases`] that are proved with each. A daemon that is missing is a
//! failure.

mod cases;
mod features;
mod theirs;

use theirs::Kind;

/// A module a daemon, a test a case.
macro_rules! table {
    ($($daemon:ident = $kind:expr, [$($case:ident),* $(,)?], [$($feature:ident),* $(,)?];)*) => { $(
        mod $daemon {
            use super::{Kind, cases, features};

            $( #[tokio::test]
            async fn $case() {
                cases::$case($kind).await;
            } )*

            $( #[tokio::test]
            async fn $feature() {
                features::$feature($kind).await;
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
    ], [
        near_peers_agree_on_ttl_security_and_far_ones_are_refused,
        several_paths_a_prefix_go_both_ways,
        stale_routes_outlive_the_restart_time_both_ways,
        a_soft_reset_is_an_enhanced_refresh_both_ways,
        ipv4_goes_over_ipv6_next_hops,
    ];
    frr = Kind::Frr, [
        external_sessions_carry_routes_and_communities_both_ways,
        internal_sessions_carry_local_pref,
        a_key_must_be_the_same_at_both_ends,
        it_keeps_our_routes_over_our_restart,
        we_keep_its_routes_over_its_restart,
        too_many_prefixes_end_the_session,
        we_reflect_for_it_and_it_for_us,
        equal_paths_are_used_together,
    ], [
        near_peers_agree_on_ttl_security_and_far_ones_are_refused,
        several_paths_a_prefix_go_both_ways,
        a_soft_reset_is_an_enhanced_refresh_both_ways,
        ipv4_goes_over_ipv6_next_hops,
    ];
    gobgp = Kind::GoBgp, [
        external_sessions_carry_routes_and_communities_both_ways,
        internal_sessions_carry_local_pref,
        a_key_must_be_the_same_at_both_ends,
        it_keeps_our_routes_over_our_restart,
        we_keep_its_routes_over_its_restart,
        too_many_prefixes_end_the_session,
        we_reflect_for_it_and_it_for_us,
        equal_paths_are_used_together,
    ], [
        near_peers_agree_on_ttl_security_and_far_ones_are_refused,
        several_paths_a_prefix_go_both_ways,
        stale_routes_outlive_the_restart_time_both_ways,
    ];
    openbgpd = Kind::OpenBgpd, [
        external_sessions_carry_routes_and_communities_both_ways,
        internal_sessions_carry_local_pref,
        a_key_must_be_the_same_at_both_ends,
        it_keeps_our_routes_over_our_restart,
        we_keep_its_routes_over_its_restart,
        too_many_prefixes_end_the_session,
        we_reflect_for_it_and_it_for_us,
        equal_paths_are_used_together,
    ], [
        near_peers_agree_on_ttl_security_and_far_ones_are_refused,
    ];
}

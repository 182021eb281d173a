//! IPReservation: addresses that are never assigned unasked.

use crate::go::go_struct;
use crate::net::Net;
use crate::resource::Resource;

/// Addresses that are never assigned unasked; those assigned already stay.
pub type IpReservation = Resource<IpReservationSpec>;

go_struct! {
    /// Which addresses.
    #[derive(Default)]
    pub struct IpReservationSpec {
        /// Prefixes and bare addresses. Host bits are not looked at.
        pub reserved_cidrs: Vec<Net> = "reservedCIDRs" omitempty,
    }
}

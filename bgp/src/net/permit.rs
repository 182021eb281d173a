//! A place in the RIB task's queue: wanted, waited for in line, held, used.

use super::peer_task::{PeerEvent, PeerEvents};
use crate::rib::PeerId;
use std::future::Future;
use std::pin::Pin;
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::mpsc::{OwnedPermit, Sender};

type Granted = Result<OwnedPermit<PeerEvents>, SendError<()>>;

/// At most one place. One that is waited for keeps its turn, whatever else happens meanwhile.
pub(super) enum Permit {
    /// None is wanted.
    None,
    /// It will come.
    Waiting(Pin<Box<dyn Future<Output = Granted> + Send>>),
    /// Here it is.
    Held(OwnedPermit<PeerEvents>),
    /// The RIB task is gone.
    Closed,
}

impl Permit {
    /// Takes a place if one is free, and else a turn in the line.
    pub(super) fn want(&mut self, rib: &Sender<PeerEvents>) {
        if !matches!(self, Self::None) {
            return;
        }
        *self = match rib.clone().try_reserve_owned() {
            Ok(permit) => Self::Held(permit),
            Err(TrySendError::Full(rib)) => Self::Waiting(Box::pin(rib.reserve_owned())),
            Err(TrySendError::Closed(_)) => Self::Closed,
        };
    }

    /// Waits until the place is there; `false` if it never will be. For ever where nothing is waited for.
    pub(super) async fn granted(&mut self) -> bool {
        match self {
            Self::Waiting(granted) => match granted.await {
                Ok(permit) => *self = Self::Held(permit),
                Err(_) => return false,
            },
            Self::Closed => return false,
            Self::None | Self::Held(_) => std::future::pending().await,
        }
        true
    }

    /// Hands these events over, if a place is held.
    pub(super) fn send(&mut self, peer: PeerId, events: &mut Vec<PeerEvent>) {
        match std::mem::replace(self, Self::None) {
            Self::Held(permit) => drop(permit.send((peer, std::mem::take(events)))),
            other => *self = other,
        }
    }
}

//! etcd's and gRPC's errors as ours: above all, whether the write may have happened.

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

use crate::{Commit, StoreError};

pub(super) fn store_error(error: Error) -> StoreError {
    match error {
        Error::GRpcStatus(status) => from_status(&status),
        Error::TransportError(error) => {
            let commit = if is_connect_error(&error) {
                Commit::No
            } else {
                Commit::Unknown
            };
            StoreError::Unavailable {
                reason: describe(&error),
                commit,
            }
        }
        Error::InvalidArgs(reason) => StoreError::Invalid { reason },
        Error::InvalidUri(error) => StoreError::invalid(error.to_string()),
        Error::IoError(error) => StoreError::Unavailable {
            reason: error.to_string(),
            commit: Commit::Unknown,
        },
        // The watch's own stream of requests has closed: its connection is gone.
        Error::WatchError(reason) => StoreError::Unavailable {
            reason,
            commit: Commit::No,
        },
        other => StoreError::Other {
            reason: other.to_string(),
            commit: Commit::Unknown,
        },
    }
}

fn from_status(status: &Status) -> StoreError {
    let reason = status.message().to_owned();
    match status.code() {
        Code::Unavailable if is_connect_error(status) => StoreError::Unavailable {
            reason: describe(status),
            commit: Commit::No,
        },
        // A broken connection, no leader, a proposal that the raft group did not answer in time.
        Code::Unavailable | Code::Cancelled | Code::Aborted => StoreError::Unavailable {
            reason,
            commit: Commit::Unknown,
        },
        // hyper's words for a connection that broke under the call.
        Code::Unknown | Code::Internal if reason.contains("transport") || reason.contains("h2 protocol") => {
            StoreError::Unavailable {
                reason: describe(status),
                commit: Commit::Unknown,
            }
        }
        Code::DeadlineExceeded => StoreError::Unavailable {
            reason,
            commit: Commit::Unknown,
        },
        Code::OutOfRange if reason.contains("compacted") => StoreError::Compacted { oldest: None },
        // tonic's refusal to decode a reply.
        Code::OutOfRange if reason.contains("too large") => StoreError::TooLarge {
            reason,
            commit: Commit::Unknown,
        },
        Code::InvalidArgument if reason.contains("too large") || reason.contains("too many operations") => {
            StoreError::TooLarge {
                reason,
                commit: Commit::No,
            }
        }
        Code::ResourceExhausted if reason.contains("larger than max") => StoreError::TooLarge {
            reason,
            commit: Commit::No,
        },
        // The quota is used up, or the server sheds load: refused before it was proposed.
        Code::ResourceExhausted => StoreError::Other {
            reason,
            commit: Commit::No,
        },
        Code::Unauthenticated | Code::PermissionDenied => StoreError::Auth { reason },
        Code::InvalidArgument | Code::FailedPrecondition
            if reason.contains("auth") || reason.contains("user") =>
        {
            StoreError::Auth { reason }
        }
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::FailedPrecondition => {
            StoreError::Invalid { reason }
        }
        _ => StoreError::Other {
            reason,
            commit: Commit::Unknown,
        },
    }
}

/// True if the call failed because no connection could be made: nothing was sent.
fn is_connect_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The innermost cause says what happened ("connection refused"); the outer ones only that something did.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: Code, message: &str, expected: StoreError) {
        assert_eq!(
            store_error(Error::GRpcStatus(Status::new(code, message))),
            expected
        );
    }

    #[test]
    fn statuses_say_what_they_say_of_the_write() {
        let reason = |text: &str| text.to_owned();
        check(
            Code::Unavailable,
            "etcdserver: leader changed",
            StoreError::Unavailable {
                reason: reason("etcdserver: leader changed"),
                commit: Commit::Unknown,
            },
        );
        check(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
            StoreError::Compacted { oldest: None },
        );
        let future = "etcdserver: mvcc: required revision is a future revision";
        check(
            Code::OutOfRange,
            future,
            StoreError::Invalid {
                reason: reason(future),
            },
        );
        let large = "etcdserver: request is too large";
        check(
            Code::InvalidArgument,
            large,
            StoreError::TooLarge {
                reason: reason(large),
                commit: Commit::No,
            },
        );
        let reply = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        check(
            Code::OutOfRange,
            reply,
            StoreError::TooLarge {
                reason: reason(reply),
                commit: Commit::Unknown,
            },
        );
        let user = "etcdserver: authentication failed, invalid user ID or password";
        check(
            Code::InvalidArgument,
            user,
            StoreError::Auth { reason: reason(user) },
        );
        let space = "etcdserver: mvcc: database space exceeded";
        check(
            Code::ResourceExhausted,
            space,
            StoreError::Other {
                reason: reason(space),
                commit: Commit::No,
            },
        );
    }
}

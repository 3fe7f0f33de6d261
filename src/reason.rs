//! Why a connection, an epoch or a request ended: one enum for logs, metrics, the API and `onStatus`.
//!
//! The numbers are those of the vendor's stream interruption table (contract, section 4), so that
//! callbacks can repeat them; words are ours. Nothing here decides anything.

use std::fmt;

/// The one list of reasons. Fieldless on purpose: a reason is a metric label and must stay bounded;
/// what varies (how many seconds ago, which limit) goes into the message beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The client said it was done (`deleteStream`, `FCUnpublish`).
    Deleted,
    /// The client said it was done (`closeStream`).
    Closed,
    /// The peer closed its TCP connection without saying so.
    Disconnected,
    /// Reading from or writing to the socket failed.
    SocketError,
    /// The RTMP bytes or commands made no sense.
    Protocol,
    /// A message or command is larger or deeper than the limits allow.
    TooLarge,
    /// Handshake or commands did not come in time.
    Timeout,
    /// The publisher sent no media for longer than allowed.
    Idle,
    /// The application or stream name has characters or a length that are not allowed.
    BadName,
    /// The application is not configured here.
    UnknownApp,
    /// Neither txSecret nor txTime is in the URL, and one is needed.
    SignatureMissing,
    /// txTime is absent from a signed URL.
    TxTimeMissing,
    /// txTime is neither 8 hexadecimal nor 10 decimal digits.
    TxTimeMalformed,
    /// txTime has passed.
    SignatureExpired,
    /// txSecret fits none of the keys.
    SignatureWrong,
    /// Another publisher holds the name.
    NameBusy,
    /// The stream was not there, nor did it come in time.
    NotFound,
    /// Too many connections, players or waiting players for a configured limit.
    LimitReached,
    /// The reader could not keep up for longer than allowed.
    TooSlow,
    /// Dropped through the API.
    Dropped,
    /// Another publisher took the name over.
    TakenOver,
    /// The stream ended, and with it the playing.
    StreamEnded,
    /// The server is going down.
    Shutdown,
    /// Something broke on our side.
    Internal,
}

impl Reason {
    /// Every reason, for metrics that register all their labels up front.
    pub const ALL: [Reason; 24] = [
        Reason::Deleted,
        Reason::Closed,
        Reason::Disconnected,
        Reason::SocketError,
        Reason::Protocol,
        Reason::TooLarge,
        Reason::Timeout,
        Reason::Idle,
        Reason::BadName,
        Reason::UnknownApp,
        Reason::SignatureMissing,
        Reason::TxTimeMissing,
        Reason::TxTimeMalformed,
        Reason::SignatureExpired,
        Reason::SignatureWrong,
        Reason::NameBusy,
        Reason::NotFound,
        Reason::LimitReached,
        Reason::TooSlow,
        Reason::Dropped,
        Reason::TakenOver,
        Reason::StreamEnded,
        Reason::Shutdown,
        Reason::Internal,
    ];

    /// The stable word for metrics, logs and the API.
    pub const fn code(self) -> &'static str {
        match self {
            Reason::Deleted => "deleted",
            Reason::Closed => "closed",
            Reason::Disconnected => "disconnected",
            Reason::SocketError => "socket_error",
            Reason::Protocol => "protocol",
            Reason::TooLarge => "too_large",
            Reason::Timeout => "timeout",
            Reason::Idle => "idle",
            Reason::BadName => "bad_name",
            Reason::UnknownApp => "unknown_app",
            Reason::SignatureMissing => "signature_missing",
            Reason::TxTimeMissing => "tx_time_missing",
            Reason::TxTimeMalformed => "tx_time_malformed",
            Reason::SignatureExpired => "signature_expired",
            Reason::SignatureWrong => "signature_wrong",
            Reason::NameBusy => "name_busy",
            Reason::NotFound => "not_found",
            Reason::LimitReached => "limit_reached",
            Reason::TooSlow => "too_slow",
            Reason::Dropped => "dropped",
            Reason::TakenOver => "taken_over",
            Reason::StreamEnded => "stream_ended",
            Reason::Shutdown => "shutdown",
            Reason::Internal => "internal",
        }
    }

    /// `errcode` and `sub_errcode` of the vendor's table; 0 as the second where it has none.
    pub const fn errcode(self) -> (u16, u16) {
        match self {
            Reason::Deleted => (1, 0),
            Reason::Closed => (2, 0),
            Reason::Disconnected | Reason::StreamEnded => (3, 0),
            Reason::SocketError => (4, 0),
            Reason::Protocol => (6, 0),
            Reason::TooLarge => (39, 0),
            Reason::Timeout => (20, 0),
            Reason::Idle => (8, 0),
            Reason::BadName => (18, 308),
            Reason::UnknownApp => (18, 303),
            Reason::SignatureMissing => (18, 502),
            Reason::TxTimeMissing | Reason::TxTimeMalformed => (18, 500),
            Reason::SignatureExpired => (18, 501),
            Reason::SignatureWrong => (18, 503),
            Reason::NameBusy | Reason::LimitReached => (18, 600),
            Reason::NotFound => (18, 301),
            Reason::TooSlow => (12, 0),
            Reason::Dropped => (21, 100),
            Reason::TakenOver => (21, 102),
            Reason::Shutdown | Reason::Internal => (5, 0),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_is_listed_once_and_has_its_own_word() {
        let words: HashSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}

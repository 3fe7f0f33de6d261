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
    /// A command's or data message's AMF is malformed.
    Amf,
    /// A message or command is larger or deeper than the limits allow.
    TooLarge,
    /// Handshake or commands did not come in time.
    Timeout,
    /// The listener is for proxies in `access.trusted_proxies`, and this was none of them, whatever it said.
    ProxyUntrusted,
    /// A trusted proxy's connection began without a PROXY header that makes sense.
    ProxyHeader,
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
    /// The signature fits a key, which is not valid yet or not any more.
    KeyNotValid,
    /// The address is not let in by `[access]`, or it is banned.
    AddressDenied,
    /// The back end that is asked (`[hooks] authorize`) refused it.
    HookDenied,
    /// The back end that is asked gave no answer, and is needed.
    HookFailed,
    /// The stream, or the key that the URL was signed with, is banned.
    Forbidden,
    /// A ban that was made while it ran ended it.
    Banned,
    /// Another publisher holds the name.
    NameBusy,
    /// The stream was not there, nor did it come in time.
    NotFound,
    /// Too many connections, players or waiting players for a configured limit.
    LimitReached,
    /// The server holds as much memory as it may.
    Overloaded,
    /// The publisher sent more than its application's bitrate for longer than allowed.
    TooFast,
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
    pub const ALL: [Reason; 35] = [
        Reason::Deleted,
        Reason::Closed,
        Reason::Disconnected,
        Reason::SocketError,
        Reason::Protocol,
        Reason::Amf,
        Reason::TooLarge,
        Reason::Timeout,
        Reason::ProxyUntrusted,
        Reason::ProxyHeader,
        Reason::Idle,
        Reason::BadName,
        Reason::UnknownApp,
        Reason::SignatureMissing,
        Reason::TxTimeMissing,
        Reason::TxTimeMalformed,
        Reason::SignatureExpired,
        Reason::SignatureWrong,
        Reason::KeyNotValid,
        Reason::AddressDenied,
        Reason::HookDenied,
        Reason::HookFailed,
        Reason::Forbidden,
        Reason::Banned,
        Reason::NameBusy,
        Reason::NotFound,
        Reason::LimitReached,
        Reason::Overloaded,
        Reason::TooFast,
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
            Reason::Amf => "amf",
            Reason::TooLarge => "too_large",
            Reason::Timeout => "timeout",
            Reason::ProxyUntrusted => "proxy_untrusted",
            Reason::ProxyHeader => "proxy_header",
            Reason::Idle => "idle",
            Reason::BadName => "bad_name",
            Reason::UnknownApp => "unknown_app",
            Reason::SignatureMissing => "signature_missing",
            Reason::TxTimeMissing => "tx_time_missing",
            Reason::TxTimeMalformed => "tx_time_malformed",
            Reason::SignatureExpired => "signature_expired",
            Reason::SignatureWrong => "signature_wrong",
            Reason::KeyNotValid => "key_not_valid",
            Reason::AddressDenied => "address_denied",
            Reason::HookDenied => "hook_denied",
            Reason::HookFailed => "hook_failed",
            Reason::Forbidden => "forbidden",
            Reason::Banned => "banned",
            Reason::NameBusy => "name_busy",
            Reason::NotFound => "not_found",
            Reason::LimitReached => "limit_reached",
            Reason::Overloaded => "overloaded",
            Reason::TooFast => "too_fast",
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
            Reason::Protocol | Reason::ProxyHeader => (6, 0),
            Reason::Amf => (33, 0),
            Reason::TooLarge => (39, 0),
            Reason::Timeout => (20, 0),
            Reason::Idle => (8, 0),
            Reason::BadName => (18, 308),
            Reason::UnknownApp => (18, 303),
            Reason::SignatureMissing => (18, 502),
            Reason::TxTimeMissing | Reason::TxTimeMalformed => (18, 500),
            Reason::SignatureExpired => (18, 501),
            Reason::SignatureWrong | Reason::KeyNotValid | Reason::HookDenied => (18, 503),
            Reason::AddressDenied | Reason::ProxyUntrusted => (18, 300),
            Reason::Forbidden => (18, 305),
            Reason::NameBusy | Reason::LimitReached => (18, 600),
            Reason::Overloaded | Reason::TooFast => (18, 601),
            Reason::NotFound => (18, 301),
            Reason::TooSlow => (12, 0),
            Reason::Dropped => (21, 100),
            Reason::TakenOver => (21, 102),
            Reason::Banned => (21, 101),
            Reason::HookFailed | Reason::Shutdown | Reason::Internal => (5, 0),
        }
    }

    /// The description of a status that a client is sent: what is to be said, the [word](Self::code) for this reason,
    /// and the numbers of the vendor's table where that has a row for it: `banned by the operator [banned] (21/101)`.
    pub fn describe(self, words: impl fmt::Display) -> String {
        match self.errcode() {
            _ if self.is_ours() => format!("{words} [{self}]"),
            (code, sub) => format!("{words} [{self}] ({code}/{sub})"),
        }
    }

    /// The vendor's table has no row for it.
    const fn is_ours(self) -> bool {
        matches!(
            self,
            Reason::HookFailed | Reason::Shutdown | Reason::Internal
        )
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

    /// The vendor's table (contract, section 4), row by row: the reason whose end a callback tells with these
    /// numbers, or why no end of ours is of that kind.
    const VENDORS_TABLE: &[(u16, u16, Result<Reason, &str>)] = &[
        (1, 0, Ok(Reason::Deleted)),
        (2, 0, Ok(Reason::Closed)),
        (3, 0, Ok(Reason::Disconnected)),
        (4, 0, Ok(Reason::SocketError)),
        (6, 0, Ok(Reason::Protocol)),
        (
            7,
            0,
            Err("our bound is on messages of 8 MiB, and told as 39"),
        ),
        (8, 0, Ok(Reason::Idle)),
        (12, 0, Ok(Reason::TooSlow)),
        (
            13,
            0,
            Err("12 to 17 tell of the vendor's network; ours is 12"),
        ),
        (18, 300, Ok(Reason::AddressDenied)),
        (18, 301, Ok(Reason::NotFound)),
        (18, 302, Err("there are no domains here")),
        (18, 303, Ok(Reason::UnknownApp)),
        (18, 304, Err("there are no domains here")),
        (18, 305, Ok(Reason::Forbidden)),
        (18, 308, Ok(Reason::BadName)),
        (18, 500, Ok(Reason::TxTimeMissing)),
        (18, 501, Ok(Reason::SignatureExpired)),
        (18, 502, Ok(Reason::SignatureMissing)),
        (18, 503, Ok(Reason::SignatureWrong)),
        (18, 600, Ok(Reason::LimitReached)),
        (18, 601, Ok(Reason::Overloaded)),
        (18, 602, Err("streams have no priority here")),
        (20, 0, Ok(Reason::Timeout)),
        (21, 100, Ok(Reason::Dropped)),
        (21, 101, Ok(Reason::Banned)),
        (21, 102, Ok(Reason::TakenOver)),
        (21, 103, Err("a takeover is told as 102, quiet or not")),
        (23, 0, Err("RTMP content is told as 6")),
        (33, 0, Ok(Reason::Amf)),
        (39, 0, Ok(Reason::TooLarge)),
    ];

    #[test]
    fn every_row_of_the_vendors_table_that_can_happen_here_has_its_reason() {
        for (code, sub, told_by) in VENDORS_TABLE {
            match told_by {
                Ok(reason) => assert_eq!(reason.errcode(), (*code, *sub), "{reason}"),
                Err(why) => {
                    let teller = Reason::ALL.iter().find(|r| r.errcode() == (*code, *sub));
                    assert_eq!(teller, None, "{code}/{sub}: {why}");
                }
            }
        }
    }

    #[test]
    fn every_reason_tells_a_row_of_the_vendors_table_or_that_it_is_ours() {
        for reason in Reason::ALL {
            let (code, sub) = reason.errcode();
            let known = VENDORS_TABLE
                .iter()
                .any(|(c, s, told)| (*c, *s) == (code, sub) && told.is_ok());
            assert!(known != reason.is_ours(), "{reason} tells {code}/{sub}");
        }
    }

    #[test]
    fn a_description_ends_with_the_word_and_the_numbers_where_there_are_any() {
        for (reason, described) in [
            (
                Reason::SignatureWrong,
                "so it is [signature_wrong] (18/503)",
            ),
            (Reason::Timeout, "so it is [timeout] (20/0)"),
            (Reason::Shutdown, "so it is [shutdown]"),
        ] {
            assert_eq!(reason.describe("so it is"), described);
        }
    }
}

//! Accounts: who may call, and which names are theirs.

use std::path::PathBuf;

use md5::{Digest, Md5};

use crate::auth::{Secret, digest};
use crate::hooks::Address;
use crate::media::StreamKey;

/// Longest id of a mix that is made of the session's own text; a longer session id goes in as its MD5. The mixer takes
/// ids of up to 80 bytes.
const MAX_MIX_ID: usize = 80;

/// One caller of the compatible interface. Secrets in it print as `***`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What callers of the legacy form name themselves by, as `appid` or `cmd`.
    pub appid: u64,
    /// Signs the legacy form; `None`: this account has no part in it.
    pub api_key: Option<Secret>,
    /// Signs the v3 form; `None`: this account has no part in it.
    pub credentials: Option<Credentials>,
    /// The RTMP application that the account's streams are in.
    pub app: String,
    /// The account sees and touches only streams whose names begin with this; empty: all of the application.
    pub stream_prefix: String,
    /// Where it is told of its streams; `None`: nowhere.
    pub callback: Option<Callback>,
}

/// Where callbacks go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    pub address: Address,
    /// Signs them.
    pub key: Secret,
}

/// A pair of the v3 form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The SecretId. Not secret.
    pub id: String,
    /// The SecretKey.
    pub key: Secret,
}

/// A still picture that requests name by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A file of the operator's.
    File(PathBuf),
    /// An `http` or `https` address; the mixer fetches it as it fetches any.
    Url(String),
}

impl Picture {
    /// What the mixer calls the file of that number.
    pub fn file_id(number: u32) -> String {
        format!("compat.{number}")
    }
}

impl Account {
    /// The stream of that name; `None` when it is none of the account's, or no name at all.
    pub fn stream(&self, name: &str) -> Option<StreamKey> {
        let own = name.starts_with(&self.stream_prefix);
        own.then(|| StreamKey::new(&self.app, name).ok()).flatten()
    }

    /// Whether the stream is one of the account's.
    pub fn owns(&self, key: &StreamKey) -> bool {
        key.app() == self.app && key.stream().starts_with(&self.stream_prefix)
    }

    /// What the mixer calls the account's mix of that session. Sessions of two accounts never meet: the number in front is
    /// the account's, and no session id has been longer than this takes and kept its text.
    pub fn mix_id(&self, session: &str) -> String {
        let plain = format!("{}.{session}", self.appid);
        if plain.len() <= MAX_MIX_ID {
            return plain;
        }
        let digest: [u8; 16] = Md5::digest(session.as_bytes()).into();
        format!("{}..{}", self.appid, digest::hex(&digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn account(prefix: &str) -> Account {
        Account {
            appid: 1_251_000_001,
            api_key: None,
            credentials: None,
            app: "live".into(),
            stream_prefix: prefix.into(),
            callback: None,
        }
    }

    #[test]
    fn an_account_has_the_streams_with_its_prefix_and_no_others() {
        let own = account("8888_");
        assert!(own.stream("8888_streamA").is_some());
        for name in ["9999_streamA", "streamA", "", "8888_a b"] {
            assert_eq!(own.stream(name), None, "{name}");
        }
        let key = |app, name| StreamKey::new(app, name).unwrap();
        assert!(own.owns(&key("live", "8888_a")));
        assert!(!own.owns(&key("film", "8888_a")));
        assert!(!own.owns(&key("live", "9999_a")));
        assert!(account("").stream("anything").is_some());
    }

    #[test]
    fn ids_of_mixes_fit_the_mixer_and_differ_where_sessions_do() {
        let own = account("");
        assert_eq!(own.mix_id("room_1"), "1251000001.room_1");
        let long = |last: char| format!("{}{last}", "s".repeat(79));
        let ids = [own.mix_id(&long('a')), own.mix_id(&long('b'))];
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            assert!(id.len() <= MAX_MIX_ID, "{id}");
        }
    }
}

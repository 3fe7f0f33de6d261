//! Signing of push targets with keys of this server, by id: auth's formula behind push's trait.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::auth::{self, Policy};
use crate::push::{SignError, Signer};

/// Signs with the push keys of the policy.
pub struct PolicySigner(pub Arc<Policy>);

impl Signer for PolicySigner {
    fn sign(&self, key_id: &str, stream: &str, expires_in: Duration) -> Result<String, SignError> {
        let secret = self
            .0
            .push_secret(key_id)
            .ok_or_else(|| SignError(format!("no push key has the id {key_id:?}")))?;
        Ok(auth::signed_query(
            &secret,
            stream,
            SystemTime::now() + expires_in,
        ))
    }
}

//! Who is let in passes here, so that refusals are remarked by the name that they are about.
//!
//! Decides nothing: asks the real authorizer and hands its answer on. In front of it in every room that asks.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use crate::auth::{Action, Authorizer, Decision, Grant, Refusal, Request, Stay};
use crate::hooks::{Journal, Remark};
use crate::media::StreamKey;

/// [`Authorizer`] that tells the journal's chronicle of refusals.
pub struct Witness {
    pub authorizer: Arc<dyn Authorizer>,
    pub journal: Journal,
}

impl Witness {
    fn heard<T>(&self, request: &Request<'_>, answer: &Result<T, Refusal>) {
        if let Err(refusal) = answer {
            let kind = match request.action {
                Action::Publish => "publish_refused",
                Action::Play => "play_refused",
            };
            refused(&self.journal, kind, request.key, request.peer, refusal);
        }
    }
}

/// Remarks that somebody was refused.
pub fn refused(
    journal: &Journal,
    kind: &'static str,
    key: &StreamKey,
    peer: SocketAddr,
    refusal: &Refusal,
) {
    let remark = Remark {
        kind,
        reason: refusal.reason.code(),
        words: refusal.message.clone(),
        address: Some(peer.to_string()),
    };
    journal.chronicle().remark(key, remark);
}

impl Authorizer for Witness {
    fn authorize<'a>(&'a self, request: &'a Request<'a>) -> Decision<'a> {
        Box::pin(async move {
            let answer = self.authorizer.authorize(request).await;
            self.heard(request, &answer);
            answer
        })
    }

    fn admit(&self, request: &Request<'_>, grant: &Grant) -> Result<Stay, Refusal> {
        let answer = self.authorizer.admit(request, grant);
        self.heard(request, &answer);
        answer
    }

    fn remembered<'a>(
        &'a self,
        key: &'a StreamKey,
        epoch: u64,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.authorizer.remembered(key, epoch)
    }
}

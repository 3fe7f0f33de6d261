//! Who waits for news of a stream, and when they are told: once its lock is released, because whoever is woken takes that
//! lock first. Told under it, the readers on other processors slept again at once, and the publisher had to wake them twice.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use tokio::sync::Notify;

use super::stream::Inner;
use crate::media::Feed;

/// The waiting.
#[derive(Debug, Default)]
pub(super) struct News {
    /// For each message, per feed.
    source: Notify,
    program: Notify,
    /// For each change of an overlay's state.
    pub overlay: Notify,
}

impl News {
    pub fn of(&self, feed: Feed) -> &Notify {
        match feed {
            Feed::Source => &self.source,
            Feed::Program => &self.program,
        }
    }
}

/// Whom to tell when the lock is released.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub source: bool,
    pub program: bool,
    pub overlay: bool,
}

/// A stream's state while it is locked. The fields are dropped in this order: the lock first, then [`Telling`] tells.
pub(super) struct Locked<'a> {
    inner: MutexGuard<'a, Inner>,
    telling: Telling<'a>,
}

struct Telling<'a> {
    news: &'a News,
    told: Told,
}

impl<'a> Locked<'a> {
    pub fn new(inner: MutexGuard<'a, Inner>, news: &'a News) -> Self {
        let told = Told::default();
        Self {
            inner,
            telling: Telling { news, told },
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.telling.told = std::mem::take(&mut self.inner.told);
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let Self { news, told } = self;
        for (tell, who) in [
            (told.source, &news.source),
            (told.program, &news.program),
            (told.overlay, &news.overlay),
        ] {
            if tell {
                who.notify_waiters();
            }
        }
    }
}

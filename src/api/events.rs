//! `GET /api/v1/events`: facts as they happen, as server-sent events.
//!
//! | source | covered |
//! |---|---|
//! | WHATWG HTML, 9.2 "Server-sent events" | `id`, `event`, `data`, comments, `Last-Event-ID` |
//!
//! A listener keeps a place in the journal and takes what its connection has room for; one that falls behind what the journal keeps
//! is cut, and resumes with the last id that it had.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::info;
use utoipa::{IntoParams, OpenApi};

use super::Error;
use crate::hooks::{self, Gap, Kind, Reader};

/// Listeners at once. The listener has room for four times as many connections, so that others get through.
const MOST: usize = 64;
/// Events that one takes at a time.
const BATCH: usize = 64;
/// A listener that is sent nothing for so many events, because it wants none of them, is told where it stands.
const PLACE_EVERY: u64 = 256;
/// Proxies cut what is silent for a minute.
const ALIVE: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Room for listeners.
#[derive(Debug, Clone)]
pub(super) struct Listeners(Arc<Semaphore>);

impl Default for Listeners {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

#[derive(OpenApi)]
#[openapi(paths(get))]
pub(super) struct Description;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// Kinds, with commas between; all when absent.
    types: Option<String>,
    /// `app/name`, or `app/*`; all when absent.
    stream: Option<String>,
}

/// What a listener wants to hear.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    kinds: Option<Vec<Kind>>,
    /// Application, and the name in it.
    stream: Option<(String, Option<String>)>,
}

/// Facts as they happen, as server-sent events.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "listen_to_events", tag = "hooks",
    params(Wish, ("Last-Event-ID" = Option<String>, Header, description = "The last event that is known: what came after it is sent first")),
    responses(
        (status = 200, description = "one event after the other, until the client goes", content_type = "text/event-stream", body = String),
        (status = 503, description = "as many listen as there may be")))]
pub(super) async fn get(
    listeners: Listeners,
    State(state): State<Arc<super::State>>,
    wish: Result<Query<Wish>, QueryRejection>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Error> {
    let Query(wish) = wish.map_err(|error| Error::invalid(error.body_text()))?;
    let filter = Filter::parse(&wish)?;
    let place = listeners.0.try_acquire_owned().map_err(|_| {
        let message = format!("{MOST} clients listen, as many as there may be");
        Error::new(StatusCode::SERVICE_UNAVAILABLE, "limit_reached", message)
    })?;
    let journal = state.hooks.journal();
    let (reader, gap) = match headers.get(LAST_EVENT_ID) {
        None => (journal.reader(), None),
        Some(id) => journal.resume(id.to_str().unwrap_or_default()),
    };
    let mut listener = Listener {
        told: reader.place().number,
        reader,
        filter,
        ready: VecDeque::new(),
        over: state.hooks.over(),
        _place: place,
    };
    if let Some(gap) = gap {
        listener.tell_gap(gap);
    }
    let events = Sse::new(listener.events());
    Ok(events.keep_alive(KeepAlive::new().interval(ALIVE)))
}

struct Listener {
    reader: Reader,
    filter: Filter,
    /// What is to be sent before anything is read.
    ready: VecDeque<Event>,
    /// The number of the last event that the client knows of.
    told: u64,
    /// Nothing more is told.
    over: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// An event that stands for those that are missing. Its id is that of the last of them.
    fn tell_gap(&mut self, gap: Gap) {
        let (reason, missed) = match gap {
            Gap::Unknown => ("unknown_id", None),
            Gap::Missed(missed) => ("too_old", Some(missed)),
        };
        let data = json!({ "reason": reason, "missed": missed }).to_string();
        let id = self.reader.place().to_string();
        let event = Event::default().id(id).event("gap").data(data);
        self.ready.push_back(event);
    }

    /// Ends when the server does, or when the client is too slow.
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut listener| async move {
            let event = listener.next().await?;
            Some((Ok(event), listener))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                // What was told until the end is sent before it, the ends of all publishes among it.
                biased;
                () = self.reader.wait() => {}
                () = self.over.cancelled() => return None,
            }
            match self.reader.take(BATCH) {
                Ok(events) => self.choose(&events),
                Err(missed) => {
                    info!(
                        missed,
                        "a client that listens to events is too slow; it is cut"
                    );
                    return None;
                }
            }
        }
    }

    fn choose(&mut self, events: &[Arc<hooks::Event>]) {
        for event in events.iter().filter(|event| self.filter.admits(event)) {
            let id = event.id.to_string();
            let event = Event::default()
                .id(id)
                .event(event.kind.word())
                .data(&event.text);
            self.ready.push_back(event);
            self.told = self.reader.place().number;
        }
        let place = self.reader.place();
        if place.number >= self.told + PLACE_EVERY {
            self.told = place.number;
            // Sets the client's last id and is no event for it, since it has no data.
            self.ready.push_back(Event::default().id(place.to_string()));
        }
    }
}

impl Filter {
    fn parse(wish: &Wish) -> Result<Self, Error> {
        let kinds = match &wish.types {
            None => None,
            Some(words) => {
                let kind = |word: &str| {
                    Kind::from_word(word).ok_or_else(|| {
                        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
                        let known = known.join(", ");
                        Error::invalid(format!("types: {word:?} is none of {known}"))
                    })
                };
                Some(words.split(',').map(kind).collect::<Result<_, _>>()?)
            }
        };
        let stream = match &wish.stream {
            None => None,
            Some(text) => {
                let parts = text.split_once('/');
                let parts = parts.filter(|(app, name)| !app.is_empty() && !name.is_empty());
                let (app, name) = parts.ok_or_else(|| {
                    Error::invalid(format!("stream: {text:?} is not like live/a or live/*"))
                })?;
                Some((app.to_owned(), (name != "*").then(|| name.to_owned())))
            }
        };
        Ok(Self { kinds, stream })
    }

    fn admits(&self, event: &hooks::Event) -> bool {
        let of_kind = |kinds: &Vec<Kind>| kinds.contains(&event.kind);
        let of_stream = |(app, name): &(String, Option<String>)| {
            let is_named = |name: &String| name == event.stream.stream();
            app == event.stream.app() && name.as_ref().is_none_or(is_named)
        };
        self.kinds.as_ref().is_none_or(of_kind) && self.stream.as_ref().is_none_or(of_stream)
    }
}

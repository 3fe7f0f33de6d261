//! The verbs of `linkmic ctl`: a line for each operation of the control API. `tests.rs` holds the table to the API's own description.

/// One operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Verb {
    /// As it is typed: a group and a verb, or a verb alone.
    pub words: &'static str,
    pub method: &'static str,
    /// As the API describes it: what stands in braces is an argument.
    pub path: &'static str,
    pub about: &'static str,
    /// Parameters of the query, each an option.
    pub query: &'static [&'static str],
    /// Headers that say something, each an option.
    pub headers: &'static [&'static str],
    pub body: Body,
    /// Of a list: which fields of its rows are shown; empty: all that are plain.
    pub columns: &'static [&'static str],
}

/// Whether a body goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    No,
    /// JSON, from fields or a file.
    Yes,
}

/// Groups of verbs, and what they are about.
pub const GROUPS: &[(&str, &str)] = &[
    (
        "streams",
        "Streams, who publishes them, and what is wrong with them",
    ),
    ("captures", "Recordings of what a publisher sent"),
    ("readers", "Who plays a stream"),
    ("mixes", "Mixes: several streams in one picture"),
    ("pushes", "Targets that streams are pushed to"),
    ("links", "Links between anchors"),
    ("bans", "Who may not publish or play"),
    ("keys", "Keys that URLs are signed with"),
    ("urls", "Signed URLs"),
    ("events", "What happens, as it happens"),
    ("hooks", "Letters to back ends"),
];

/// What changes a kept thing may depend on its state.
const WHEN: &[&str] = &["If-Match", "If-None-Match"];

#[rustfmt::skip]
pub const VERBS: &[Verb] = &[
    get("streams list", "/api/v1/streams", "All streams")
        .columns(&["app", "stream", "publisher.origin", "publisher.address", "publisher.video.codec", "publisher.audio.codec", "mixed",
            "feeds.source.low_latency", "feeds.program.viewers", "publisher.since"]),
    get("streams get", "/api/v1/streams/{app}/{name}", "One stream"),
    delete("streams drop", "/api/v1/streams/{app}/{name}", "Disconnect the publisher"),
    get("streams diagnose", "/api/v1/streams/{app}/{name}/diagnose", "What is wrong with a stream, in sentences"),
    get("streams latency", "/api/v1/streams/{app}/{name}/latency", "Where a stream's latency comes from"),
    get("streams events", "/api/v1/streams/{app}/{name}/events", "The latest events of a name, also after its stream has ended"),
    get("streams snapshot", "/api/v1/streams/{app}/{name}/snapshot.jpg", "A picture of the stream, to a file (--output)").query(&["feed", "width"]),
    post("streams capture", "/api/v1/streams/{app}/{name}/capture", "Record what a publisher sends, for a bounded time").body(),
    get("captures list", "/api/v1/captures", "All recordings"),
    get("captures get", "/api/v1/captures/{id}", "One recording"),
    get("captures media", "/api/v1/captures/{id}/media.flv", "Its media as FLV, to a file (--output)"),
    get("captures timing", "/api/v1/captures/{id}/timing.jsonl", "A line of JSON for each message, to a file (--output)"),
    delete("captures delete", "/api/v1/captures/{id}", "Delete a recording"),
    get("readers list", "/api/v1/streams/{app}/{name}/readers", "Who plays a stream"),
    delete("readers drop", "/api/v1/streams/{app}/{name}/readers/{id}", "Disconnect a reader"),
    get("mixes list", "/api/v1/mixes", "All mixes")
        .columns(&["id", "app", "state", "output.stream", "output.width", "output.height", "output.fps", "revision", "error"]),
    get("mixes get", "/api/v1/mixes/{id}", "One mix"),
    put("mixes put", "/api/v1/mixes/{id}", "Make or change a mix").headers(WHEN).body(),
    delete("mixes delete", "/api/v1/mixes/{id}", "End a mix").headers(WHEN),
    post("mixes preview", "/api/v1/mixes:preview", "Draw a scene without mixing it, to a file (--output)").query(&["live", "format", "width"]).body(),
    get("pushes list", "/api/v1/pushes", "All push targets")
        .columns(&["id", "app", "stream", "feed", "state", "url", "lag_ms", "connects", "failures", "last_error"]),
    get("pushes get", "/api/v1/pushes/{id}", "One push target"),
    put("pushes put", "/api/v1/pushes/{id}", "Make or change a push target").headers(WHEN).body(),
    delete("pushes delete", "/api/v1/pushes/{id}", "End a push target").headers(WHEN),
    get("links list", "/api/v1/links", "All links"),
    get("links get", "/api/v1/links/{id}", "One link"),
    post("links request", "/api/v1/links", "Ask for a link").body(),
    post("links accept", "/api/v1/links/{id}/accept", "Accept a link").body(),
    post("links reject", "/api/v1/links/{id}/reject", "Reject a link").body(),
    post("links cancel", "/api/v1/links/{id}/cancel", "Take a request back").body(),
    post("links leave", "/api/v1/links/{id}/leave", "Leave a link").body(),
    post("links invite", "/api/v1/links/{id}/invite", "Ask one more anchor into a link").body(),
    get("bans list", "/api/v1/bans", "All bans"),
    get("bans get", "/api/v1/bans/{id}", "One ban"),
    post("bans add", "/api/v1/bans", "Ban an address, a stream or a key").body(),
    delete("bans delete", "/api/v1/bans/{id}", "Lift a ban"),
    get("keys list", "/api/v1/auth/keys", "All keys and what use is made of them; never a secret")
        .columns(&["app", "set", "id", "role", "state", "signs", "not_before", "not_after", "hits", "last_used"]),
    post("urls sign", "/api/v1/urls/sign", "Sign a URL").body(),
    post("urls verify", "/api/v1/urls/verify", "Say what a URL is granted").body(),
    get("events follow", "/api/v1/events", "Events as they happen, until Ctrl-C").query(&["types", "stream"]).headers(&["Last-Event-ID"]),
    get("hooks dead", "/api/v1/hooks/dead", "Letters that nobody took").query(&["after", "limit"])
        .columns(&["id", "kind", "addressee", "stream", "attempts", "error", "created_at"]),
    post("hooks retry", "/api/v1/hooks/dead/{id}/retry", "Send a dead letter again"),
    delete("hooks forget", "/api/v1/hooks/dead/{id}", "Forget a dead letter"),
    get("health", "/healthz", "Is it alive?"),
    get("ready", "/readyz", "Does it take publishers and players?"),
    get("metrics", "/metrics", "All metrics, as Prometheus reads them"),
    get("openapi", "/api/v1/openapi.json", "The API's own description"),
    get("host", "/api/v1/host", "How much of its host the server takes, and for whom there is room"),
    post("reload", "/api/v1/reload", "Read the configuration again and apply it as far as it goes"),
    post("drain", "/api/v1/drain", "Take nobody new, and end when empty or at the deadline").query(&["deadline"]),
];

const fn verb(
    method: &'static str,
    words: &'static str,
    path: &'static str,
    about: &'static str,
) -> Verb {
    Verb {
        words,
        method,
        path,
        about,
        query: &[],
        headers: &[],
        body: Body::No,
        columns: &[],
    }
}

const fn get(words: &'static str, path: &'static str, about: &'static str) -> Verb {
    verb("GET", words, path, about)
}

const fn put(words: &'static str, path: &'static str, about: &'static str) -> Verb {
    verb("PUT", words, path, about)
}

const fn post(words: &'static str, path: &'static str, about: &'static str) -> Verb {
    verb("POST", words, path, about)
}

const fn delete(words: &'static str, path: &'static str, about: &'static str) -> Verb {
    verb("DELETE", words, path, about)
}

impl Verb {
    const fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    const fn headers(self, headers: &'static [&'static str]) -> Self {
        Self { headers, ..self }
    }

    const fn body(self) -> Self {
        Self {
            body: Body::Yes,
            ..self
        }
    }

    const fn columns(self, columns: &'static [&'static str]) -> Self {
        Self { columns, ..self }
    }

    /// The group, where it is in one, and the verb.
    pub fn split(&self) -> (Option<&'static str>, &'static str) {
        match self.words.split_once(' ') {
            Some((group, verb)) => (Some(group), verb),
            None => (None, self.words),
        }
    }
}

//! `GET /api/v1/events`: facts as they happen, and on from where a client was cut off.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::receiver::Receiver;
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::{House, TOKEN};

/// A client of server-sent events, over HTTP/1.0: no chunks.
struct Listener(BufReader<TcpStream>);

/// One event as it came.
#[derive(Debug, Default, Clone, PartialEq)]
struct Heard {
    id: String,
    event: String,
    data: Value,
}

impl Listener {
    async fn open(house: &House, query: &str, last: Option<&str>) -> Self {
        let address = house.server.control_addr();
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        let last = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let request = format!(
            "GET /api/v1/events{query} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{last}\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut listener = Self(BufReader::new(socket));
        let status = listener.line().await.expect("an answer");
        assert!(status.contains(" 200 "), "{status}");
        while listener.line().await.is_some_and(|line| !line.is_empty()) {}
        listener
    }

    /// A line without its end; `None`: the server has closed.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(SOON, self.0.read_line(&mut line)).await;
        match read.expect("the server says something") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// The next event that has data.
    async fn next(&mut self) -> Option<Heard> {
        let mut heard = Heard::default();
        loop {
            let line = self.line().await?;
            match line.split_once(':') {
                _ if line.is_empty() && !heard.data.is_null() => return Some(heard),
                Some(("id", id)) => heard.id = id.trim().to_owned(),
                Some(("event", event)) => heard.event = event.trim().to_owned(),
                Some(("data", data)) => {
                    heard.data = serde_json::from_str(data).expect("JSON");
                }
                _ => {}
            }
        }
    }

    async fn hear(&mut self, count: usize) -> Vec<Heard> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await.expect("the server goes on"));
        }
        all
    }
}

async fn cycle(house: &House, name: &str) {
    let publisher = Client::publish(&house.urls.push(name)).await;
    publisher.expect("granted").unpublish().await;
}

#[tokio::test]
async fn events_come_as_they_happen_and_a_client_that_was_cut_off_goes_on_where_it_was() {
    let house = House::open().await;
    let mut listener = Listener::open(&house, "", None).await;
    cycle(&house, "a").await;
    let heard = listener.hear(2).await;
    let words: Vec<_> = heard.iter().map(|h| h.event.as_str()).collect();
    assert_eq!(words, ["publish", "unpublish"]);
    for one in &heard {
        assert_eq!(
            (&one.data["id"], &one.data["type"]),
            (
                &Value::from(one.id.as_str()),
                &Value::from(one.event.as_str())
            )
        );
        assert_eq!(one.data["stream"], "a");
    }
    drop(listener);
    cycle(&house, "b").await;
    let mut back = Listener::open(&house, "", Some(&heard[0].id)).await;
    let missed = back.hear(3).await;
    assert_eq!(missed[0], heard[1]);
    assert_eq!(
        (&missed[1].data["stream"], missed[2].event.as_str()),
        (&Value::from("b"), "unpublish")
    );
}

#[tokio::test]
async fn an_id_that_is_not_known_is_answered_with_a_gap_first() {
    let house = House::open().await;
    cycle(&house, "a").await;
    for id in ["1-1", "nonsense"] {
        let mut listener = Listener::open(&house, "", Some(id)).await;
        let heard = listener.hear(3).await;
        assert_eq!(
            (heard[0].event.as_str(), &heard[0].data["reason"]),
            ("gap", &Value::from("unknown_id"))
        );
        assert_eq!(heard[1].event, "publish");
        // Who is cut off right then misses nothing.
        let mut again = Listener::open(&house, "", Some(&heard[0].id)).await;
        assert_eq!(again.hear(2).await, heard[1..]);
    }
}

#[tokio::test]
async fn a_client_hears_the_types_and_streams_that_it_asks_for() {
    let house = House::open().await;
    let mut ends = Listener::open(&house, "?types=unpublish", None).await;
    let mut of_b = Listener::open(&house, "?stream=live/b&types=publish,unpublish", None).await;
    let mut of_app = Listener::open(&house, "?stream=live/*", None).await;
    cycle(&house, "a").await;
    cycle(&house, "b").await;
    let named = |heard: &[Heard]| -> Vec<String> {
        let name = |h: &Heard| {
            format!(
                "{} {}",
                h.event,
                h.data["stream"].as_str().unwrap_or_default()
            )
        };
        heard.iter().map(name).collect()
    };
    assert_eq!(named(&ends.hear(2).await), ["unpublish a", "unpublish b"]);
    assert_eq!(named(&of_b.hear(2).await), ["publish b", "unpublish b"]);
    let all = ["publish a", "unpublish a", "publish b", "unpublish b"];
    assert_eq!(named(&of_app.hear(4).await), all);
    for wrong in [
        "?types=begin",
        "?types=",
        "?stream=live",
        "?stream=/a",
        "?type=mix",
    ] {
        let answer = house.ask(&format!("/api/v1/events{wrong}")).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("invalid")),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn what_becomes_of_a_link_is_told_to_webhooks_and_to_who_listens() {
    let back_end = Receiver::open().await;
    let webhook = format!(
        "[[hooks.webhooks]]\nurl = \"{}\"\nsecret = \"webhook-0123456789abcdef\"\nevents = [\"link\"]\n",
        back_end.url("/hook")
    );
    let house = House::open_with("", &webhook).await;
    let mut listener = Listener::open(&house, "?types=link", None).await;
    let post = async |path: &str, body: Value| {
        let answer = house.control().post(path, &body).await.expect("an answer");
        assert!(answer.status < 300, "{path}: {}", answer.body);
    };
    let wish = json!({"id": "show", "app": "live", "main": "a", "sub": "b"});
    post("/api/v1/links", wish).await;
    post("/api/v1/links/show/accept", json!({})).await;
    let _a = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    let _b = Client::publish(&house.urls.push("b"))
        .await
        .expect("granted");
    // What the link makes of that comes before the next call.
    let mut heard = listener.hear(3).await;
    post("/api/v1/links/show/leave", json!({"who": "a"})).await;
    // Done twice is told once.
    post("/api/v1/links/show/leave", json!({"who": "a"})).await;
    post(
        "/api/v1/links",
        json!({"id": "next", "app": "live", "main": "a", "sub": "b"}),
    )
    .await;
    heard.extend(listener.hear(2).await);
    let told = back_end.wait(5).await;
    let wanted = [
        json!({"link": "show", "from": null, "to": "requested", "reason": null}),
        json!({"link": "show", "from": "requested", "to": "accepted", "reason": null}),
        json!({"link": "show", "from": "accepted", "to": "live", "reason": null}),
        json!({"link": "show", "from": "live", "to": "ended", "reason": "left"}),
        json!({"link": "next", "from": null, "to": "requested", "reason": null}),
    ];
    for (at, wanted) in wanted.iter().enumerate() {
        let mut data = heard[at].data["data"].clone();
        let one = &told[at].json;
        // The same to both, under the same id.
        assert_eq!((&one["id"], &one["data"]), (&heard[at].data["id"], &data));
        // Calls brought it about, but for the third: that came of who publishes.
        let fields = data.as_object_mut().expect("an object");
        let request = fields.remove("request_id").expect("a field");
        assert_eq!(request.is_null(), wanted["to"] == "live", "{at}: {request}");
        assert_eq!(&data, wanted, "{at}");
        assert_eq!(
            (&one["type"], &one["app"], &one["stream"]),
            (&json!("link"), &json!("live"), &json!("a"))
        );
    }
    assert_eq!(told.len(), wanted.len());
}

#[tokio::test]
async fn listeners_hear_the_ends_of_all_publishes_and_do_not_delay_the_end_of_the_server() {
    let house = House::open().await;
    let mut listener = Listener::open(&house, "", None).await;
    // One that reads nothing.
    let _deaf = Listener::open(&house, "", None).await;
    cycle(&house, "a").await;
    let publisher = Client::publish(&house.urls.push("b")).await;
    let publisher = publisher.expect("granted");
    let begin = Instant::now();
    house.server.shutdown().await;
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    drop(publisher);
    let heard = listener.hear(4).await;
    assert_eq!(heard[3].event, "unpublish");
    assert_eq!(heard[3].data["stream"], "b");
    assert_eq!(heard[3].data["data"]["reason"], "shutdown");
    assert_eq!(listener.next().await, None);
    let mut rest = Vec::new();
    assert!(listener.0.read_to_end(&mut rest).await.is_ok());
}

//! Reload, drain and the view of the host, with an operator that does as it is told.

use super::*;

/// One that never changes.
pub struct Still;

impl Operator for Still {
    fn reload(&self) -> Result<Reloaded, NotReloaded> {
        Err(NotReloaded::Nothing)
    }

    fn drain(&self, within: Option<Duration>) -> Duration {
        within.unwrap_or_default()
    }

    fn drains_until(&self) -> Option<Instant> {
        None
    }
}

/// One with answers of the test's.
struct Told {
    reload: Result<Reloaded, NotReloaded>,
    until: Mutex<Option<Instant>>,
}

impl Operator for Told {
    fn reload(&self) -> Result<Reloaded, NotReloaded> {
        // It is told in the log, by the request's id.
        assert!(crate::logging::request().is_some());
        self.reload.clone()
    }

    fn drain(&self, within: Option<Duration>) -> Duration {
        let within = within.unwrap_or(Duration::from_secs(30));
        *self.until.lock().unwrap() = Some(Instant::now() + within);
        within
    }

    fn drains_until(&self) -> Option<Instant> {
        *self.until.lock().unwrap()
    }
}

async fn run_by(reload: Result<Reloaded, NotReloaded>) -> Client {
    let operator = Arc::new(Told {
        reload,
        until: Mutex::default(),
    });
    let house = house_run_by(operator).await;
    Client::new(listen(named(house.router)).await, Some(TOKEN))
}

#[tokio::test]
async fn a_reload_says_what_holds_what_waits_and_what_is_wrong() {
    let api = run_by(Ok(Reloaded {
        applied: vec!["limits.publishers".to_owned()],
        needs_restart: vec!["rtmp.listen".to_owned()],
    }))
    .await;
    let answer = api.call("POST", "/api/v1/reload", "").await;
    assert_eq!(answer.status, 200);
    let expected = json!({"applied": ["limits.publishers"], "needs_restart": ["rtmp.listen"]});
    assert_eq!(answer.json(), expected);

    let mistake = (
        "limits.publishers".to_owned(),
        "expected a whole number".to_owned(),
    );
    let api = run_by(Err(NotReloaded::Mistakes(vec![mistake]))).await;
    let answer = api.call("POST", "/api/v1/reload", "").await;
    assert_eq!(answer.status, 422);
    let answer = answer.json();
    assert_eq!(answer["code"], "rejected");
    let expected = json!([{"key": "limits.publishers", "message": "expected a whole number"}]);
    assert_eq!(answer["rejected"], expected);

    let api = run_by(Err(NotReloaded::Nothing)).await;
    let answer = api.call("POST", "/api/v1/reload", "").await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (409, &json!("conflict"))
    );
}

#[tokio::test]
async fn a_drain_has_the_deadline_that_was_asked_for_or_the_configured_one_and_nobody_may_publish_by_the_view()
 {
    let api = run_by(Err(NotReloaded::Nothing)).await;
    let host = api.call("GET", "/api/v1/host", "").await.json();
    assert_eq!(
        (&host["state"], &host["deadline_ms"]),
        (&json!("serving"), &json!(null))
    );
    examples::is_as_documented("host", &host);
    let accepts = json!({"accepts": true, "reason": null});
    assert_eq!(host["can_accept"]["publisher"], accepts);
    for (query, status, deadline) in [
        ("?deadline=5m", 202, json!(300_000)),
        ("", 202, json!(30_000)),
        ("?deadline=soon", 400, json!(null)),
        ("?deadline=2days", 400, json!(null)),
        ("?dead=1s", 400, json!(null)),
    ] {
        let path = format!("/api/v1/drain{query}");
        let answer = api.call("POST", &path, "").await;
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
        assert_eq!(answer.json()["deadline_ms"], deadline, "{query}");
    }
    let host = api.call("GET", "/api/v1/host", "").await.json();
    assert_eq!(host["state"], "draining");
    let refused = json!({"accepts": false, "reason": "the server is going down"});
    assert_eq!(host["can_accept"]["publisher"], refused);
    assert_eq!(
        host["can_accept"]["player"], accepts,
        "of what is still here"
    );
}

//! Who is told anything at all.

use super::*;

#[tokio::test]
async fn without_the_token_nothing_is_told() {
    let (_house, client) = open(None).await;
    for given in [None, Some(""), Some("wrong"), Some(&TOKEN[..31])] {
        let stranger = Client::new(client.address, given);
        for (method, path) in [
            ("GET", "/api/v1/streams"),
            ("GET", "/api/v1/nothing"),
            ("PUT", "/api/v1/pushes/a"),
            ("DELETE", "/api/v1/streams/live/a"),
            ("POST", "/api/v1/urls/sign"),
        ] {
            let answer = stranger.call(method, path, "{}").await;
            is_error(&answer, 401, "unauthorized");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"linkmic\"")
            );
        }
        assert_eq!(stranger.call("GET", "/healthz", "").await.status, 200);
    }
    assert_eq!(client.call("GET", "/api/v1/streams", "").await.status, 200);
}

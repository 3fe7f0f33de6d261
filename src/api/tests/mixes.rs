//! Mixes where there is no mixer.

use super::*;

#[tokio::test]
async fn without_the_mixer_mixes_are_not_implemented() {
    let (_house, client) = open(None).await;
    for (method, path) in [
        ("GET", "/api/v1/mixes"),
        ("GET", "/api/v1/mixes/m"),
        ("PUT", "/api/v1/mixes/m"),
        ("DELETE", "/api/v1/mixes/m"),
        ("POST", "/api/v1/mixes:preview"),
    ] {
        let answer = client.call(method, path, "{}").await;
        is_error(&answer, 501, "mixer_not_built");
    }
}

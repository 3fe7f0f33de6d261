//! Who is kept out because there are as many as there may be, and what metrics say of it.

use linkmic::probe::process::poll;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::SOON;
use super::client::Client;
use super::clip::clip;
use super::house::House;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_that_a_limit_keeps_out_are_counted_by_limit_at_both_doors() {
    let more = "[limits]\nwaiting_per_name = 1\nwaiting_total = 2\nwait = \"1m\"\n[classes.viewer]\nreaders_per_name = 2";
    let house = House::open_with("", more).await;
    let fetch = async |name: &str| {
        let mut socket = TcpStream::connect(house.server.http_addr())
            .await
            .expect("it listens");
        let request = format!("GET /live/{name}.flv HTTP/1.1\r\nHost: x\r\n\r\n");
        socket
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        socket
    };
    let refused = async |name: &str| {
        let player = Client::play(&house.urls.plain(name)).await;
        assert!(player.is_err(), "{name} was let in");
    };
    let counted = async |limit: &str, times: usize| {
        let line = format!("linkmic_limits_refused_total{{limit=\"{limit}\"}} {times}");
        let seen = poll(&line, SOON, || async {
            let metrics = house.ask("/metrics").await.body;
            metrics.lines().any(|l| l == line).then_some(())
        });
        seen.await.expect("it is counted");
    };
    let _waiting = fetch("a").await;
    house.wait_for_viewers(1).await;
    refused("a").await;
    counted("waiting_per_name", 1).await;
    let _refused = fetch("a").await;
    counted("waiting_per_name", 2).await;
    let _second = fetch("b").await;
    house.wait_for_viewers(2).await;
    refused("c").await;
    counted("waiting_total", 1).await;

    let mut publisher = Client::publish(&house.urls.push("d"))
        .await
        .expect("granted");
    for tag in clip().await.tags.iter().filter(|t| t.time < 200) {
        publisher.send_tag(tag, 0).await;
    }
    let _players = [fetch("d").await, fetch("d").await];
    house.wait_for_viewers(4).await;
    refused("d").await;
    counted("readers_per_name", 1).await;
    let _refused = fetch("d").await;
    counted("readers_per_name", 2).await;
    counted("waiting_per_address", 0).await;
}

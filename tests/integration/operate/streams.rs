//! Series of single streams are there when an operator wants them, and from then on.

use linkmic::config::{Config, Env};
use linkmic::probe::process::poll;

use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::{House, configuration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_switches_series_of_streams_on_and_off_and_changes_their_cap() {
    let house = House::open().await;
    let mut publishers = Vec::new();
    for name in ["a", "b"] {
        let publisher = Client::publish(&house.urls.push(name)).await;
        publishers.push(publisher.expect("granted"));
    }
    let published = poll("both published", SOON, || async {
        let page = house.ask("/metrics").await.body;
        page.contains("\nlinkmic_relay_publishers 2\n")
            .then_some(())
    });
    published.await.unwrap_or_else(|e| panic!("{e}"));
    let state = tempfile::tempdir().expect("a folder");
    for (metrics, shown, left_out) in [
        ("", &[][..], 0),
        ("per_stream = true", &["a", "b"], 0),
        ("per_stream = true\nper_stream_cap = 1", &["a"], 1),
        ("per_stream = false", &[], 0),
    ] {
        let text = configuration(state.path(), "", &format!("[metrics]\n{metrics}"));
        let config = Config::parse(&text, "test", &Env::default()).expect("a configuration");
        house.server.reload(config);
        let page = house.ask("/metrics").await.body;
        let up = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("linkmic_stream_up{app=\"live\",stream=\"")?;
            rest.strip_suffix("\"} 1")
        });
        assert_eq!(up.collect::<Vec<_>>(), shown, "{metrics}");
        let line = format!("\nlinkmic_stream_left_out {left_out}\n");
        assert!(page.contains(&line), "{metrics}");
    }
}

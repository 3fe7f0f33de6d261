//! A server with anchors that publish moving, numbered pictures, for tests that look at pictures.

use std::time::Instant;

use linkmic::config::{Config, Env};
use linkmic::probe::http::{Answer, Client};
use linkmic::probe::process::poll;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Publisher};
use linkmic::server::Server;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::edge::SOON;
use crate::edge::house::{TOKEN, Urls, configuration};

/// Studios at a time: each keeps encoders and decoders busy, and the machine may have two cores.
static OPEN: Semaphore = Semaphore::const_new(MOST as usize);
const MOST: u32 = 2;

/// A place for one that keeps no [`Studio`], and is to count as one.
#[cfg(feature = "mixer")]
pub async fn place() -> SemaphorePermit<'static> {
    OPEN.acquire().await.expect("never closed")
}

/// A busy machine makes encoders late, and every step down would be another header.
const STEADY: &[(&str, &str)] = &[("LINKMIC__MIXER__DEGRADE", "false")];

/// Waits until nobody mixes, and keeps others from it: for tests that need both cores to tell the server's doing from the
/// machine's.
#[cfg(feature = "mixer")]
pub async fn alone() -> SemaphorePermit<'static> {
    OPEN.acquire_many(MOST).await.expect("never closed")
}

/// A server of our own; everything in it ends with the test.
pub struct Studio {
    pub urls: Urls,
    pub api: Client,
    folder: TempDir,
    #[cfg_attr(
        not(feature = "mixer"),
        expect(dead_code, reason = "only watched where there are splices")
    )]
    server: Server,
    _permit: SemaphorePermit<'static>,
}

impl Studio {
    pub async fn open() -> Self {
        Self::open_with("").await
    }

    /// With further sections of configuration.
    pub async fn open_with(more: &str) -> Self {
        Self::with_permit(OPEN.acquire().await.expect("never closed"), more, STEADY).await
    }

    /// As above, with no other at the time.
    #[cfg(feature = "mixer")]
    pub async fn open_alone(more: &str) -> Self {
        Self::with_permit(alone().await, more, STEADY).await
    }

    /// As above, its mixes free to step down when their encoders cannot keep up.
    #[cfg(feature = "mixer")]
    pub async fn open_to_overload(more: &str) -> Self {
        Self::with_permit(alone().await, more, &[]).await
    }

    async fn with_permit(
        permit: SemaphorePermit<'static>,
        more: &str,
        env: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = configuration(folder.path(), "", more);
        let env: Env = env.iter().copied().collect();
        let config = Config::parse(&text, "test", &env).expect("a configuration");
        let server = Server::start(config.clone()).await.expect("it starts");
        Self {
            urls: Urls::new(server.rtmp_addr(), &config),
            api: Client::new(server.control_addr(), Some(TOKEN)),
            folder,
            server,
            _permit: permit,
        }
    }

    /// The URL of a stream on the public HTTP listener, unsigned.
    #[cfg(feature = "mixer")]
    pub fn http_flv(&self, name: &str) -> String {
        format!("http://{}/live/{name}.flv", self.server.http_addr())
    }

    /// Where the compatible interface listens by itself.
    #[cfg(feature = "mixer")]
    pub fn compat(&self) -> std::net::SocketAddr {
        self.server.compat_addr().expect("it is configured")
    }

    /// A folder of this test alone.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Publishes, and waits until the stream is on air.
    pub async fn publish(&self, name: &str, show: &Show) -> Publisher {
        publish(&self.urls, &self.api, name, show).await
    }

    /// A `PUT` that has to succeed.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        succeeded(self.api.put(path, body).await.expect("an answer"))
    }
}

/// Publishes to a server, and waits until the stream is on air.
pub async fn publish(urls: &Urls, api: &Client, name: &str, show: &Show) -> Publisher {
    let mut publisher = Publisher::start(&urls.push(name), show).expect("ffmpeg");
    let path = format!("/api/v1/streams/live/{name}");
    let what = format!("{name} on air");
    let live = poll(&what, SOON, || async {
        let answer = api.get(&path).await.ok()?;
        answer.json()["publisher"]["video"]
            .is_object()
            .then_some(())
    });
    if let Err(deadline) = live.await {
        publisher.check().unwrap_or_else(|e| panic!("{e}"));
        panic!("{deadline}");
    }
    publisher
}

/// Which publisher a stream has, once its video is known.
#[cfg(feature = "mixer")]
pub async fn epoch(api: &Client, name: &str) -> Option<u64> {
    let path = format!("/api/v1/streams/live/{name}");
    let stream = api.get(&path).await.ok()?.json();
    stream["publisher"]["video"].as_object()?;
    stream["publisher"]["epoch"].as_u64()
}

pub fn succeeded(answer: Answer) -> Value {
    assert!(answer.is_success(), "{}: {}", answer.status, answer.body);
    answer.json()
}

/// Waits until `colour` with a growing number was seen `pictures` times in region number `region`, from now on.
pub async fn advances(player: &mut Player, region: usize, colour: Colour, pictures: usize) {
    let since = Instant::now();
    let what = format!(
        "region {region} {} and moving",
        colour.name().unwrap_or("?")
    );
    player
        .until(&what, SOON, |seen| {
            seen.advances(region, colour, since, pictures)
        })
        .await
        .unwrap_or_else(|e| panic!("{e}"));
}

/// Lets media time pass: waits for so many more pictures, whatever they show.
pub async fn pictures(player: &mut Player, count: usize) {
    let upto = player.look(|seen| seen.total) + count;
    player
        .until("more pictures", SOON, |seen| {
            (seen.total >= upto).then_some(())
        })
        .await
        .unwrap_or_else(|e| panic!("{e}"));
}

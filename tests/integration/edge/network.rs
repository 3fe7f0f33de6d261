//! A network of its own: two links to a namespace, one of which can go down, and a long way there besides. Only root
//! may build it. Where that cannot be, it is said where nobody captures it; with `LINKMIC_NETWORK` set it fails.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linkmic::probe::process::{Process, output, poll};

use crate::needs;

const PATIENCE: Duration = Duration::from_secs(10);

/// A network for the test `what`; `None` where it cannot be built, which the whole run's output tells.
///
/// # Panics
/// When it cannot be built where it must be.
pub async fn for_test(what: &str) -> Option<Network> {
    needs::given(
        Network::build().await,
        needs::ROOT,
        what,
        "there is no network of its own",
    )
}

/// Two links from here to a namespace where a server may live. Dropping it removes them.
pub struct Network {
    name: String,
    /// The second byte of its addresses, and part of all names.
    number: u32,
}

impl Network {
    /// # Errors
    /// Why it cannot be built here.
    pub async fn build() -> Result<Self, String> {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id();
        let at = BUILT.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            name: format!("linkmic-{id}-{at}"),
            number: (id * 4 + at) % 250,
        };
        let (name, n) = (&network.name, network.number);
        ip(&format!("netns add {name}")).await?;
        for link in LINKS {
            let (near, far) = (network.device('n', link), network.device('f', link));
            ip(&format!(
                "link add {near} type veth peer name {far} netns {name}"
            ))
            .await?;
            ip(&format!("address add 10.{n}.{link}.1/30 dev {near}")).await?;
            ip(&format!(
                "-n {name} address add 10.{n}.{link}.2/30 dev {far}"
            ))
            .await?;
            ip(&format!("link set {near} up")).await?;
            ip(&format!("-n {name} link set {far} up")).await?;
        }
        Ok(network)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's address on the link that stays up.
    pub fn server(&self) -> String {
        format!("10.{}.{}.2", self.number, LINKS[0])
    }

    /// A URL of that server by the link that can go down.
    pub fn by_the_other_link(&self, url: &str) -> String {
        let other = format!("10.{}.{}.2", self.number, LINKS[1]);
        url.replace(&self.server(), &other)
    }

    /// Takes the other link down, at the server's end, or up again.
    pub async fn set_link(&self, up: bool) {
        let (name, device) = (&self.name, self.device('f', LINKS[1]));
        let state = if up { "up" } else { "down" };
        let set = ip(&format!("-n {name} link set {device} {state}")).await;
        set.expect("a link of ours");
    }

    /// Opens a way to the namespace on which each packet takes `delay`, in either direction.
    ///
    /// # Panics
    /// When it cannot be built where the links could.
    pub async fn far_away(&self, delay: Duration) -> FarAway {
        let (name, n) = (&self.name, self.number);
        let (near, far) = (self.device('n', FAR), self.device('f', FAR));
        let seconds = delay.as_secs_f64().to_string();
        let carrier = ["-c", CARRIER, &near, &far, &seconds];
        let process = Process::spawn("python3", &carrier).unwrap_or_else(|e| panic!("{e}"));
        let ready = poll("two ends of a tunnel", PATIENCE, || async {
            process.said().contains("ready").then_some(())
        });
        ready
            .await
            .unwrap_or_else(|e| panic!("{e}: {}", process.said()));
        for command in [
            format!("link set {far} netns {name}"),
            format!("address add 10.{n}.{FAR}.1/30 dev {near}"),
            format!("link set {near} up"),
            format!("-n {name} address add 10.{n}.{FAR}.2/30 dev {far}"),
            format!("-n {name} link set {far} up"),
        ] {
            ip(&command).await.expect("a tunnel of ours");
        }
        FarAway {
            server: self.server(),
            address: format!("10.{n}.{FAR}.2"),
            _process: process,
        }
    }

    fn device(&self, end: char, link: u32) -> String {
        // At most 15 characters.
        format!("lm{end}{link}-{}", self.number)
    }
}

const LINKS: [u32; 2] = [77, 78];
/// The third byte of the far way's addresses.
const FAR: u32 = 79;

/// Carries packets between two TUN devices, each after its time. Kernels are not built with `netem` everywhere.
const CARRIER: &str = r#"
import collections, fcntl, os, select, struct, sys, time

def end(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    # TUNSETIFF, with IFF_TUN and IFF_NO_PI
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))
    return fd

ends = [end(name) for name in sys.argv[1:3]]
delay = float(sys.argv[3])
on_the_way = collections.deque()
print("ready", file=sys.stderr, flush=True)
while True:
    now = time.monotonic()
    while on_the_way and on_the_way[0][0] <= now:
        _, fd, packet = on_the_way.popleft()
        try:
            os.write(fd, packet)
        except OSError:
            pass
    wait = max(0, on_the_way[0][0] - now) if on_the_way else None
    for fd in select.select(ends, [], [], wait)[0]:
        to = ends[1 - ends.index(fd)]
        try:
            on_the_way.append((time.monotonic() + delay, to, os.read(fd, 65536)))
        except OSError:
            pass
"#;

/// A way that takes its time. Dropping it closes it.
pub struct FarAway {
    server: String,
    address: String,
    _process: Process,
}

impl FarAway {
    /// A URL of the server by this way.
    pub fn through(&self, url: &str) -> String {
        url.replace(&self.server, &self.address)
    }
}

async fn ip(arguments: &str) -> Result<(), String> {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let done = output("ip", &arguments, PATIENCE).await;
    done.map(drop).map_err(|e| e.to_string())
}

impl Drop for Network {
    fn drop(&mut self) {
        // The links go with it.
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

//! The Debian package, made by cargo-deb of the binary that is tested, in the hands of dpkg on a machine of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use linkmic::probe::http;
use linkmic::probe::process::{output, poll};
use tokio::sync::OnceCell;

use super::machine::{self, Machine};
use super::repository;
use crate::edge::SOON;

/// For a package to be made on a busy machine.
const LONG: Duration = Duration::from_secs(180);
/// Where ./run test puts cargo-deb.
const CARGO_DEB: &str = "target/test-tools/cargo/bin/cargo-deb";

/// The package of the binary that is tested, made once per run.
pub async fn package() -> &'static Path {
    static PACKAGE: OnceCell<PathBuf> = OnceCell::const_new();
    PACKAGE.get_or_init(make).await
}

async fn make() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("linkmic-tested.deb");
    let file = path.display().to_string();
    let tool = repository(CARGO_DEB).display().to_string();
    // As it was built for the tests; only the symbols go.
    let words = "--no-build --locked --quiet --profile dev --strip --fast --output";
    let mut words: Vec<&str> = words.split(' ').collect();
    words.push(&file);
    let made = output(&tool, &words, LONG).await;
    made.unwrap_or_else(|e| panic!("{e}; ./run test installs {CARGO_DEB}"));
    path
}

/// The next version: another number, and another file of defaults.
fn next(package: &Path, folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    let path = folder.join("linkmic-next.deb");
    let run = |arguments: &[&Path]| {
        let done = std::process::Command::new("dpkg-deb")
            .args(arguments)
            .output()
            .expect("dpkg-deb");
        assert!(done.status.success(), "{done:?}");
    };
    run(&[Path::new("--raw-extract"), package, &tree]);
    let change = |file: &str, from: &str, to: &str| {
        let file = tree.join(file);
        let text = std::fs::read_to_string(&file).expect("a file of the package");
        std::fs::write(&file, super::replaced(&text, from, to)).expect("written");
    };
    let version = env!("CARGO_PKG_VERSION");
    let from = format!("Version: {version}-1\n");
    change("DEBIAN/control", &from, &format!("Version: {version}-2\n"));
    change("etc/linkmic/linkmic.toml", "[rtmp]", "# Since -2.\n[rtmp]");
    run(&[
        Path::new("-Zgzip"),
        Path::new("-z1"),
        Path::new("--build"),
        &tree,
        &path,
    ]);
    path
}

impl Machine {
    /// Installs a package as an administrator would who answers no questions.
    pub async fn install(&self, package: &Path) {
        std::fs::copy(package, self.path("/run/linkmic.deb")).expect("copied");
        self.shell("dpkg --force-confdef --force-confold -i /run/linkmic.deb")
            .await;
        std::fs::remove_file(self.path("/run/linkmic.deb")).expect("removed");
    }

    /// Waits until it is ready on the public HTTP listener.
    pub async fn ready(&self, port: u16) {
        let address = format!("{}:{port}", self.address());
        let client = http::Client::new(address.parse().expect("an address"), None);
        let ready = poll("it to be ready", SOON, || async {
            let answer = client.get("/readyz").await.ok()?;
            answer.is_success().then_some(())
        });
        if let Err(deadline) = ready.await {
            panic!("{deadline}\n{}", self.log().await);
        }
    }

    /// The service's process, as the machine counts.
    pub async fn service(&self) -> u32 {
        let id = self.shell("systemctl show -P MainPID linkmic").await;
        id.parse().expect("a number")
    }
}

/// What dpkg, systemd and the account tools note down of their own work.
fn is_their_own(path: &str) -> bool {
    const THEIRS: [&str; 10] = [
        "/var/log",
        "/var/lib/systemd",
        "/var/cache/ldconfig",
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/.pwd.lock",
        "/etc/subuid",
        "/etc/subgid",
    ];
    THEIRS.iter().any(|theirs| path.starts_with(theirs))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_package_installs_starts_upgrades_and_leaves_nothing_behind() {
    let Some(machine) = machine::for_test("the Debian package").await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let package = package().await;
    let before = machine.differences();
    machine.install(package).await;

    // It runs as it was installed, as nobody but its own user, and with what it was given.
    machine.ready(8080).await;
    machine.wait_for("systemctl is-active linkmic").await;
    machine.shell("systemctl is-enabled linkmic").await;
    let first = machine.service().await;
    let owner = machine.shell(&format!("stat -c %U /proc/{first}")).await;
    assert_eq!(owner, "linkmic");
    let modes = machine
        .shell("stat -c '%U:%G %a %n' /usr/bin/linkmic /etc/linkmic/linkmic.toml")
        .await;
    assert_eq!(
        modes,
        "root:root 755 /usr/bin/linkmic\nroot:linkmic 640 /etc/linkmic/linkmic.toml"
    );
    assert_eq!(
        machine.shell("linkmic --version").await,
        format!("linkmic {}", env!("CARGO_PKG_VERSION"))
    );
    let conffiles = machine
        .shell("dpkg-query -W -f '${Conffiles}' linkmic")
        .await;
    assert!(
        conffiles.contains("/etc/linkmic/linkmic.toml") && conffiles.lines().count() == 1,
        "{conffiles}"
    );

    // Root finds the token that the service made, though HOME says to look elsewhere.
    let streams = "env HOME=/home linkmic ctl streams list --json";
    let streams = machine.shell(streams).await;
    assert!(streams.contains("\"streams\""), "{streams}");

    // An upgrade takes the new program, and leaves what an administrator wrote and may read.
    machine
        .shell("sed -i 's/0.0.0.0:8080/0.0.0.0:8081/' /etc/linkmic/linkmic.toml")
        .await;
    let next = next(package, folder.path());
    machine.install(&next).await;
    machine.ready(8081).await;
    assert_ne!(machine.service().await, first, "it was started anew");
    let kept = machine
        .shell("stat -c '%U:%G %a' /etc/linkmic/linkmic.toml; grep -c 8081 /etc/linkmic/linkmic.toml; grep -c '^# Since -2' /etc/linkmic/linkmic.toml.dpkg-dist")
        .await;
    assert_eq!(kept, "root:linkmic 640\n1\n1");

    // What is removed from another root, as when an image is made, leaves this one alone.
    let elsewhere = "mkdir -p /srv/image/etc && cp /etc/passwd /etc/group /etc/shadow /etc/gshadow /srv/image/etc/";
    machine.shell(elsewhere).await;
    for script in ["prerm remove", "postrm purge"] {
        let script = format!("DPKG_ROOT=/srv/image sh /var/lib/dpkg/info/linkmic.{script}");
        machine.shell(&script).await;
    }
    let left = "systemctl is-active linkmic; getent passwd linkmic | cut -d: -f1; ls -d /var/lib/linkmic; grep -c ^linkmic: /srv/image/etc/passwd || true";
    assert_eq!(
        machine.shell(left).await,
        "active\nlinkmic\n/var/lib/linkmic\n0"
    );
    machine.shell("rm -rf /srv/image").await;

    // An instance takes over from the service, listeners of systemd's included, which would have the service back.
    machine
        .shell("systemctl stop linkmic; systemctl start linkmic-rtmp.socket; systemctl start linkmic; systemctl disable linkmic")
        .await;
    machine.ready(8081).await;
    machine.shell("systemctl enable --now linkmic@a").await;
    machine
        .wait_for("test $(systemctl is-active linkmic) = inactive")
        .await;
    machine.ready(8081).await;
    let rtmp = format!("{}:1935", machine.address());
    let client = tokio::net::TcpStream::connect(&rtmp).await;
    client.expect("it listens");
    let states = "systemctl is-active linkmic linkmic@a linkmic-rtmp.socket || true";
    assert_eq!(machine.shell(states).await, "inactive\nactive\ninactive");

    // With the package it goes, and so do listeners of systemd's.
    machine.shell("dpkg -r linkmic").await;
    let left = format!("pgrep -x linkmic; {states}");
    let nothing = "inactive\ninactive\ninactive";
    assert_eq!(machine.shell(&left).await, nothing);
    machine.install(&next).await;
    machine.shell("systemctl start linkmic-rtmp.socket").await;

    // Removed, it is gone but for its configuration and state; and then altogether.
    machine.shell("dpkg -r linkmic").await;
    assert_eq!(machine.shell(&left).await, nothing);
    let left = machine
        .shell("ls -d /usr/bin/linkmic /usr/lib/systemd/system/linkmic* /etc/linkmic/linkmic.toml /var/lib/linkmic 2>/dev/null || true")
        .await;
    assert_eq!(left, "/etc/linkmic/linkmic.toml\n/var/lib/linkmic");
    // Of the administrator's making.
    machine
        .shell("rm -f /etc/linkmic/linkmic.toml.dpkg-dist")
        .await;
    machine.shell("dpkg -P linkmic").await;
    let after = machine.differences();
    let is_folder = |path: &&String| {
        let path = std::path::Path::new("/").join(path.trim_start_matches('/'));
        // One that was there before only shows that something in it was written.
        path.is_dir()
    };
    let left: Vec<_> = after
        .iter()
        .filter(|path| !before.contains(path) && !is_their_own(path))
        .filter(|path| !is_folder(path))
        .collect();
    assert_eq!(left, Vec::<&String>::new());
    machine
        .shell("! getent passwd linkmic && ! getent group linkmic && ! systemctl cat linkmic")
        .await;
}

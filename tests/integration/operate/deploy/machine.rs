//! A machine of its own: systemd as the first process, on a root that is this machine's until something is written to it. Only root may
//! start one. Where that cannot be, it is said where nobody captures it; with `LINKMIC_SYSTEMD` set it fails.

use std::path::PathBuf;
use std::time::Duration;

use linkmic::probe::process::{Process, output, poll};
use tempfile::TempDir;

use crate::edge::SOON;
use crate::edge::network::Network;
use crate::needs;

const PATIENCE: Duration = Duration::from_secs(60);

/// Puts an overlay over the root file system, seen by nobody else, and starts systemd on it in namespaces and control groups of
/// its own. `$1` is an empty folder, `$2` a network namespace. The filter of system calls that systemd-nspawn has for
/// containers is off: what is tried here are the unit's restrictions and no others. Up to `sysinit.target`, without timers and other
/// services.
const BOOT: &str = r#"
set -eu
for groups in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    if [ -e "$groups/cgroup.procs" ]; then
        mkdir "$groups/linkmic-machine-$$"
        echo $$ >"$groups/linkmic-machine-$$/cgroup.procs"
    fi
done
mount -t tmpfs -o mode=755 machine "$1"
mkdir "$1/upper" "$1/work" "$1/tree"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/tree"
# What is below must not change, and dpkg may be at work here at any time.
mount -t tmpfs -o mode=755 dpkg "$1/tree/var/lib/dpkg"
cp -a /var/lib/dpkg/. "$1/tree/var/lib/dpkg/"
ip -n "$2" link set lo up
tr -d - </proc/sys/kernel/random/uuid >"$1/tree/etc/machine-id"
# Services start when packages are installed, whatever holds outside.
rm -f "$1/tree/usr/sbin/policy-rc.d"
exec env SYSTEMD_SECCOMP=0 systemd-nspawn --quiet --register=no --keep-unit --link-journal=no --console=pipe \
    --directory="$1/tree" --machine="linkmic-$$" --network-namespace-path="/run/netns/$2" --boot systemd.unit=sysinit.target
"#;

/// Removes the control groups that are left when all processes in them are gone, which takes the kernel a moment.
const SWEEP: &str = r#"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    groups=$(find /sys/fs/cgroup -type d -name "linkmic-machine-$1")
    [ -z "$groups" ] && exit
    find $groups -depth -type d -exec rmdir {} + 2>/dev/null
    sleep 0.1
done
"#;

/// A machine for the test `what`; `None` where it cannot be started, which the whole run's output tells.
///
/// # Panics
/// When it cannot be started where it must be.
pub async fn for_test(what: &str) -> Option<Machine> {
    needs::given(
        Machine::boot().await,
        needs::MACHINE,
        what,
        "there is no machine of its own",
    )
}

/// Dropping it switches it off and leaves nothing of it.
pub struct Machine {
    /// Its first process, as this machine counts.
    first: Option<u32>,
    nspawn: Process,
    network: Network,
    folder: TempDir,
}

/// Where a process finds what it calls `path`.
fn as_seen_by(process: u32, path: &str) -> PathBuf {
    let tree = PathBuf::from(format!("/proc/{process}")).join("root");
    tree.join(path.trim_start_matches('/'))
}

impl Machine {
    /// # Errors
    /// Why it cannot be started here.
    async fn boot() -> Result<Self, String> {
        let network = Network::build().await?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let at = folder.path().display().to_string();
        let boot = [
            "--mount",
            "--propagation",
            "slave",
            "sh",
            "-c",
            BOOT,
            "boot",
            &at,
            network.name(),
        ];
        let nspawn = Process::spawn("unshare", &boot).map_err(|e| e.to_string())?;
        let mut machine = Self {
            first: None,
            nspawn,
            network,
            folder,
        };
        let up = poll("systemd to be up", PATIENCE, || {
            let over = machine.nspawn.ended().is_some();
            machine.first = machine.first.or_else(|| first_in(machine.nspawn.id()?));
            let asked = machine.first.map(|first| {
                let first = first.to_string();
                async move {
                    let ask = ["-t", &first, "-a", "systemctl", "show", "-P", "ActiveState"];
                    let ask = [&ask[..], &["sysinit.target"]].concat();
                    let state = output("nsenter", &ask, PATIENCE).await.ok()?;
                    (state == b"active\n").then_some(true)
                }
            });
            async move {
                match asked {
                    _ if over => Some(false),
                    Some(asked) => asked.await,
                    None => None,
                }
            }
        });
        match up.await {
            Ok(true) => Ok(machine),
            Ok(false) => Err(machine.nspawn.said()),
            Err(deadline) => Err(format!("{deadline}: {}", machine.nspawn.said())),
        }
    }

    /// Its address, as seen from here.
    pub fn address(&self) -> String {
        self.network.server()
    }

    /// Runs a line of shell in it, as root.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn run(&self, line: &str) -> Result<String, String> {
        let first = self.first.expect("it is up").to_string();
        // Neither this machine's folder nor its variables are known there.
        let enter = [
            "-t",
            &first,
            "-a",
            "--wd=/",
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND=noninteractive",
            "sh",
            "-c",
            line,
        ];
        match output("nsenter", &enter, PATIENCE).await {
            Ok(said) => Ok(String::from_utf8_lossy(&said).trim().to_owned()),
            Err(error) => Err(format!("{line}: {error}")),
        }
    }

    /// As [`run`](Self::run).
    ///
    /// # Panics
    /// When it fails; with what it said, and the service's log.
    pub async fn shell(&self, line: &str) -> String {
        match self.run(line).await {
            Ok(said) => said,
            Err(error) => panic!("{error}\n{}", self.log().await),
        }
    }

    /// What the service has said.
    pub async fn log(&self) -> String {
        let log = self.run("journalctl -u linkmic -o cat --no-pager").await;
        log.unwrap_or_else(|error| error)
    }

    /// Where a file of its is, as seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        let first = self.first.expect("it is up");
        as_seen_by(first, inside)
    }

    /// Writes a file.
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        let folder = path.parent().expect("an absolute path");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    /// Everything in it that differs from this machine, by path.
    pub fn differences(&self) -> Vec<String> {
        let nspawn = self.nspawn.id().expect("it is up");
        // Mounted for systemd-nspawn and those it started, and for nobody else.
        let upper = self.folder.path().join("upper");
        let listed = std::process::Command::new("find")
            .arg(as_seen_by(nspawn, &upper.display().to_string()))
            .args(["-mindepth", "1", "-printf", "/%P\n"])
            .output()
            .expect("find");
        assert!(listed.status.success(), "{listed:?}");
        let listed = String::from_utf8(listed.stdout).expect("paths");
        listed.lines().map(str::to_owned).collect()
    }

    /// Waits until a line of shell in it succeeds.
    pub async fn wait_for(&self, line: &str) {
        let done = poll(line, SOON, || async { self.run(line).await.ok() });
        if let Err(deadline) = done.await {
            panic!("{deadline}\n{}", self.log().await);
        }
    }
}

/// The child that is the first process of a namespace.
fn first_in(nspawn: u32) -> Option<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    let is_first = |id: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let ids = status.lines().find(|line| line.starts_with("NSpid:"));
        ids.is_some_and(|line| line.split_whitespace().nth(2) == Some("1"))
    };
    let mut ids = children.split_whitespace().filter_map(|id| id.parse().ok());
    ids.find(is_first)
}

impl Drop for Machine {
    fn drop(&mut self) {
        let run = |program: &str, arguments: &[&str]| {
            let _ = std::process::Command::new(program).args(arguments).output();
        };
        // With its first process all others end, and with the last of them the mounts are gone.
        if let Some(first) = self.first {
            run("kill", &["-KILL", &first.to_string()]);
        }
        if let Some(nspawn) = self.nspawn.id() {
            run("kill", &["-KILL", &nspawn.to_string()]);
            run("sh", &["-c", SWEEP, "sweep", &nspawn.to_string()]);
        }
    }
}

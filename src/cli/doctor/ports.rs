//! Whether the listeners can be opened, and who has those that cannot.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use super::host::PATIENCE;
use super::{Finding, State};
use crate::config::Config;
use crate::server;

/// The tables of the kernel's TCP sockets.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// `TCP_LISTEN`, as the tables have it.
const LISTENING: &str = "0A";

/// Every listener of the configuration. None is left open.
pub async fn all(config: &Config) -> Vec<Finding> {
    let tried = server::try_listeners(config);
    let in_use = |outcome: &io::Result<()>| {
        let error = outcome.as_ref().err();
        error.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    let units = match tried.iter().any(|(_, _, outcome)| in_use(outcome)) {
        true => socket_units().await,
        false => String::new(),
    };
    tried
        .into_iter()
        .map(|(key, address, outcome)| match unit_at(&units, address) {
            // The service's own listener may be beside it.
            Some(unit) if in_use(&outcome) => Finding::ok(
                "ports",
                format!("{key} {address}"),
                format!("held by systemd for {unit}, which hands it to the service"),
            ),
            _ => finding(key, address, outcome),
        })
        .collect()
}

/// Our socket units that listen now, as systemd lists them; nothing without a systemd.
async fn socket_units() -> String {
    let asked = Command::new("systemctl")
        .args(["list-sockets", "--state=active", "--plain", "--no-legend"])
        .args(["--no-pager", "linkmic-*.socket"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match timeout(PATIENCE, asked).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => String::new(),
    }
}

/// The unit that has an address, from systemd's list: what is listened on, the unit, the service.
pub(super) fn unit_at(list: &str, address: SocketAddr) -> Option<&str> {
    list.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let listen: SocketAddr = fields.next()?.parse().ok()?;
        let unit = fields.next()?;
        let all = listen.ip().is_unspecified() || address.ip().is_unspecified();
        let same = listen.port() == address.port() && (all || listen.ip() == address.ip());
        same.then_some(unit)
    })
}

fn finding(key: &str, address: SocketAddr, outcome: io::Result<()>) -> Finding {
    let name = format!("{key} {address}");
    let error = match outcome {
        Ok(()) => return Finding::ok("ports", name, "free"),
        Err(error) => error,
    };
    let bad = |found: String| Finding::new("ports", &name, State::Bad, found);
    match error.kind() {
        io::ErrorKind::AddrInUse => match listener(address.port()) {
            Some((id, program)) if program == "linkmic" => {
                Finding::ok("ports", name, format!("taken by a linkmic that runs, process {id}"))
            }
            Some((id, program)) => bad(format!("taken by {program}, process {id}"))
                .advise(format!("stop it, or give {key} another address")),
            None => bad("taken by another program".to_owned())
                .advise(format!("ss -ltnp says by which; stop it, or give {key} another address")),
        },
        io::ErrorKind::PermissionDenied => bad(error.to_string())
            .advise("ports below 1024 take AmbientCapabilities=CAP_NET_BIND_SERVICE in the service unit, or another port"),
        io::ErrorKind::AddrNotAvailable => {
            bad(error.to_string()).advise("this machine does not have that address")
        }
        _ => bad(error.to_string()),
    }
}

/// The process that listens on a port, as far as we may see: its id and its name.
fn listener(port: u16) -> Option<(u32, String)> {
    let sockets: HashSet<String> = TABLES
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| sockets(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Those of other users we may not look at.
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let targets = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        let has = |target: std::path::PathBuf| sockets.contains(&*target.to_string_lossy());
        if targets.into_iter().any(has) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some((id, name.trim().to_owned()));
        }
    }
    None
}

/// The inodes of sockets that listen on a port, from one of the kernel's tables.
pub(super) fn sockets(table: &str, port: u16) -> Vec<String> {
    let inode = |line: &'_ str| {
        // Number, local address, peer's address, state; then five more before the inode.
        let fields: Vec<_> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let found = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (found == port && *state == LISTENING).then(|| (*inode).to_owned())
    };
    table.lines().filter_map(inode).collect()
}

//! The service manager: what it is told, and the sockets that it opens.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use linkmic::probe::process::{self, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::abuse::binary::Binary;
use crate::edge::SOON;
use crate::home::Home;

/// A service manager that only listens.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("an option");
        Self {
            socket,
            path: format!("NOTIFY_SOCKET={}", path.display()),
            _folder: folder,
        }
    }

    /// The next message that has a line which begins so.
    async fn hears(&self, line: &str) -> String {
        let heard = poll(line, SOON, || async {
            let mut bytes = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut bytes) {
                let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if message.lines().any(|own| own.starts_with(line)) {
                    return Some(message);
                }
            }
            None
        });
        heard.await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// All messages that have come and were not looked at.
    fn heard(&self) -> String {
        let mut all = String::new();
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            all += &String::from_utf8_lossy(&bytes[..length]);
            all.push('\n');
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_hears_of_each_step_and_that_the_server_lives() {
    let manager = Manager::new();
    let under = ["env", &manager.path, "WATCHDOG_USEC=600000"];
    let mut server = Binary::serve_under(&under, "").await;
    let ready = manager.hears("READY=1").await;
    assert!(ready.contains("STATUS=serving"), "{ready}");
    // Told only once it listens: whoever waits for it finds the doors open.
    TcpStream::connect(server.http).await.expect("it listens");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }
    server.reload("", "[limits]\npublishers = 5\n").await;
    let reloading = manager.hears("RELOADING=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1").await;
    let _publisher = crate::edge::client::Client::publish(&server.urls.push("a")).await;
    manager.hears("STATUS=serving: 1 published stream").await;
    server.signal("STOP").await;
    // What was on its way has come by then.
    while tokio::time::timeout(Duration::from_secs(2), manager.hears("WATCHDOG=1"))
        .await
        .is_ok()
    {}
    server.signal("CONT").await;
    manager.hears("WATCHDOG=1").await;
    server.end().await;
    manager.hears("STOPPING=1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_another_has_taken_over_from_does_not_say_that_the_service_stops() {
    let manager = Manager::new();
    let home = Home::without_mixes("[limits]\nhandshake = \"1s\"\n");
    let mut old = home.begin_under(&["env", &manager.path]).await;
    manager.hears("READY=1").await;
    let _new = home.take_over().await;
    let ended = old.process.end(SOON).await.expect("its end");
    assert!(ended.success(), "{}", old.process.said());
    let heard = manager.heard();
    assert!(!heard.contains("STOPPING=1"), "{heard}");
}

/// Opens sockets as a socket unit does, and runs the server again and again over them, once for each line that it reads.
const MANAGER: &str = r#"
import fcntl, os, socket, subprocess, sys
keep = []
for at in range(3):
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.listen(64)
    keep.append(fcntl.fcntl(one, fcntl.F_DUPFD, 50))
for at, fd in enumerate(keep):
    os.dup2(fd, 3 + at, inheritable=True)
names = os.environ.pop("NAMES")
env = dict(os.environ, LISTEN_FDS="3", LISTEN_FDNAMES=names)
shell = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh"]
while True:
    child = subprocess.Popen(shell + sys.argv[1:], env=env, pass_fds=(3, 4, 5))
    print("process", child.pid, file=sys.stderr, flush=True)
    print("ended", child.wait(), file=sys.stderr, flush=True)
    if not sys.stdin.readline():
        break
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_the_service_manager_are_served_and_who_comes_between_two_lives_is_not_refused()
{
    let under = ["env", "NAMES=rtmp:http:control", "python3", "-c", MANAGER];
    let mut server = Binary::serve_under(&under, "").await;
    let mut stdin = server.stdin();
    let first = crate::edge::client::Client::publish(&server.urls.push("a")).await;
    drop(first.expect("it is served"));
    let said = server.said();
    let id = said.lines().find_map(|line| line.strip_prefix("process "));
    let sent = process::signal("TERM", id.expect("a process")).await;
    sent.expect("a signal");
    let ended = poll("its end", SOON, || async {
        server.said().contains("\nended 0").then_some(())
    });
    ended
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", server.said()));
    // Nobody runs; the kernel takes the connection all the same, and whoever runs next answers.
    let mut early = TcpStream::connect(server.http).await.expect("not refused");
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    early.write_all(request).await.expect("it is taken");
    stdin.write_all(b"again\n").await.expect("it reads");
    let mut answer = String::new();
    let read = tokio::time::timeout(SOON, early.read_to_string(&mut answer));
    read.await.expect("in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let again = crate::edge::client::Client::publish(&server.urls.push("a")).await;
    again.expect("at the same address");
}

#[tokio::test]
async fn a_socket_without_a_name_of_ours_is_refused_with_what_to_do() {
    let under = [
        "env",
        "NAMES=rtmp:linkmic.socket:control",
        "python3",
        "-c",
        MANAGER,
    ];
    let said = Binary::fails_under(&under, "").await;
    assert!(
        said.contains("\"linkmic.socket\"; name it in its unit"),
        "{said}"
    );
    assert!(
        said.contains("rtmp, rtmps, http, https, control, compat"),
        "{said}"
    );
    let under = ["env", "NAMES=rtmp:rtmps:control", "python3", "-c", MANAGER];
    let said = Binary::fails_under(&under, "").await;
    assert!(said.contains("a socket for rtmps was passed"), "{said}");
    assert!(said.contains("there is no certificate"), "{said}");
}

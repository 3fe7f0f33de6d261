//! Against servers on this machine.

use std::net::TcpListener;

use super::*;

fn policy(networks: &[&str]) -> Policy {
    Policy {
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        max_bytes: 100,
        time: Duration::from_secs(10),
    }
}

/// A server that gives each of these answers once; its port.
fn serve(answers: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /p?sig=1 HTTP/1.1\r\n"));
            let _ = stream.write_all(&answer);
        }
    });
    port
}

fn get(policy: &Policy, answers: &[&str]) -> Result<Vec<u8>, Error> {
    let port = serve(answers.iter().map(|a| a.as_bytes().to_vec()).collect());
    policy.get(&format!("http://127.0.0.1:{port}/p?sig=1#part"))
}

#[test]
fn answers_of_all_forms_are_read() {
    let local = policy(&["127.0.0.0/8"]);
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
    ] {
        assert_eq!(
            get(&local, &[answer]).as_deref(),
            Ok(&b"hello"[..]),
            "{answer}"
        );
    }
    let on = "HTTP/1.1 302 Found\r\nLocation: /p?sig=1\r\n\r\n";
    let there = "HTTP/1.1 200 OK\r\n\r\nhello";
    assert_eq!(get(&local, &[on, there]).as_deref(), Ok(&b"hello"[..]));
}

#[test]
fn what_is_wrong_is_said() {
    let local = policy(&["127.0.0.1/32"]);
    let host = || "127.0.0.1".to_owned();
    let on = "HTTP/1.1 302 Found\r\nLocation: /p?sig=1\r\n\r\n";
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
    let to_file = "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n";
    for (answers, wanted) in [
        (
            vec!["HTTP/1.1 404 Not Found\r\n\r\n"],
            Error::Status {
                host: host(),
                status: 404,
            },
        ),
        (vec!["SSH-2.0\r\n\r\n"], Error::Syntax { host: host() }),
        (
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"],
            Error::Syntax { host: host() },
        ),
        (
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n"],
            Error::TooLong { limit: 100 },
        ),
        (vec![&long], Error::TooLong { limit: 100 }),
        (vec![on; 4], Error::Circle { host: host() }),
        (
            vec![to_file],
            Error::Address("\"file\" is neither http nor https".into()),
        ),
    ] {
        assert_eq!(get(&local, &answers), Err(wanted));
    }
}

#[test]
fn a_server_that_says_nothing_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = Policy {
        time: Duration::from_millis(50),
        ..policy(&["127.0.0.0/8"])
    };
    let error = policy.get(&format!("http://127.0.0.1:{port}/"));
    assert!(matches!(error, Err(Error::Slow { .. })), "{error:?}");
}

/// A server that sends a byte each 10 ms, of an answer that never ends; and how many it has sent, once nobody reads them.
fn trickle(first: &'static [u8]) -> (u16, std::thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let endless = std::iter::repeat_n(&b'x', 300);
        let mut sent = 0;
        for byte in first.iter().chain(endless) {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            sent += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        sent
    });
    (port, server)
}

#[test]
fn a_server_that_trickles_is_left_in_time_with_tls_and_without() {
    let policy = Policy {
        time: Duration::from_millis(200),
        ..policy(&["127.0.0.0/8"])
    };
    for (scheme, first) in [
        ("http", &b"HTTP/1.1 200 OK\r\nX: "[..]),
        // The head of a record of 16 KiB with a handshake: TLS reads on until it has all of it.
        ("https", &[22, 3, 3, 0x40, 0][..]),
    ] {
        let (port, server) = trickle(first);
        let error = policy.get(&format!("{scheme}://127.0.0.1:{port}/"));
        assert!(
            matches!(error, Err(Error::Slow { .. })),
            "{scheme}: {error:?}"
        );
        // In 200 ms it has sent 20 or fewer, and notices at the next that nobody reads.
        let sent = server.join().unwrap();
        assert!(sent < 200, "{scheme}: {sent}");
    }
}

#[test]
fn internal_addresses_are_only_for_those_allowed() {
    let none = policy(&[]);
    let error = none.get("http://127.0.0.1:1/x?sig=secret").unwrap_err();
    assert_eq!(
        error.to_string(),
        "127.0.0.1 is at 127.0.0.1, which is internal; [mixer] picture_networks can allow it"
    );
    for address in [
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "fe80::1",
        "fd00::1",
        "2002:a00:1::",
    ] {
        assert!(!none.allows(address.parse().unwrap()), "{address}");
    }
    for address in ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
        assert!(none.allows(address.parse().unwrap()), "{address}");
    }
    let some = policy(&["10.1.0.0/16"]);
    assert!(some.allows("10.1.2.3".parse().unwrap()));
    assert!(!some.allows("10.2.2.3".parse().unwrap()));
}

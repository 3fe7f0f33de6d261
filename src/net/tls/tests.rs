use super::*;

use std::fs;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::{self, Socket};

/// A folder with `cert.pem` and `key.pem`, and the certificate for clients that are to trust it.
struct Files {
    folder: TempDir,
    trusted: CertificateDer<'static>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trusted = write_pair(&folder);
        Self { folder, trusted }
    }

    fn paths(&self) -> (PathBuf, PathBuf) {
        let path = |name| self.folder.path().join(name);
        (path("cert.pem"), path("key.pem"))
    }

    fn load(&self) -> Arc<Certificates> {
        let (certificate, key) = self.paths();
        Certificates::load(certificate, key).unwrap()
    }
}

fn write_pair(folder: &TempDir) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(
        folder.path().join("key.pem"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    made.cert.der().clone()
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (ours, theirs) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (ours.unwrap(), theirs.unwrap().0)
}

/// A client that trusts `trusted` alone.
async fn connect(
    tcp: TcpStream,
    trusted: &CertificateDer<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

async fn pair() -> (TlsStream<TcpStream>, Socket) {
    let files = Files::new();
    let config = files.load().server_config(&[]).unwrap();
    let (client, server) = tcp_pair().await;
    // Little room, so that writes fall short soon.
    socket2::SockRef::from(&server)
        .set_send_buffer_size(8 << 10)
        .unwrap();
    let (client, server) = tokio::join!(
        connect(client, &files.trusted),
        Socket::encrypted(server, config)
    );
    (client.unwrap(), server.unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

fn pending(socket: &Socket) -> bool {
    socket.session().is_some_and(|s| s.connection.wants_write())
}

#[test]
fn the_expiry_is_that_of_the_certificate_shown_now() {
    let files = Files::new();
    let certificates = files.load();
    let first = certificates.expiry().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2031, 5, 6);
    let key = rcgen::KeyPair::generate().unwrap();
    let renewed = params.self_signed(&key).unwrap();
    let (certificate_path, key_path) = files.paths();
    fs::write(certificate_path, renewed.pem()).unwrap();
    fs::write(key_path, key.serialize_pem()).unwrap();
    assert_eq!(certificates.expiry(), Some(first), "not read yet");
    certificates.reload().unwrap();
    // `date -u -d 2031-05-06 +%s`
    let renewed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_935_792_000);
    assert_eq!(certificates.expiry(), Some(renewed));
    assert_ne!(first, renewed);
}

#[tokio::test]
async fn what_is_reported_as_written_is_out_or_followed_by_something_still_to_be_written() {
    let (mut client, server) = pair().await;
    let whole = pattern(3 << 20);
    let reading = tokio::spawn(async move {
        let mut heard = vec![0; 3 << 20];
        // Falls behind again and again.
        for part in heard.chunks_mut(100_000) {
            client.read_exact(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        heard
    });
    let mut rest = whole.as_slice();
    let mut short = 0;
    while !rest.is_empty() {
        // Pieces of all kinds, as a media message has them: small, large, and none at all.
        let (a, b) = rest.split_at(rest.len().min(17));
        let (b, _) = b.split_at(b.len().min(70_000));
        let slices = [IoSlice::new(a), IoSlice::new(&[]), IoSlice::new(b)];
        match server.try_write_vectored(&slices) {
            Ok(n) => {
                assert!(n > 0);
                short += usize::from(n < a.len() + b.len());
                assert!(
                    !pending(&server) || n < a.len() + b.len(),
                    "an idle writer would leave bytes behind"
                );
                rest = &rest[n..];
            }
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                server.writable().await.unwrap();
            }
        }
    }
    assert!(
        short > 0,
        "the socket took everything at once: nothing was tested"
    );
    assert!(reading.await.unwrap() == whole);
}

#[tokio::test]
async fn a_session_holds_one_record_of_a_peer_that_does_not_read() {
    let (_client, server) = pair().await;
    let whole = pattern(8 << 20);
    let mut taken = 0;
    while let Ok(n) = server.try_write(&whole[taken..]) {
        taken += n;
    }
    assert!(pending(&server) && taken < whole.len());
    let before = taken;
    for _ in 0..100 {
        assert!(
            server.try_write(&whole[taken..]).is_err(),
            "more was accepted"
        );
    }
    assert_eq!(before, taken);
    let session = server.session().unwrap();
    // All that rustls may hold is set by the limit; this is what it was set to.
    assert_eq!(session.unreported, 1);
}

#[tokio::test]
async fn one_byte_is_enough_to_write() {
    let (mut client, server) = pair().await;
    for byte in [1, 2, 3] {
        assert_eq!(server.try_write(&[byte]).unwrap(), 1);
    }
    assert_eq!(server.try_write(&[]).unwrap(), 0);
    let mut heard = [0; 3];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, [1, 2, 3]);
}

#[tokio::test]
async fn plaintext_that_came_with_other_plaintext_is_readable() {
    let (mut client, server) = pair().await;
    for part in [b"one".as_slice(), b"two", b"three"] {
        client.write_all(part).await.unwrap();
    }
    client.shutdown().await.unwrap();
    let mut buffer = BytesMut::new();
    let reading = async { while net::read_some(&server, &mut buffer).await.unwrap() > 0 {} };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .unwrap();
    assert_eq!(buffer, b"onetwothree".as_slice());
}

#[tokio::test]
async fn an_end_is_told_from_a_cut_by_the_peer() {
    let (mut client, server) = pair().await;
    let closing = tokio::spawn(async move { net::close(server, b"why").await });
    let mut heard = Vec::new();
    // Without a goodbye this is an error.
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"why");
    drop(client);
    closing.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_closes_without_a_word_is_gone_not_broken() {
    let (mut client, server) = pair().await;
    // What it has not read would turn its close into a reset.
    server.write_all(b"x").await.unwrap();
    client.read_u8().await.unwrap();
    drop(client.into_inner().0);
    let mut buffer = BytesMut::new();
    assert_eq!(net::read_some(&server, &mut buffer).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let files = Files::new();
    let config = files.load().server_config(&[]).unwrap();
    let (mut client, server) = tcp_pair().await;
    // An RTMP client at the wrong door.
    client.write_all(&[3; 1537]).await.unwrap();
    let error = Socket::encrypted(server, config).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_reload_shows_the_new_certificate_to_new_connections_and_a_bad_file_changes_nothing() {
    let files = Files::new();
    let certificates = files.load();
    let config = certificates.server_config(&[]).unwrap();
    let is_shown = async |trusted: &CertificateDer<'static>| {
        let (client, server) = tcp_pair().await;
        let (client, _server) = tokio::join!(
            connect(client, trusted),
            Socket::encrypted(server, config.clone())
        );
        client.is_ok()
    };
    assert!(is_shown(&files.trusted).await);

    let (_, key) = files.paths();
    let good_key = fs::read(&key).unwrap();
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nnonsense\n").unwrap();
    let told = certificates.reload().unwrap_err().to_string();
    assert!(
        told.contains("key.pem") && !told.contains("nonsense"),
        "{told}"
    );
    assert!(is_shown(&files.trusted).await, "the old one is gone");

    let other = Files::new();
    fs::copy(other.paths().1, &key).unwrap();
    let told = certificates.reload().unwrap_err().to_string();
    assert!(told.contains("does not go with"), "{told}");
    fs::write(&key, good_key).unwrap();
    fs::write(files.paths().0, "no certificate in here").unwrap();
    assert!(matches!(
        certificates.reload(),
        Err(CertificateError::Empty(_))
    ));
    assert!(is_shown(&files.trusted).await, "the old one is gone");

    let fresh = write_pair(&files.folder);
    certificates.reload().unwrap();
    assert!(is_shown(&fresh).await);
    assert!(
        !is_shown(&files.trusted).await,
        "the old one is still shown"
    );
}

#[tokio::test]
async fn what_is_encrypted_and_not_out_counts_as_not_acknowledged() {
    let (client, server) = pair().await;
    let mut written = 0;
    loop {
        match server.try_write(&[7; 50_000]) {
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
    }
    // What the peer's kernel has taken, which its application has not: acknowledged sooner or later.
    let (tcp, _) = client.get_ref();
    let mut seen = vec![0; 16 << 20];
    let arrived = async |seen: &mut [u8]| tcp.peek(seen).await.unwrap();
    let mut before = 0;
    let (arrived, unacknowledged) = loop {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let now = (
            arrived(&mut seen).await,
            crate::net::unacknowledged(&server).unwrap(),
        );
        if now.0 == before {
            break now;
        }
        before = now.0;
    };
    // Each full record is 22 bytes longer than what is in it, tickets of the handshake are there too.
    let records = written / MAX_PENDING + 1;
    let told = arrived + unacknowledged;
    println!("{written} bytes written: {arrived} arrived, {unacknowledged} unacknowledged");
    assert!(told >= written, "{told} of {written}");
    assert!(
        told <= written + 32 * records + 1_024,
        "{told} of {written}"
    );
}

/// What both ends say of a connection from ours to a listener of ours, when it asks for `host`.
async fn meet(files: &Files, trust: &Trust, host: &str) -> (io::Result<Socket>, bool) {
    let config = files.load().server_config(&[]).unwrap();
    let (client, server) = tcp_pair().await;
    let (client, server) = tokio::join!(
        Socket::encrypted_to(client, trust, host),
        Socket::encrypted(server, config)
    );
    (client, server.is_ok())
}

#[tokio::test]
async fn a_client_of_ours_believes_whom_it_was_told_to_and_nobody_else() {
    let (files, other) = (Files::new(), Files::new());
    let trusting = |files: &Files| Trust::load(Some(&files.paths().0)).unwrap();
    let (client, met) = meet(&files, &trusting(&files), "localhost").await;
    assert!(client.is_ok() && met);
    for (name, trust, host, expected) in [
        (
            "an unknown one",
            trusting(&other),
            "localhost",
            "invalid peer certificate",
        ),
        (
            "another name",
            trusting(&files),
            "cdn.example",
            "not valid for name",
        ),
        (
            "its address",
            trusting(&files),
            "127.0.0.1",
            "not valid for name",
        ),
        (
            "no name at all",
            trusting(&files),
            "a b",
            "no certificate can be for",
        ),
    ] {
        let (client, met) = meet(&files, &trust, host).await;
        let told = client.unwrap_err().to_string();
        assert!(told.contains(expected), "{name}: {told}");
        assert!(!met, "{name}");
    }
    let told = Trust::load(Some(&files.paths().1)).unwrap_err().to_string();
    assert!(told.starts_with("there is no certificate in"), "{told}");
}

#[tokio::test]
async fn a_client_of_ours_writes_every_byte_to_a_server_that_reads_slowly() {
    let files = Files::new();
    let trust = Trust::load(Some(&files.paths().0)).unwrap();
    let config = files.load().server_config(&[]).unwrap();
    let (client, server) = tcp_pair().await;
    socket2::SockRef::from(&client)
        .set_send_buffer_size(8 << 10)
        .unwrap();
    let (client, server) = tokio::join!(
        Socket::encrypted_to(client, &trust, "localhost"),
        Socket::encrypted(server, config)
    );
    let (client, server) = (client.unwrap(), server.unwrap());
    let whole = pattern(1 << 20);
    let expected = whole.clone();
    let reading = tokio::spawn(async move {
        let mut heard = BytesMut::new();
        while net::read_some(&server, &mut heard).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        heard
    });
    client.write_all(&whole).await.unwrap();
    client.shut_down().await.unwrap();
    assert!(reading.await.unwrap() == expected.as_slice());
}

//! TLS as a client of ours needs it: certificates made on the spot, what a listener shows, and a tunnel that puts a
//! client without TLS inside it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linkmic::probe::process;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::SOON;

/// A folder with a certificate for `localhost` and its key, which it made itself.
pub struct Pair(TempDir);

impl Pair {
    pub fn new() -> Self {
        let pair = Self(tempfile::tempdir().expect("a folder"));
        pair.renew();
        pair
    }

    /// Another certificate with another key, in the same files.
    pub fn renew(&self) {
        let names = ["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        fs::write(self.certificate(), made.cert.pem()).expect("written");
        fs::write(self.key(), made.signing_key.serialize_pem()).expect("written");
    }

    pub fn certificate(&self) -> PathBuf {
        self.0.path().join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.0.path().join("key.pem")
    }

    /// The section `[rtmps]` with these files, on a port that the system chooses.
    pub fn section(&self) -> String {
        format!(
            "[rtmps]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            self.certificate().display(),
            self.key().display()
        )
    }

    /// The certificate as PEM without line ends, as [`shown`] gives it.
    pub fn on_disk(&self) -> String {
        let pem = fs::read_to_string(self.certificate()).expect("a certificate");
        let body = pem.lines().filter(|line| !line.starts_with("-----"));
        body.flat_map(str::split_whitespace).collect()
    }

    /// A server of TLS that shows the certificate as it is now.
    pub fn showing(&self) -> TlsAcceptor {
        let chain = CertificateDer::from_pem_file(self.certificate()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(self.key()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("a pair");
        TlsAcceptor::from(Arc::new(config))
    }

    /// A client of TLS that trusts the certificate as it is now, and no other.
    pub fn trusting(&self) -> TlsConnector {
        trusting(&self.certificate())
    }
}

fn trusting(certificate: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_file(certificate).expect("a certificate");
    roots.add(trusted).expect("trusted");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A session that is taken up again is shown no certificate.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// Shakes hands with `localhost` over `tcp`.
///
/// # Errors
/// When the certificate is not trusted, or the other end does not speak TLS.
pub async fn inside_tls(
    trusting: &TlsConnector,
    tcp: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    trusting.connect(name, tcp).await
}

/// The certificate that openssl is shown at `at`, as PEM without line ends; `option` is a version, `-tls1_3`.
pub async fn shown(at: SocketAddr, option: &str) -> Option<String> {
    let at = at.to_string();
    let arguments = [
        "s_client",
        option,
        "-connect",
        &at,
        "-servername",
        "localhost",
    ];
    let shown = process::output("openssl", &arguments, SOON).await.ok()?;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let (_, rest) = shown.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    Some(body.split_whitespace().collect())
}

/// Puts clients that know no TLS inside it. Dropping it lets nobody else in.
pub struct Tunnel {
    address: SocketAddr,
    acceptor: AbortHandle,
}

impl Tunnel {
    /// To the TLS listener `server`, whose certificate `trusting` accepts.
    pub async fn to(server: SocketAddr, trusting: TlsConnector) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, trusting.clone()));
            }
        });
        Self {
            address,
            acceptor: acceptor.abort_handle(),
        }
    }

    /// `url`, which names the plain listener `plain`, by way of this tunnel.
    pub fn through(&self, url: &str, plain: SocketAddr) -> String {
        url.replace(&plain.to_string(), &self.address.to_string())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, trusting: TlsConnector) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("no delay");
    }
    // A client sees its connection end where TLS does not come about.
    if let Ok(mut server) = inside_tls(&trusting, server).await {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

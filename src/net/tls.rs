//! TLS on a connection, without waiting, and the certificates that new connections are shown or must show.
//!
//! A session accepts plaintext only while no ciphertext of an earlier write waits for the kernel, and at most one record
//! at a time, so at most [`MAX_PENDING`] bytes are neither the caller's nor the kernel's. While some wait, the last byte
//! they stand for is not reported as written: the caller, who still has something to write, comes back when the
//! socket takes more, and nobody has to remember a connection that went idle with half a record unsent.
//!
//! Knows rustls (with ring; no other provider is linked) and PEM files. Called by [`super::Socket`] and, for the
//! certificates, by the server.

mod expiry;
mod trust;

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Connection, ServerConfig, ServerConnection};
use tokio::net::TcpStream;

pub use trust::{Trust, TrustError};

/// Plaintext in one record at most, and so what a session holds between its caller and the kernel. More would be lag
/// that the slow-reader policy cannot take back: 16 KiB is 0.37 s at 350 kbit/s.
const MAX_PENDING: usize = 16 << 10;

/// What a record is longer than its plaintext: header, kind and tag in TLS 1.3. TLS 1.2 has 7 bytes more.
const RECORD_OVERHEAD: usize = 22;

/// One connection's keys and buffers.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    /// Plaintext bytes that went out, or are on their way, and were not reported as written.
    unreported: usize,
    /// Ciphertext of the last record that the kernel has not taken, in bytes.
    pending: usize,
    said_goodbye: bool,
}

/// What a handshake waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes of the peer.
    Read,
    /// The kernel to take ours.
    Write,
    /// Nothing: something came.
    Again,
    Done,
}

impl Session {
    /// The server's end.
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self::over(connection))
    }

    fn over(connection: impl Into<Connection>) -> Self {
        let mut connection = connection.into();
        connection.set_buffer_limit(Some(MAX_PENDING));
        Self {
            connection,
            unreported: 0,
            pending: 0,
            said_goodbye: false,
        }
    }

    /// Goes on with the handshake as far as the kernel lets it.
    ///
    /// # Errors
    /// When the connection breaks, or the peer offers nothing that we take.
    pub(super) fn step(&mut self, tcp: &TcpStream) -> io::Result<Step> {
        match self.flush(tcp) {
            Ok(()) if !self.connection.is_handshaking() => return Ok(Step::Done),
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Write),
            Err(e) => return Err(e),
        }
        match self.take_in(tcp) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Step::Again),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Step::Read),
            Err(e) => Err(e),
        }
    }

    /// Has something been decrypted that nobody has read, or has the stream ended?
    pub(super) fn has_plaintext(&mut self) -> bool {
        match self.connection.reader().fill_buf() {
            Ok(_) => true,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Takes ciphertext from the kernel and decrypts it. 0: the peer's TCP has ended.
    pub(super) fn take_in(&mut self, tcp: &TcpStream) -> io::Result<usize> {
        let n = self.connection.read_tls(&mut Kernel(tcp))?;
        if let Err(error) = self.connection.process_new_packets() {
            // The alert says why; where it does not fit, the peer sees a connection that ends.
            let _ = self.flush(tcp);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(n)
    }

    /// Reads decrypted bytes; 0 is the end of the stream.
    pub(super) fn read(&mut self, tcp: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            let mut reader = self.connection.reader();
            match reader.fill_buf() {
                Ok(plaintext) => {
                    let n = plaintext.len();
                    buffer.extend_from_slice(plaintext);
                    reader.consume(n);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // ffmpeg and librtmp close without a word. What a cut could hide, a media message that is not
                // whole, the layers above throw away by themselves.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(e) => return Err(e),
            }
            self.take_in(tcp)?;
            // Answers of TLS itself, a key update say. What the kernel does not take now goes before the next write.
            match self.flush(tcp) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                _ => {}
            }
        }
    }

    /// Encrypts and writes as much as the kernel takes.
    pub(super) fn write(&mut self, tcp: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(tcp)?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = std::mem::take(&mut self.unreported).min(total);
        let mut rest = Vec::new();
        while taken < total {
            let offered = if taken == 0 {
                slices
            } else {
                rest.clear();
                rest.extend(after(slices, taken));
                &rest
            };
            // Nothing is pending, so there is room for a record.
            let plaintext = self.connection.writer().write_vectored(offered)?;
            self.pending = plaintext + RECORD_OVERHEAD;
            taken += plaintext;
            match self.flush(tcp) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.unreported = 1;
                    return if taken > 1 { Ok(taken - 1) } else { Err(e) };
                }
                Err(e) => return Err(e),
            }
        }
        Ok(taken)
    }

    /// Hands pending ciphertext to the kernel.
    ///
    /// # Errors
    /// `WouldBlock` when some is left.
    pub(super) fn flush(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            let n = self.connection.write_tls(&mut Kernel(tcp))?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.pending = self.pending.saturating_sub(n);
        }
        self.pending = 0;
        Ok(())
    }

    /// Bytes that were taken from the caller and stand encrypted here, because the kernel took no more.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// The last record: nothing more comes.
    ///
    /// # Errors
    /// `WouldBlock` when it, or what goes before it, is not out yet; to be called again then.
    pub(super) fn say_goodbye(&mut self, tcp: &TcpStream) -> io::Result<()> {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            self.connection.send_close_notify();
        }
        self.flush(tcp)
    }
}

/// What is left of `slices` behind their first `skip` bytes.
fn after<'a>(slices: &'a [IoSlice<'_>], mut skip: usize) -> impl Iterator<Item = IoSlice<'a>> {
    slices.iter().filter_map(move |slice| {
        let cut = skip.min(slice.len());
        skip -= cut;
        (cut < slice.len()).then(|| IoSlice::new(&slice[cut..]))
    })
}

/// The kernel's end of the connection, as rustls wants to see it.
struct Kernel<'a>(&'a TcpStream);

impl Read for Kernel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why there is no certificate to show. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read the certificate {}: {source}", path.display())]
    Certificate {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("there is no certificate in {}", .0.display())]
    Empty(PathBuf),
    #[error("cannot read the private key {}: {source}", path.display())]
    Key {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("the private key {} does not go with the certificate {}: {source}", key.display(), certificate.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
}

/// The certificate that new connections are shown, from two PEM files: the chain, leaf first, and its private key.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
}

impl Certificates {
    /// Reads both files.
    ///
    /// # Errors
    /// When one cannot be read, or they are no pair.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let current = read_pair(&certificate, &key, &provider)?;
        Ok(Arc::new(Self {
            certificate,
            key,
            provider,
            current: ArcSwap::from_pointee(current),
        }))
    }

    /// Reads both files again, for connections from now on; those that stand keep what they have. Short file access:
    /// for a blocking thread.
    ///
    /// # Errors
    /// As [`Self::load`]; then the old certificate stays.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let fresh = read_pair(&self.certificate, &self.key, &self.provider)?;
        self.current.store(Arc::new(fresh));
        Ok(())
    }

    /// When the certificate that is shown now ends; `None`: it does not say.
    pub fn expiry(&self) -> Option<SystemTime> {
        let shown = self.current.load();
        expiry::not_after(shown.cert.first()?)
    }

    /// How a listener that shows this certificate speaks TLS (1.2 and 1.3). `protocols` are the names it answers to
    /// in ALPN, `http/1.1` say; none: it does not look.
    ///
    /// # Errors
    /// When the provider lacks what both TLS versions need, which would be a build mistake.
    pub fn server_config(
        self: &Arc<Self>,
        protocols: &[&str],
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read_pair(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let unreadable = |source| CertificateError::Certificate {
        path: certificate.to_owned(),
        source,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty(certificate.to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|source| CertificateError::Key {
        path: key.to_owned(),
        source,
    })?;
    CertifiedKey::from_der(chain, secret, provider).map_err(|source| CertificateError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;

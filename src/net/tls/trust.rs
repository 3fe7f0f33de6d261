//! Whom we believe when we are the client: certificate authorities, and the name that a server must prove.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::Session;

/// Why it is not known whom to believe. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read the certificate authorities {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("there is no certificate in {}", .0.display())]
    Empty(PathBuf),
    #[error("a certificate in {} is none that can be trusted: {source}", path.display())]
    Unfit {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("TLS cannot be used: {0}")]
    Tls(rustls::Error),
}

/// The certificate authorities that a server's certificate must come from. Cheap to clone.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    authorities: usize,
}

impl Trust {
    /// Those of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` go first), and those in the PEM file `more` besides.
    /// Read once: what is changed there later is seen by the next process.
    ///
    /// # Errors
    /// When `more` cannot be read or holds none. A system without any is no error, since there may be no use for them:
    /// the first connection says so.
    pub fn load(more: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        // What is broken in the system's own files is not ours to judge; what is good of it counts.
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if let Some(path) = more {
            add(path, &mut roots)?;
        }
        let authorities = roots.len();
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            authorities,
        })
    }

    /// The same for a client that makes its own connections.
    pub fn client_config(&self) -> ClientConfig {
        ClientConfig::clone(&self.config)
    }

    /// The client's end of a connection to `host`, a name or an address.
    pub(in crate::net) fn session(&self, host: &str) -> io::Result<Session> {
        if self.authorities == 0 {
            return Err(io::Error::other(
                "no certificate authority is known; install the system's (ca-certificates) or name a file of them",
            ));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("no certificate can be for {host:?}")))?;
        let connection =
            ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
        Ok(Session::over(connection))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("authorities", &self.authorities)
            .finish()
    }
}

fn add(path: &Path, roots: &mut RootCertStore) -> Result<(), TrustError> {
    let unreadable = |source| TrustError::Read {
        path: path.to_owned(),
        source,
    };
    let mut found = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|source| TrustError::Unfit {
            path: path.to_owned(),
            source,
        })?;
        found += 1;
    }
    if found == 0 {
        return Err(TrustError::Empty(path.to_owned()));
    }
    Ok(())
}

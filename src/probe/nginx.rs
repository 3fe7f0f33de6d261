//! A second RTMP server, as a CDN would be: nginx with its RTMP module, on loopback, in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::Error;
use super::process::{Process, poll};

/// Where Debian's libnginx-mod-rtmp puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

/// Connections of a test's server.
const FEW: u32 = 64;

/// A running nginx with one live application, `live`. Dropping it kills it.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    folder: PathBuf,
    addr: SocketAddr,
    connections: u32,
}

impl Nginx {
    /// Starts nginx on a free port of 127.0.0.1 and waits until it accepts connections. `folder` exists,
    /// is writable, and is nobody else's.
    ///
    /// # Errors
    /// [`Error::Missing`] without nginx or its module; [`Error::Ended`] when it does not start.
    pub async fn start(folder: &Path) -> Result<Self, Error> {
        Self::start_for(folder, FEW).await
    }

    /// As [`start`](Self::start), for up to so many connections.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_for(folder: &Path, connections: u32) -> Result<Self, Error> {
        let addr = free_addr().await?;
        Self::start_at(folder, addr, connections).await
    }

    /// Kills it (if it runs), and starts it again on the same port.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill().await;
        *self = Self::start_at(&self.folder.clone(), self.addr, self.connections).await?;
        Ok(())
    }

    /// Kills it at once, as a power cut would.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Its process, which is the only one; `None` when it is gone.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The URL of stream `name` here.
    pub fn url(&self, name: &str) -> String {
        format!("rtmp://{}/live/{name}", self.addr)
    }

    async fn start_at(folder: &Path, addr: SocketAddr, connections: u32) -> Result<Self, Error> {
        if !Path::new(MODULE).exists() {
            return Err(Error::Missing {
                program: format!("nginx's RTMP module ({MODULE})"),
                package: "nginx libnginx-mod-rtmp",
            });
        }
        let config = folder.join("nginx.conf");
        std::fs::write(&config, configuration(folder, addr, connections))
            .map_err(|e| Error::io(format!("cannot write {}", config.display()), e))?;
        let (folder, config) = (absolute(folder)?, absolute(&config)?);
        let arguments = [
            "-e".to_owned(),
            "stderr".to_owned(),
            "-p".to_owned(),
            folder.display().to_string(),
            "-c".to_owned(),
            config.display().to_string(),
        ];
        let mut process = Process::spawn("nginx", &arguments)?;
        let listens = poll("nginx listening", Duration::from_secs(10), || async {
            TcpStream::connect(addr).await.ok()
        });
        if let Err(deadline) = listens.await {
            return Err(match process.ended() {
                Some(status) => process.failure(status),
                None => deadline,
            });
        }
        if let Some(status) = process.ended() {
            // Somebody else took the port in between.
            return Err(process.failure(status));
        }
        Ok(Self {
            process,
            folder,
            addr,
            connections,
        })
    }
}

/// An address of 127.0.0.1 that nobody listens on at the moment.
///
/// # Errors
/// When the system has none left.
pub async fn free_addr() -> Result<SocketAddr, Error> {
    let free = async { TcpListener::bind("127.0.0.1:0").await?.local_addr() };
    free.await.map_err(|e| Error::io("a free port", e))
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|e| Error::io(path.display().to_string(), e))
}

/// One process without a master, so that ending it ends all of it.
fn configuration(folder: &Path, addr: SocketAddr, connections: u32) -> String {
    format!(
        "load_module {MODULE};\n\
         daemon off;\n\
         master_process off;\n\
         error_log stderr warn;\n\
         pid {}/nginx.pid;\n\
         events {{ worker_connections {connections}; }}\n\
         rtmp {{\n\
         \x20   access_log off;\n\
         \x20   server {{\n\
         \x20       listen {addr};\n\
         \x20       chunk_size 4096;\n\
         \x20       application live {{ live on; record off; }}\n\
         \x20   }}\n\
         }}\n",
        std::path::absolute(folder)
            .unwrap_or_else(|_| folder.to_owned())
            .display()
    )
}

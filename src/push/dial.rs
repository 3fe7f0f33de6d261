//! The way to a target: name look-up, TCP, TLS.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::Config;
use super::connection::Failure;
use crate::net::{self, Socket};
use crate::rtmp::url::Target;

/// Connects, encrypts where the URL wants that, and makes the socket what a push needs.
///
/// # Errors
/// When any of it fails, or takes longer than [`Config::connect_timeout`] in all.
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub(super) async fn dial(target: &Target, config: &Config) -> Result<Socket, Failure> {
    let limit = config.connect_timeout;
    let way = async {
        let tcp = connect(target, limit).await?;
        net::tune(&tcp)?;
        if !target.tls {
            return Ok(Socket::plain(tcp));
        }
        let Some(trust) = &config.trust else {
            return Err(Failure::NoTls);
        };
        Socket::encrypted_to(tcp, trust, &target.host)
            .await
            .map_err(Failure::Tls)
    };
    let socket = timeout(limit, way)
        .await
        .map_err(|_| Failure::ConnectTimeout(limit))??;
    // The watchdog decides, by what is acknowledged. The kernel's own limit also counts windows that open by less than a
    // segment at a time, and ended a target that took 100 kbit/s all along after 10 s.
    net::give_up_after(&socket, Duration::ZERO)?;
    Ok(socket)
}

/// Connects to the first address that answers; each has its share of `limit`.
async fn connect(target: &Target, limit: Duration) -> Result<TcpStream, Failure> {
    let lookup = |source| Failure::Lookup {
        host: target.host.clone(),
        source,
    };
    let addresses: Vec<_> = lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(lookup)?
        .collect();
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = lookup(io::Error::other("the name has no address"));
    for address in addresses {
        failure = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(e)) => Failure::Connect(e),
            Err(_) => Failure::ConnectTimeout(share),
        };
    }
    Err(failure)
}

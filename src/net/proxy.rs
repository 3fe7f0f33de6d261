//! The PROXY protocol: who a connection really comes from, told by a load balancer in front of us.
//!
//! | source | covered here |
//! |---|---|
//! | HAProxy, "The PROXY protocol", versions 1 and 2 (2020) | section 2.1 (text) and 2.2 (binary): TCP over IPv4 and IPv6, UNKNOWN, LOCAL and other families (then the connection speaks for itself); TLVs are skipped |
//!
//! A header is believed only from the networks that the operator trusts, and where it is expected it must come: who
//! could leave it out, or send it from anywhere, could be anybody. Not one byte behind it is taken.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use ppp::{v1, v2};
use tokio::net::TcpStream;

use super::canonical;

/// Longest text header, CR LF included (section 2.1).
const MAX_V1: usize = 107;
/// Both versions have at least this many bytes, and with so many they can be told apart.
const SHORTEST: usize = 12;
/// What precedes the addresses of a binary header: signature, version, family, length.
const V2_FIXED: usize = 16;
/// Addresses and TLVs of a binary header. Two UNIX addresses are 216 bytes, and balancers add names, ids and a
/// client certificate's subject; the format allows 64 KiB, which nobody sends.
const MAX_V2_REST: usize = 4_096;

/// Networks whose word about a client's address is taken. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trusted(Arc<[IpNet]>);

/// Why a connection is not what its listener expects.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is no trusted proxy")]
    Untrusted(IpAddr),
    #[error("no PROXY header")]
    Missing,
    #[error("PROXY header of {len} bytes exceeds the limit of {limit}")]
    TooLong { len: usize, limit: usize },
    #[error("PROXY header makes no sense: {0}")]
    Malformed(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Trusted {
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Reads the header from `peer` and gives the client's address: the announced one, or `peer` where the proxy
    /// speaks for itself (a health check). How long that may take is the caller's to bound.
    ///
    /// # Errors
    /// When `peer` is not trusted, or what comes first is not a header.
    pub async fn read_header(
        &self,
        tcp: &TcpStream,
        peer: SocketAddr,
    ) -> Result<SocketAddr, Error> {
        if !self.0.iter().any(|network| network.contains(&peer.ip())) {
            return Err(Error::Untrusted(peer.ip()));
        }
        let mut header = vec![0; SHORTEST];
        read_exact(tcp, &mut header).await?;
        let announced = if header == v2::PROTOCOL_PREFIX {
            read_binary(tcp, &mut header).await?
        } else if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
            read_text(tcp, &mut header).await?
        } else {
            return Err(Error::Missing);
        };
        Ok(announced.map_or(peer, canonical))
    }
}

/// The address that a whole header announces; `None` where the proxy speaks for itself. Any bytes give an answer.
///
/// # Errors
/// When it is no header, or is cut off.
pub fn parse(header: &[u8]) -> Result<Option<SocketAddr>, Error> {
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        parse_binary(header)
    } else if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        parse_text(header)
    } else {
        Err(Error::Missing)
    }
}

async fn read_binary(tcp: &TcpStream, header: &mut Vec<u8>) -> Result<Option<SocketAddr>, Error> {
    header.resize(V2_FIXED, 0);
    read_exact(tcp, &mut header[SHORTEST..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if rest > MAX_V2_REST {
        return Err(Error::TooLong {
            len: V2_FIXED + rest,
            limit: V2_FIXED + MAX_V2_REST,
        });
    }
    header.resize(V2_FIXED + rest, 0);
    read_exact(tcp, &mut header[V2_FIXED..]).await?;
    parse(header)
}

fn parse_binary(header: &[u8]) -> Result<Option<SocketAddr>, Error> {
    let header = v2::Header::try_from(header).map_err(|e| Error::Malformed(e.to_string()))?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    })
}

/// The line's length is known only by its end, and what follows it is not ours: look first, take then.
async fn read_text(tcp: &TcpStream, header: &mut Vec<u8>) -> Result<Option<SocketAddr>, Error> {
    while !header.ends_with(b"\r\n") {
        let room = MAX_V1 - header.len();
        if room == 0 {
            return Err(Error::TooLong {
                len: MAX_V1 + 1,
                limit: MAX_V1,
            });
        }
        let mut seen = [0; MAX_V1];
        let n = tcp.peek(&mut seen[..room]).await?;
        if n == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let line_end = seen[..n].iter().position(|&b| b == b'\n');
        let take = line_end.map_or(n, |at| at + 1);
        let from = header.len();
        header.resize(from + take, 0);
        read_exact(tcp, &mut header[from..]).await?;
        if line_end.is_some() {
            break;
        }
    }
    parse(header)
}

fn parse_text(header: &[u8]) -> Result<Option<SocketAddr>, Error> {
    let header = v1::Header::try_from(header).map_err(|e| Error::Malformed(e.to_string()))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

async fn read_exact(tcp: &TcpStream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        tcp.readable().await?;
        match tcp.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => buffer = &mut buffer[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn loopback() -> Trusted {
        Trusted::new(["127.0.0.0/8".parse().unwrap()])
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([command, family]);
        header.extend((rest.len() as u16).to_be_bytes());
        header.extend(rest);
        header
    }

    /// 203.0.113.7:1000 to 192.0.2.1:443.
    fn four() -> Vec<u8> {
        binary(0x21, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 3, 232, 1, 187])
    }

    /// Writes `bytes` in two parts and says what the header gave and what is left behind it.
    async fn read(
        trusted: &Trusted,
        bytes: &[u8],
        cut: usize,
    ) -> (Result<SocketAddr, Error>, Vec<u8>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        client.set_nodelay(true).unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let writing = async move {
            client.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            // A refusal may close before all is written.
            let _ = client.write_all(second).await;
            let _ = client.shutdown().await;
        };
        let (got, ()) = tokio::join!(trusted.read_header(&server, peer), writing);
        let mut rest = Vec::new();
        let mut server = server;
        if got.is_ok() {
            tokio::io::AsyncReadExt::read_to_end(&mut server, &mut rest)
                .await
                .unwrap();
        }
        let own = peer;
        (
            got.map(|a| {
                if a == own {
                    SocketAddr::from(([0, 0, 0, 0], 0))
                } else {
                    a
                }
            }),
            rest,
        )
    }

    #[tokio::test]
    async fn the_announced_address_counts_and_not_a_byte_behind_the_header_is_taken() {
        let mut six = vec![0; 36];
        six[..16].copy_from_slice(
            &"2001:db8::7"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
        );
        six[32..34].copy_from_slice(&1000u16.to_be_bytes());
        let mut mapped = six.clone();
        mapped[..16].copy_from_slice(
            &"::ffff:203.0.113.7"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
        );
        let with_tlv = [&four()[16..], &[4, 0, 3, 1, 2, 3]].concat();
        let own = "0.0.0.0:0";
        for (name, header, expected) in [
            (
                "text, IPv4",
                b"PROXY TCP4 203.0.113.7 192.0.2.1 1000 443\r\n".to_vec(),
                "203.0.113.7:1000",
            ),
            (
                "text, IPv6",
                b"PROXY TCP6 2001:db8::7 2001:db8::1 1000 443\r\n".to_vec(),
                "[2001:db8::7]:1000",
            ),
            ("text, unknown", b"PROXY UNKNOWN\r\n".to_vec(), own),
            ("binary, IPv4", four(), "203.0.113.7:1000"),
            (
                "binary, IPv6",
                binary(0x21, 0x21, &six),
                "[2001:db8::7]:1000",
            ),
            (
                "binary, IPv4 in IPv6",
                binary(0x21, 0x21, &mapped),
                "203.0.113.7:1000",
            ),
            (
                "binary, with a TLV",
                binary(0x21, 0x11, &with_tlv),
                "203.0.113.7:1000",
            ),
            ("binary, LOCAL", binary(0x20, 0x00, &[]), own),
            (
                "binary, LOCAL with addresses",
                binary(0x20, 0x11, &four()[16..]),
                own,
            ),
            ("binary, UNIX", binary(0x21, 0x31, &[0; 216]), own),
        ] {
            for cut in 0..=header.len() {
                let bytes = [&header, b"\x03rtmp\r\n".as_slice()].concat();
                let (got, rest) = read(&loopback(), &bytes, cut).await;
                let got = got.unwrap_or_else(|e| panic!("{name}, cut at {cut}: {e}"));
                assert_eq!(got, expected.parse().unwrap(), "{name}, cut at {cut}");
                assert_eq!(rest, b"\x03rtmp\r\n", "{name}, cut at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long_line = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        for (name, bytes, expected) in [
            ("RTMP", vec![3; 1537], "no PROXY header"),
            (
                "HTTP",
                b"GET /healthz HTTP/1.1\r\n\r\n".to_vec(),
                "no PROXY header",
            ),
            (
                "a line without end",
                long_line,
                "PROXY header of 108 bytes exceeds the limit of 107",
            ),
            (
                "too many TLVs",
                binary(0x21, 0x11, &[0; 5000]),
                "PROXY header of 5016 bytes exceeds the limit of 4112",
            ),
            (
                "no address",
                b"PROXY TCP4 x y 1 2\r\n".to_vec(),
                "PROXY header makes no sense",
            ),
            (
                "too few addresses",
                binary(0x21, 0x11, &[1, 2, 3]),
                "PROXY header makes no sense",
            ),
            (
                "version 3",
                binary(0x31, 0x11, &[0; 12]),
                "PROXY header makes no sense",
            ),
            ("cut", four()[..20].to_vec(), "unexpected end of file"),
        ] {
            let told = read(&loopback(), &bytes, usize::MAX)
                .await
                .0
                .unwrap_err()
                .to_string();
            assert!(told.starts_with(expected), "{name}: {told}");
        }
    }

    #[tokio::test]
    async fn a_header_from_elsewhere_is_not_believed() {
        let trusted = Trusted::new(["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let told = read(&trusted, &four(), usize::MAX).await.0.unwrap_err();
        assert_eq!(told.to_string(), "127.0.0.1 is no trusted proxy");
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parsers(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "PROXY [A-Z46]{0,8}[ -~]{0,80}\r\n") {
            let _ = parse_text(text.as_bytes());
            let _ = parse_text(&bytes);
            let _ = parse_binary(&bytes);
            bytes.splice(0..0, v2::PROTOCOL_PREFIX.iter().copied().chain([0x21]));
            let _ = parse_binary(&bytes);
        }
    }
}

//! Reads a network as people write it, the same way wherever one is named: bans, address lists, trusted proxies.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Bits of `::ffff:0:0/96`, the IPv4 addresses written as IPv6 ones.
const MAPPED: u8 = 96;

/// A network like `10.0.0.0/8` or `2001:db8::/32`, or an address, which is a network of one. IPv4 written as IPv6 is
/// IPv4, because that is what addresses of clients are made before they are looked up. Bits beyond the prefix are
/// left out. `None`: it is neither.
pub fn network(text: &str) -> Option<IpNet> {
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().ok()?,
    };
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED => v6.addr().to_ipv4_mapped(),
        _ => None,
    };
    let network = match mapped {
        // At most 128 - 96: as long as an IPv4 prefix can be.
        Some(v4) => Ipv4Net::new(v4, network.prefix_len() - MAPPED).ok()?.into(),
        None => network,
    };
    Some(network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_network_is_the_network_that_clients_are_looked_up_in() {
        for (text, network) in [
            ("203.0.113.7", "203.0.113.7/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:203.0.113.7", "203.0.113.7/32"),
            ("::ffff:203.0.113.7/128", "203.0.113.7/32"),
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:127.0.0.1/104", "127.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            // Wider than all of IPv4: a network of IPv6 addresses.
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("::/0", "::/0"),
            // Not the mapped addresses.
            ("::127.0.0.1/104", "::7f00:0/104"),
        ] {
            let expected: IpNet = network.parse().unwrap();
            assert_eq!(super::network(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::ffff:0:0/129",
            "example",
            "10.0.0.0/8 ",
        ] {
            assert_eq!(network(text), None, "{text:?}");
        }
    }
}

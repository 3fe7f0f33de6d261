//! Which addresses may come at all.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks that may, and networks that may not. What is denied is denied, also inside an allowed network;
/// when any are allowed, all others are denied. How long a prefix is does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressList {
    /// Empty: everybody who is not denied.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}

impl AddressList {
    /// Whether that address may come. An IPv4 address inside an IPv6 one is the IPv4 address.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let among = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_goes_before_allowed_and_an_empty_list_lets_all_in() {
        let nets = |text: &str| {
            text.split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect()
        };
        for (allow, deny, address, admitted) in [
            ("", "", "192.0.2.1", true),
            ("", "", "2001:db8::1", true),
            ("", "192.0.2.0/24", "192.0.2.1", false),
            ("", "192.0.2.0/24", "::ffff:192.0.2.1", false),
            ("", "192.0.2.0/24", "198.51.100.1", true),
            ("10.0.0.0/8", "", "10.1.2.3", true),
            ("10.0.0.0/8", "", "11.1.2.3", false),
            ("10.0.0.0/8", "", "2001:db8::1", false),
            ("10.0.0.0/8 2001:db8::/32", "", "2001:db8::1", true),
            // A denied network inside an allowed one, and the other way round: deny wins in both.
            ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", false),
            ("10.0.0.0/8", "10.1.0.0/16", "10.2.2.3", true),
            ("10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", false),
        ] {
            let list = AddressList {
                allow: nets(allow),
                deny: nets(deny),
            };
            let found = list.admits(address.parse().unwrap());
            assert_eq!(found, admitted, "allow {allow:?} deny {deny:?} {address}");
        }
    }
}

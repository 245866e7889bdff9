//! Addresses of bridges and their members: the same in every run.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::switch::{Mac, Net4};

/// How many bridges one file can have at a time.
pub const BRIDGES: u8 = 250;

/// What one card has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Its hardware address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address; the network has 64 bits.
    pub ipv6: Option<Ipv6Addr>,
    /// Bits of the IPv4 network's part.
    pub prefix: u8,
}

/// The networks of one bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The bridge's number, from 1.
    pub number: u8,
    /// The IPv4 network; its address is the network's own.
    pub net4: Net4,
    /// The IPv6 network.
    pub net6: Option<Ipv6Addr>,
}

impl Plan {
    /// The networks of the bridge of this number, where nothing else is asked for.
    pub fn usual(number: u8, ipv6: bool) -> Self {
        Self::with(number, Net4 { address: Ipv4Addr::new(10, 10, number, 0), prefix: 24 }, ipv6)
    }

    /// With another IPv4 network.
    pub fn with(number: u8, net4: Net4, ipv6: bool) -> Self {
        let net6 = Ipv6Addr::new(0xfd70, 0x726f, 0x7669, number.into(), 0, 0, 0, 0);
        Self { number, net4, net6: ipv6.then_some(net6) }
    }

    /// How many members there can be: the network's own address, the gateway and the broadcast address are taken.
    pub fn room(&self) -> u32 {
        let hosts = 1_u64 << (32 - u32::from(self.net4.prefix));
        u32::try_from(hosts - 3).unwrap_or(u32::MAX).min(0xffff - 2)
    }

    /// The gateway's addresses.
    pub fn gateway(&self) -> Addresses {
        self.host(1)
    }

    /// The addresses of the member of this number, from 0.
    pub fn member(&self, number: u32) -> Addresses {
        self.host(number + 2)
    }

    fn host(&self, host: u32) -> Addresses {
        let [_, _, high, low] = host.to_be_bytes();
        Addresses {
            mac: Mac([0x52, 0x54, 0, self.number, high, low]),
            ipv4: Ipv4Addr::from_bits(self.net4.network().to_bits().wrapping_add(host)),
            ipv6: self.net6.map(|net| Ipv6Addr::from_bits(net.to_bits() + u128::from(host))),
            prefix: self.net4.prefix,
        }
    }

    /// Whether an address of one could be one of the other.
    pub fn overlaps(&self, other: Net4) -> bool {
        self.net4.contains(other.network()) || other.contains(self.net4.network())
    }
}

/// An IPv4 network as text: `10.1.0.0/24`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_subnet(text: &str) -> Result<Net4, String> {
    let expected = |found: &str| format!("expected an IPv4 network such as `10.1.0.0/24`, found `{found}`");
    let (address, prefix) = text.split_once('/').ok_or_else(|| expected(text))?;
    let address: Ipv4Addr = address.parse().map_err(|_| expected(text))?;
    let prefix: u8 = prefix.parse().map_err(|_| expected(text))?;
    if !(8..=29).contains(&prefix) {
        return Err(format!("expected a network of 8 to 29 bits, found `{text}`"));
    }
    let net = Net4 { address, prefix };
    if net.network() != address {
        return Err(format!("`{text}` is an address in the network `{}/{prefix}`, not the network", net.network()));
    }
    if address.is_loopback() || address.is_multicast() || address.octets()[0] == 0 || address.octets()[0] >= 240 {
        return Err(format!("`{text}` is no network that guests can use"));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_both_numbers() {
        let plan = Plan::usual(3, true);
        let (gateway, first) = (plan.gateway(), plan.member(0));
        assert_eq!((gateway.ipv4.to_string().as_str(), first.ipv4.to_string().as_str()), ("10.10.3.1", "10.10.3.2"));
        assert_eq!(first.mac.to_string(), "52:54:00:03:00:02");
        assert_eq!(first.ipv6.unwrap().to_string(), "fd70:726f:7669:3::2");
        assert_eq!(Plan::usual(3, false).member(0).ipv6, None);
        let wide = Plan::with(1, parse_subnet("172.16.0.0/12").unwrap(), false);
        assert_eq!((wide.member(300).ipv4.to_string().as_str(), wide.room()), ("172.16.1.46", 65533));
        assert_eq!(Plan::with(1, parse_subnet("10.0.0.8/29").unwrap(), false).room(), 5);
        assert!(wide.overlaps(parse_subnet("172.20.1.0/24").unwrap()) && !wide.overlaps(plan.net4));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for (text, why) in [
            ("10.1.0.0", "such as"),
            ("10.1.0/24", "such as"),
            ("10.1.0.0/x", "such as"),
            ("10.1.0.0/30", "8 to 29"),
            ("10.1.0.0/0", "8 to 29"),
            ("10.1.0.5/24", "`10.1.0.0/24`"),
            ("127.0.0.0/8", "no network"),
        ] {
            let error = parse_subnet(text).unwrap_err();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }
}

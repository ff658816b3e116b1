//! How many connections each client's address has, for `max_connections_per_address`. Without that limit nothing is counted.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    num::{NonZeroU64, NonZeroUsize},
    sync::Mutex,
};

use crate::sync::LockExt;

/// No client has an address with this first byte (they are for multicast): what is no IPv6 prefix can be told by it.
const NO_PREFIX: u64 = 0xff << 56;

/// The part of an address that counts: of IPv6 the first 64 bits, the smallest network that is given to a client. In eight bytes,
/// also where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address(NonZeroU64);

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let bits = match ip.to_canonical() {
            IpAddr::V4(ip) => NO_PREFIX | u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        // All zeros: the network of ::1.
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MAX))
    }
}

/// The connections of each address that has any: no more entries than connections.
#[derive(Debug)]
pub(super) struct Addresses {
    max: Option<usize>,
    connections: Mutex<HashMap<Address, NonZeroUsize>>,
}

impl Addresses {
    pub(super) fn new(max: Option<usize>) -> Self {
        Self { max, connections: Mutex::default() }
    }

    /// Whether there is a limit at all.
    pub(super) fn count(&self) -> bool {
        self.max.is_some()
    }

    /// One more connection of this address. False: it has as many as it may have.
    pub(super) fn add(&self, address: Address) -> bool {
        let Some(max) = self.max else { return true };
        match self.connections.locked().entry(address) {
            Entry::Vacant(entry) => {
                entry.insert(NonZeroUsize::MIN);
            }
            Entry::Occupied(entry) if entry.get().get() >= max => return false,
            Entry::Occupied(mut entry) => {
                let more = entry.get().saturating_add(1);
                entry.insert(more);
            }
        }
        true
    }

    /// One less. With the last one its entry goes.
    pub(super) fn remove(&self, address: Address) {
        let mut connections = self.connections.locked();
        if let Entry::Occupied(mut entry) = connections.entry(address) {
            match NonZeroUsize::new(entry.get().get() - 1) {
                Some(less) => drop(entry.insert(less)),
                None => drop(entry.remove()),
            }
        }
        // After a crowd its memory goes, too.
        if connections.is_empty() && connections.capacity() > 1024 {
            connections.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str) -> Address {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn of_ipv6_the_first_64_bits_count() {
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"), "an IPv4 address on an IPv6 socket");
        let all = ["::1", "10.0.0.1", "10.0.0.2", "0.0.0.0", "255.255.255.255", "fe80::1", "0:0:0:1::"];
        let different: std::collections::HashSet<_> = all.map(address).into();
        assert_eq!(different.len(), all.len());
        assert_eq!(size_of::<Option<Address>>(), 8);
    }

    #[test]
    fn each_address_has_its_own_count_and_goes_with_its_last_connection() {
        let all = Addresses::new(Some(2));
        let (one, other) = (address("10.0.0.1"), address("::1"));
        assert!(all.add(one) && all.add(one) && !all.add(one) && all.add(other));
        all.remove(one);
        assert!(all.add(one) && !all.add(one));
        for address in [one, one, other, other] {
            all.remove(address);
        }
        assert!(all.connections.locked().is_empty());
        for n in 0..5000_u32 {
            assert!(all.add(IpAddr::from(n.to_be_bytes()).into()));
        }
        for n in 0..5000_u32 {
            all.remove(IpAddr::from(n.to_be_bytes()).into());
        }
        assert_eq!(all.connections.locked().capacity(), 0, "nor does its memory stay");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let all = Addresses::new(None);
        assert!(!all.count() && (0..10).all(|_| all.add(address("10.0.0.1"))));
        assert!(all.connections.locked().is_empty());
    }
}

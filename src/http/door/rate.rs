//! How fast one client may ask: each has a bucket of two seconds' requests, which fills at the rate that the configuration allows.
//!
//! A bucket is the moment at which it will be full again (the generic cell rate algorithm, ITU-T I.371 annex A), so one that is
//! full need not be kept. Nothing is looked at while there is no limit.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What may come at once.
const BURST: Duration = Duration::from_secs(2);
/// Clients that are known at once; those beyond are let through.
const CLIENTS_MAX: usize = 65_536;
/// How often buckets that are full again are looked for, at most.
const SWEEP: Duration = Duration::from_secs(1);

/// The buckets of all clients.
#[derive(Default)]
pub(in crate::http) struct Rates(Mutex<Buckets>);

#[derive(Default)]
struct Buckets {
    full_at: HashMap<IpAddr, Instant>,
    swept: Option<Instant>,
}

impl Rates {
    /// Takes one request of a client out of its bucket, or says after how long there will be one. `rate` is above 0.
    pub(in crate::http) fn take(&self, client: IpAddr, rate: usize, now: Instant) -> Result<(), Duration> {
        let each = Duration::from_secs(1) / u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
        let mut buckets = self.0.lock();
        let client = household(client);
        let full_at = buckets.full_at.get(&client).map_or(now, |full_at| now.max(*full_at)) + each;
        let beyond = full_at.saturating_duration_since(now + BURST);
        if !beyond.is_zero() {
            return Err(beyond);
        }
        if buckets.has_room(now) || buckets.full_at.contains_key(&client) {
            buckets.full_at.insert(client, full_at);
        }
        Ok(())
    }
}

impl Buckets {
    fn has_room(&mut self, now: Instant) -> bool {
        if self.full_at.len() >= CLIENTS_MAX && self.swept.is_none_or(|swept| swept + SWEEP <= now) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.swept = Some(now);
        }
        self.full_at.len() < CLIENTS_MAX
    }
}

/// Who has one IPv6 address has its whole /64.
fn household(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_then_the_rate_and_each_client_has_its_own() {
        let (rates, begin) = (Rates::default(), Instant::now());
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let passed = (0..100).filter(|_| rates.take(ip("192.0.2.1"), 10, at(0)).is_ok()).count();
        assert_eq!(passed, 20, "two seconds' worth");
        assert_eq!(rates.take(ip("192.0.2.1"), 10, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rates.take(ip("192.0.2.2"), 10, at(0)), Ok(()));
        let passed = (0..10_000).filter(|ms| rates.take(ip("192.0.2.1"), 10, at(*ms)).is_ok()).count();
        assert!((99..=100).contains(&passed), "{passed} in ten seconds");
    }

    #[test]
    fn a_network_of_one_holder_is_one_client() {
        let (rates, now) = (Rates::default(), Instant::now());
        for host in 1..=2 {
            assert_eq!(rates.take(ip(&format!("2001:db8::{host}")), 1, now), Ok(()));
        }
        assert!(rates.take(ip("2001:db8::ffff"), 1, now).is_err());
        assert!(rates.take(ip("2001:db8:0:1::1"), 1, now).is_ok());
        for _ in 0..2 {
            assert!(rates.take(ip("::ffff:192.0.2.1"), 1, now).is_ok());
        }
        assert!(rates.take(ip("192.0.2.1"), 1, now).is_err());
    }

    #[test]
    fn many_clients_are_forgotten_when_their_buckets_are_full_again() {
        let (rates, now) = (Rates::default(), Instant::now());
        let client = |n: u32| IpAddr::V4(n.into());
        for n in 0..CLIENTS_MAX as u32 + 10 {
            assert_eq!(rates.take(client(n), 1, now), Ok(()));
        }
        assert_eq!(rates.0.lock().full_at.len(), CLIENTS_MAX, "no more are kept");
        assert_eq!(rates.take(client(7_000_000), 1, now + Duration::from_secs(2)), Ok(()));
        assert_eq!(rates.0.lock().full_at.len(), 1);
    }
}

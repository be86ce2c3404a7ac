//! How fast one client may ask: each has a bucket ([`Rate`]) of a second's requests. Nothing is looked at while there is no limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::pace::{Rate, household};

/// Clients that are known at once; those beyond are let through.
const CLIENTS_MAX: usize = 65_536;
/// How often buckets that are full again are looked for, at most.
const SWEEP: Duration = Duration::from_secs(1);

/// The buckets of all clients.
pub(in crate::http) struct Rates {
    begun: Instant,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    by_client: HashMap<IpAddr, AtomicU64>,
    swept: Option<Instant>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { begun: Instant::now(), buckets: Mutex::default() }
    }
}

impl Rates {
    /// Takes one request of a client out of its bucket, or says after how long there will be one.
    pub(in crate::http) fn take(&self, client: IpAddr, rate: Rate, now: Instant) -> Result<(), Duration> {
        let nanos = u64::try_from(now.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX);
        let client = household(client);
        let mut buckets = self.buckets.lock();
        if !buckets.by_client.contains_key(&client) && !buckets.has_room(now, nanos) {
            return Ok(());
        }
        rate.take(buckets.by_client.entry(client).or_default(), nanos)
    }
}

impl Buckets {
    fn has_room(&mut self, now: Instant, nanos: u64) -> bool {
        if self.by_client.len() >= CLIENTS_MAX && self.swept.is_none_or(|swept| swept + SWEEP <= now) {
            // One that is full again is as good as none.
            self.by_client.retain(|_, full_at| full_at.load(Ordering::Relaxed) > nanos);
            self.swept = Some(now);
        }
        self.by_client.len() < CLIENTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn rate(count: u32) -> Rate {
        Rate::per_second(count).unwrap()
    }

    #[test]
    fn each_client_has_its_own() {
        let (rates, now) = (Rates::default(), Instant::now());
        let passed = (0..100).filter(|_| rates.take(ip("192.0.2.1"), rate(10), now).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(rates.take(ip("192.0.2.1"), rate(10), now), Err(Duration::from_millis(100)));
        assert_eq!(rates.take(ip("192.0.2.2"), rate(10), now), Ok(()));
    }

    #[test]
    fn a_network_of_one_holder_is_one_client() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert_eq!(rates.take(ip("2001:db8::1"), rate(1), now), Ok(()));
        assert!(rates.take(ip("2001:db8::ffff"), rate(1), now).is_err());
        assert!(rates.take(ip("2001:db8:0:1::1"), rate(1), now).is_ok());
        assert!(rates.take(ip("::ffff:192.0.2.1"), rate(1), now).is_ok());
        assert!(rates.take(ip("192.0.2.1"), rate(1), now).is_err());
    }

    #[test]
    fn many_clients_are_forgotten_when_their_buckets_are_full_again() {
        let (rates, now) = (Rates::default(), Instant::now());
        let client = |n: u32| IpAddr::V4(n.into());
        for n in 0..CLIENTS_MAX as u32 + 10 {
            assert_eq!(rates.take(client(n), rate(1), now), Ok(()));
        }
        assert_eq!(rates.buckets.lock().by_client.len(), CLIENTS_MAX, "no more are kept");
        assert_eq!(rates.take(client(7_000_000), rate(1), now + Duration::from_secs(2)), Ok(()));
        assert_eq!(rates.buckets.lock().by_client.len(), 1);
    }
}

//! Rate limits: token buckets, one alone, or one for each address and one for all together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// The most origins that are told apart at one time.
const ORIGINS_MAX: usize = 256;

/// Mask of the part of an IPv6 address that names one customer's network.
const NETWORK_V6: u128 = !0 << 64;

/// The origin of a connection: its IPv4 address, or the /64 network of its IPv6 address.
#[must_use]
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & NETWORK_V6).into(),
        v4 => v4,
    }
}

/// A rate limit: events allowed at once, and further ones each second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Events allowed at once.
    pub at_once: f64,
    /// Further events allowed each second.
    pub per_second: f64,
}

/// A token bucket: it fills at a rate, and each event takes one token.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.at_once, filled: now }
    }

    /// The tokens in the bucket. Below zero after [`Bucket::borrow`].
    fn left(&mut self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        self.left = (self.left + self.rate.per_second * since.as_secs_f64()).min(self.rate.at_once);
        self.left
    }

    /// Takes a token even if there is none. Returns the time until the bucket has paid its debt. The
    /// debt never grows beyond the tokens that come within `debt_max`.
    fn borrow(&mut self, now: Instant, debt_max: Duration) -> Duration {
        let least = -debt_max.as_secs_f64() * self.rate.per_second;
        self.left = (self.left(now) - 1.0).max(least);
        Duration::try_from_secs_f64(-self.left / self.rate.per_second).unwrap_or_default()
    }
}

/// The limit of calls that begin in a second: upgrades and further starts, of all threads together.
#[derive(Debug, Default)]
pub struct Pace(Option<Mutex<Bucket>>);

impl Pace {
    /// Allows `calls_per_second_max` calls a second, and the same number at once; `None`: any number.
    #[must_use]
    pub fn new(calls_per_second_max: Option<u32>) -> Self {
        Self(calls_per_second_max.map(f64::from).map(|calls| {
            let rate = Rate { at_once: calls, per_second: calls };
            Mutex::new(Bucket::new(rate, Instant::now()))
        }))
    }

    /// Whether one more call may begin. If so, it is counted.
    pub fn admits(&self, now: Instant) -> bool {
        let Some(bucket) = &self.0 else {
            return true;
        };
        let mut bucket = lock(bucket);
        let admits = bucket.left(now) >= 1.0;
        bucket.left -= f64::from(u8::from(admits));
        admits
    }
}

/// A rate limit for each origin, and one for all origins together.
#[derive(Debug)]
pub struct Shares {
    each: Rate,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    together: Bucket,
    /// *Invariant: [`ORIGINS_MAX`] at most.* The bucket of an origin that is missing is full.
    origins: HashMap<IpAddr, Bucket>,
}

impl Shares {
    /// Limits of which nothing is taken yet.
    #[must_use]
    pub fn new(each: Rate, together: Rate) -> Self {
        let together = Bucket::new(together, Instant::now());
        Self { each, table: Mutex::new(Table { together, origins: HashMap::new() }) }
    }

    /// Takes one token for `address` if both its origin and all together have one left. Returns whether
    /// it did.
    pub fn take(&self, address: IpAddr, now: Instant) -> bool {
        let mut table = lock(&self.table);
        if table.together.left(now) < 1.0 {
            return false;
        }
        let bucket = table.of(address, self.each, now);
        if bucket.left(now) < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        table.together.left -= 1.0;
        true
    }

    /// Takes one token for `address` in any case. Returns the time until both its origin and all
    /// together have paid their debt. No debt grows beyond the tokens that come within `debt_max`.
    pub fn borrow(&self, address: IpAddr, now: Instant, debt_max: Duration) -> Duration {
        let mut table = lock(&self.table);
        let wait = table.of(address, self.each, now).borrow(now, debt_max);
        wait.max(table.together.borrow(now, debt_max))
    }

    /// Whether no token is left, for the origin of `address` or for all together.
    pub fn is_spent(&self, address: IpAddr, now: Instant) -> bool {
        let mut table = lock(&self.table);
        table.together.left(now) < 1.0
            || table.origins.get_mut(&origin(address)).is_some_and(|bucket| bucket.left(now) < 1.0)
    }
}

impl Table {
    fn of(&mut self, address: IpAddr, rate: Rate, now: Instant) -> &mut Bucket {
        let origin = origin(address);
        if self.origins.len() >= ORIGINS_MAX && !self.origins.contains_key(&origin) {
            self.origins.retain(|_, bucket| bucket.left(now) < rate.at_once);
            if self.origins.len() >= ORIGINS_MAX {
                // With this many origins at one time, the limit for all together bounds them.
                self.origins.clear();
            }
        }
        self.origins.entry(origin).or_insert_with(|| Bucket::new(rate, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Rate = Rate { at_once: 10.0, per_second: 1.0 };
    const TOGETHER: Rate = Rate { at_once: 40.0, per_second: 4.0 };

    fn address(number: u32) -> IpAddr {
        IpAddr::V4((0x0A00_0000 + number).into())
    }

    #[test]
    fn an_origin_has_its_share_and_all_together_have_theirs() {
        let shares = Shares::new(EACH, TOGETHER);
        let mut now = Instant::now();
        let take = |number, now| (0..100).filter(|_| shares.take(address(number), now)).count();
        assert_eq!((take(1, now), take(2, now)), (10, 10));
        now += Duration::from_millis(2010);
        assert_eq!((take(1, now), take(2, now)), (2, 2));
        let taken: usize = (3..10_000).map(|number| take(number, now)).sum();
        assert_eq!(taken, 24);
        assert!(lock(&shares.table).origins.len() <= ORIGINS_MAX);
        assert!(shares.is_spent(address(1), now));
        now += Duration::from_secs(1000);
        assert!(!shares.is_spent(address(1), now));
    }

    #[test]
    fn what_is_borrowed_has_to_be_waited_for() {
        let shares = Shares::new(EACH, TOGETHER);
        let now = Instant::now();
        let waits: Vec<Duration> =
            (0..20).map(|_| shares.borrow(address(1), now, Duration::from_secs(5))).collect();
        assert_eq!(waits[..10], [Duration::ZERO; 10]);
        assert_eq!((waits[12], waits[19]), (Duration::from_secs(3), Duration::from_secs(5)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_origin_and_a_mapped_address_is_ipv4() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}

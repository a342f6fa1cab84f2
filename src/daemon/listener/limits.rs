//! The listener's table: who is connected from where, who is starting up, and who is punished.
//! Pure: the clock and the dice are the caller's.
//!
//! Sources are single IPv4 addresses and IPv6 /64 networks, what one customer is given; prefixes
//! are /24 and /48. Penalties follow sshd's (PerSourcePenalties): they add up, bite from 15 s on,
//! and end after 10 minutes at the latest. The table's size is bounded by the configured limits
//! and by `PENALTIES_MAX`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::config;
use crate::daemon::channel::WorkerId;
use crate::daemon::channel::launcher_listener::Verdict;

/// A prefix may hold as many clients as this many full sources.
const SOURCES_PER_PREFIX: u32 = 16;
/// A prefix may have this part of all start-ups.
const START_UPS_SHARE: u32 = 4;
/// The most sources that are remembered for what they did.
const PENALTIES_MAX: usize = 4096;
const BITES_FROM: Duration = Duration::from_secs(15);
const ENDS_AFTER: Duration = Duration::from_secs(600);
/// How often one line about a source that is turned away is worth writing.
const NEWS: Duration = Duration::from_secs(60);

/// Where a connection comes from, as far as limits care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    /// The source: one IPv4 address, or an IPv6 /64.
    pub fn source(address: IpAddr) -> Self {
        Self::cut(address, 32, 64)
    }

    fn prefix(address: IpAddr) -> Self {
        Self::cut(address, 24, 48)
    }

    fn cut(address: IpAddr, v4: u8, v6: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(a) => {
                let mask = u32::MAX << (32 - v4);
                Self { base: Ipv4Addr::from_bits(a.to_bits() & mask).into(), bits: v4 }
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX << (128 - v6);
                Self { base: Ipv6Addr::from_bits(a.to_bits() & mask).into(), bits: v6 }
            }
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// What a connection is turned away for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its source has a penalty.
    Punished,
    /// There are as many clients as may be.
    Full,
    /// Its source has as many connections as it may have.
    Source,
    /// So has its network.
    Network,
    /// So many of its network have not shown a token yet.
    StartupsNear,
    /// So many have not shown a token yet.
    Startups,
}

/// A connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The limit.
    pub why: Why,
    /// Whether it was not said about this source lately.
    pub is_news: bool,
}

/// A penalty that has just begun to bite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// Whose.
    pub source: Network,
    /// For how long from now on.
    pub lasts: Duration,
}

struct Client {
    source: Network,
    prefix: Network,
    joined: bool,
}

struct Blame {
    until: Instant,
    bites: bool,
}

/// The table.
pub struct Limits {
    limits: config::Limits,
    clients: BTreeMap<WorkerId, Client>,
    starting: u32,
    starting_near: HashMap<Network, u32>,
    sources: HashMap<Network, u32>,
    prefixes: HashMap<Network, u32>,
    blames: HashMap<Network, Blame>,
    told: HashMap<Network, Instant>,
    swept: Instant,
}

impl Limits {
    /// An empty table.
    pub fn new(limits: &config::Limits, now: Instant) -> Self {
        Self {
            limits: limits.clone(),
            clients: BTreeMap::new(),
            starting: 0,
            starting_near: HashMap::new(),
            sources: HashMap::new(),
            prefixes: HashMap::new(),
            blames: HashMap::new(),
            told: HashMap::new(),
            swept: now,
        }
    }

    /// Whether a connection from `address` may start now. `dice` gives a number below 100.
    pub fn allow(
        &mut self,
        address: SocketAddr,
        now: Instant,
        dice: impl FnOnce() -> u32,
    ) -> Result<(), Refusal> {
        self.sweep(now);
        let source = Network::source(address.ip());
        let prefix = Network::prefix(address.ip());
        let here = self.sources.get(&source).copied().unwrap_or(0);
        let near = self.prefixes.get(&prefix).copied().unwrap_or(0);
        let joined = self.clients.len() as u32 - self.starting;
        let why = if self.blames.get(&source).is_some_and(|b| b.bites && b.until > now) {
            Why::Punished
        } else if joined >= self.limits.clients {
            Why::Full
        } else if here >= self.limits.per_source {
            Why::Source
        } else if near >= self.limits.per_source.saturating_mul(SOURCES_PER_PREFIX) {
            Why::Network
        } else if self.starting_near.get(&prefix).copied().unwrap_or(0) >= self.start_ups_near() {
            Why::StartupsNear
        } else if dice() < self.drop_percent() {
            Why::Startups
        } else {
            return Ok(());
        };
        Err(Refusal { why, is_news: self.is_news(address, now) })
    }

    /// Random early drop, as sshd's MaxStartups: none below `begin`, `percent` at `begin`, all
    /// from `full` on, linear between.
    fn drop_percent(&self) -> u32 {
        let config::Startups { begin, percent, full } = self.limits.startups;
        if self.starting < begin {
            0
        } else if self.starting >= full {
            100
        } else {
            percent + (100 - percent) * (self.starting - begin) / (full - begin).max(1)
        }
    }

    /// One network cannot take all places of those who have not shown a token.
    fn start_ups_near(&self) -> u32 {
        (self.limits.startups.full / START_UPS_SHARE).max(1)
    }

    /// Whether it was not said lately that somebody of this address is turned away; now it is.
    pub fn is_news(&mut self, address: SocketAddr, now: Instant) -> bool {
        let source = Network::source(address.ip());
        let lately = self.told.get(&source).is_some_and(|last| now.duration_since(*last) < NEWS);
        if lately || self.told.len() >= PENALTIES_MAX {
            return false;
        }
        self.told.insert(source, now);
        true
    }

    /// A connection was handed to the launcher.
    pub fn started(&mut self, id: WorkerId, address: SocketAddr) {
        let client = Client {
            source: Network::source(address.ip()),
            prefix: Network::prefix(address.ip()),
            joined: false,
        };
        *self.sources.entry(client.source).or_default() += 1;
        *self.prefixes.entry(client.prefix).or_default() += 1;
        self.starting += 1;
        *self.starting_near.entry(client.prefix).or_default() += 1;
        self.clients.insert(id, client);
    }

    /// A client's token was good.
    pub fn joined(&mut self, id: WorkerId) {
        if let Some(client) = self.clients.get_mut(&id)
            && !std::mem::replace(&mut client.joined, true)
        {
            self.starting -= 1;
            release(&mut self.starting_near, client.prefix);
        }
    }

    /// A client is gone; gives the penalty if one begins to bite because of it.
    pub fn ended(&mut self, id: WorkerId, verdict: Verdict, now: Instant) -> Option<Penalty> {
        let client = self.clients.remove(&id)?;
        if !client.joined {
            self.starting -= 1;
            release(&mut self.starting_near, client.prefix);
        }
        release(&mut self.sources, client.source);
        release(&mut self.prefixes, client.prefix);
        self.punish(client.source, verdict, now)
    }

    fn punish(&mut self, source: Network, verdict: Verdict, now: Instant) -> Option<Penalty> {
        let more = Duration::from_secs(match verdict {
            Verdict::Orderly => return None,
            Verdict::NoToken => 1,
            Verdict::BadToken => 10,
            Verdict::TooSlow => 10,
            Verdict::Violation => 90,
        });
        if !self.limits.penalties {
            return None;
        }
        if self.blames.len() >= PENALTIES_MAX && !self.blames.contains_key(&source) {
            // Forgets whose penalty ends first: nothing is worth more memory.
            let first = self.blames.iter().min_by_key(|(_, b)| b.until).map(|(n, _)| *n);
            first.map(|n| self.blames.remove(&n));
        }
        let blame = self.blames.entry(source).or_insert(Blame { until: now, bites: false });
        blame.until = (blame.until.max(now) + more).min(now + ENDS_AFTER);
        let lasts = blame.until - now;
        let begins = !blame.bites && lasts >= BITES_FROM;
        blame.bites |= begins;
        begins.then_some(Penalty { source, lasts })
    }

    /// Forgets what is over, at most once in a second.
    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept) >= Duration::from_secs(1) {
            self.swept = now;
            self.blames.retain(|_, b| b.until > now);
            self.told.retain(|_, last| now.duration_since(*last) < NEWS);
        }
    }
}

fn release(table: &mut HashMap<Network, u32>, network: Network) {
    if let Some(count) = table.get_mut(&network) {
        *count -= 1;
        if *count == 0 {
            table.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut config::Limits)) -> (Limits, Instant) {
        let mut configured = config::Limits::default();
        change(&mut configured);
        let now = Instant::now();
        (Limits::new(&configured, now), now)
    }

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn a_source_gets_its_share_and_an_ipv6_customer_is_one_source() {
        let (mut table, now) = limits(|l| l.per_source = 2);
        for (n, address) in ["2001:db8::1", "2001:db8::2"].iter().enumerate() {
            assert_eq!(table.allow(from(address), now, || 99), Ok(()));
            table.started(WorkerId(n as u64), from(address));
        }
        assert!(table.allow(from("2001:db8::3"), now, || 99).is_err());
        assert!(table.allow(from("2001:db8:0:1::3"), now, || 99).is_ok());
        table.ended(WorkerId(0), Verdict::Orderly, now);
        assert!(table.allow(from("2001:db8::3"), now, || 99).is_ok());
    }

    #[test]
    fn a_network_of_many_sources_is_limited_too() {
        let (mut table, now) = limits(|l| l.per_source = 1);
        for n in 0..16 {
            table.started(WorkerId(n), from(&format!("192.0.2.{n}")));
        }
        assert!(table.allow(from("192.0.2.200"), now, || 99).is_err());
        assert!(table.allow(from("192.0.3.1"), now, || 99).is_ok());
    }

    #[test]
    fn start_ups_are_dropped_at_random_before_they_are_too_many() {
        let (mut table, now) = limits(|l| {
            l.per_source = 1000;
            l.startups = config::Startups { begin: 10, percent: 30, full: 20 };
        });
        let mut verdicts = Vec::new();
        for n in 0..21 {
            verdicts.push(table.drop_percent());
            table.started(WorkerId(n), from(&format!("192.0.{n}.1")));
        }
        assert_eq!(verdicts[..10], [0; 10]);
        assert_eq!((verdicts[10], verdicts[15], verdicts[20]), (30, 65, 100));
        assert!(table.allow(from("192.0.2.1"), now, || 99).is_err());
        // Whoever showed a token is no start-up any more.
        (0..20).for_each(|n| table.joined(WorkerId(n)));
        assert!(table.allow(from("192.0.2.1"), now, || 99).is_ok());
    }

    #[test]
    fn one_network_cannot_take_all_places_of_start_ups() {
        let (mut table, now) = limits(|l| {
            l.per_source = 1000;
            l.startups = config::Startups { begin: 100, percent: 30, full: 100 };
        });
        for n in 0..25 {
            assert_eq!(table.allow(from(&format!("2001:db8:0:{n}::1")), now, || 99), Ok(()));
            table.started(WorkerId(n), from(&format!("2001:db8:0:{n}::1")));
        }
        assert!(table.allow(from("2001:db8:0:99::1"), now, || 99).is_err());
        assert!(table.allow(from("2001:db8:1::1"), now, || 99).is_ok());
        table.joined(WorkerId(0));
        assert!(table.allow(from("2001:db8:0:99::1"), now, || 99).is_ok());
    }

    #[test]
    fn one_wrong_token_is_forgiven_and_repeated_ones_are_not() {
        let (mut table, now) = limits(|_| {});
        table.started(WorkerId(1), from("192.0.2.1"));
        assert_eq!(table.ended(WorkerId(1), Verdict::BadToken, now), None);
        assert!(table.allow(from("192.0.2.1"), now, || 99).is_ok());
        table.started(WorkerId(2), from("192.0.2.1"));
        let penalty = table.ended(WorkerId(2), Verdict::BadToken, now).unwrap();
        assert_eq!(penalty.lasts, Duration::from_secs(20));
        assert!(table.allow(from("192.0.2.1"), now, || 99).is_err());
        assert!(table.allow(from("192.0.2.2"), now, || 99).is_ok());
        let later = now + Duration::from_secs(21);
        assert!(table.allow(from("192.0.2.1"), later, || 99).is_ok());
    }

    #[test]
    fn the_table_of_penalties_does_not_grow_without_end() {
        let (mut table, now) = limits(|_| {});
        for n in 0..PENALTIES_MAX as u32 + 500 {
            let address = SocketAddr::new(Ipv4Addr::from_bits(n).into(), 1);
            table.started(WorkerId(u64::from(n)), address);
            table.ended(WorkerId(u64::from(n)), Verdict::Violation, now);
        }
        assert_eq!(table.blames.len(), PENALTIES_MAX);
        assert!(table.sources.is_empty() && table.prefixes.is_empty() && table.starting == 0);
    }
}

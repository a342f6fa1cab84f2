//! Who is in the room, as the log tells it: "join" when a name's first session comes, "leave" when
//! its last one stayed away for a while. A client that loses its connection and comes back in that
//! while leaves no trace.
//!
//! The keeper writes these records because it alone knows when a worker is really gone. It never
//! waits for the log's lock: a record that cannot be written now is written at the next chance.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::{Config, Durability};
use crate::confine::policy::{Right, rights};
use crate::daemon::channel::report::Reporter;
use crate::room::log::{Appender, Files, LogError};
use crate::room::record::{Batch, Kind};
use crate::token::Name;

/// How long a name may be away before it has left.
const GRACE: Duration = Duration::from_secs(20);
/// For this long after the start, whoever comes back with a ticket was never away.
const RETURNING: Duration = Duration::from_secs(60);
/// How soon a busy lock, or a full disk, is tried again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// The most records that wait for the log; more are dropped, and that is reported.
const WAITING_MAX: usize = 4096;
const BATCH_BYTES: usize = 16 << 10;

struct Present {
    sessions: usize,
    away_since: Option<Instant>,
}

/// The names in the room, and the records that wait to be written.
pub struct Presence {
    log: Option<Appender>,
    batch: Batch,
    durability: Durability,
    names: BTreeMap<Name, Present>,
    waiting: VecDeque<(Name, Kind)>,
    again: Option<Instant>,
    pause: Duration,
    began: Instant,
    dropped: bool,
}

impl Presence {
    /// An empty room; writes nothing if the configuration does not want presence.
    pub fn new(files: &Files, config: &Config) -> Result<Self, LogError> {
        Ok(Self {
            log: if config.log.presence { Some(files.appender()?) } else { None },
            batch: Batch::with_capacity(BATCH_BYTES),
            durability: config.log.durability,
            names: BTreeMap::new(),
            waiting: VecDeque::new(),
            again: None,
            pause: AGAIN.0,
            began: Instant::now(),
            dropped: false,
        })
    }

    /// What it has open, with the rights that it needs.
    pub fn held(&self) -> impl Iterator<Item = (BorrowedFd<'_>, &'static [Right])> {
        let rights = [rights::APPEND, rights::TAIL, rights::LOCK];
        self.log.iter().flat_map(move |log| log.held().into_iter().zip(rights))
    }

    /// A session of this name was admitted.
    pub fn joined(&mut self, name: &Name, by_ticket: bool, now: Instant) {
        if let Some(present) = self.names.get_mut(name) {
            present.sessions += 1;
            present.away_since = None;
            return;
        }
        self.names.insert(name.clone(), Present { sessions: 1, away_since: None });
        let returning = by_ticket && now.duration_since(self.began) < RETURNING;
        if !returning {
            self.note(name.clone(), Kind::Join);
        }
    }

    /// A session of this name is gone.
    pub fn left(&mut self, name: &Name, now: Instant) {
        if let Some(present) = self.names.get_mut(name) {
            present.sessions = present.sessions.saturating_sub(1);
            if present.sessions == 0 {
                present.away_since = Some(now);
            }
        }
    }

    fn note(&mut self, name: Name, kind: Kind) {
        if self.log.is_none() {
            return;
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((name, kind));
        } else {
            self.dropped = true;
        }
    }

    /// When [`Presence::write`] has something to do again.
    pub fn next_due(&self) -> Option<Instant> {
        let leaves = self.names.values().filter_map(|p| p.away_since).map(|since| since + GRACE);
        let records = (!self.waiting.is_empty()).then(|| self.again.unwrap_or_else(Instant::now));
        leaves.chain(records).min()
    }

    /// Writes what is due and can be written without waiting; says whether the bell must be rung.
    pub fn write(&mut self, now: Instant, report: &Reporter) -> bool {
        self.notice_leaves(now);
        if self.waiting.is_empty() || self.again.is_some_and(|again| again > now) {
            return false;
        }
        self.again = None;
        let Some(log) = &mut self.log else { return false };
        self.batch.clear();
        let mut taken = 0;
        for (name, kind) in &self.waiting {
            if self.batch.push(None, name, kind.clone(), None).is_err() {
                break;
            }
            taken += 1;
        }
        let mut trouble = None;
        let stored = match log.try_append(&mut self.batch, Timestamp::now, self.durability) {
            Ok(Some(done)) => done.stored.min(taken),
            Ok(None) => 0,
            Err(problem) => {
                trouble = Some(problem);
                0
            }
        };
        self.waiting.drain(..stored);
        if stored > 0 {
            self.pause = AGAIN.0;
        }
        if !self.waiting.is_empty() {
            // The pause grows, so that neither a full disk nor its lines become a load.
            self.again = Some(now + self.pause);
            self.pause = (2 * self.pause).min(AGAIN.1);
        }
        if let Some(problem) = trouble {
            report.warning(format_args!("joins and leaves are not recorded yet: {problem}"));
        }
        if std::mem::take(&mut self.dropped) {
            report
                .warning("some joins and leaves were not recorded: the log was busy for too long");
        }
        stored > 0
    }

    fn notice_leaves(&mut self, now: Instant) {
        let gone = |p: &Present| p.away_since.is_some_and(|since| now >= since + GRACE);
        let left: Vec<Name> =
            self.names.iter().filter(|(_, p)| gone(p)).map(|(name, _)| name.clone()).collect();
        for name in left {
            self.names.remove(&name);
            self.note(name, Kind::Leave);
        }
    }
}

//! When the launcher has the log flushed to the disk, with `log.durability = "interval"`: within a
//! second of a record, and not more often. Pure: it is told the time, the records and the answers.
//!
//! The keeper does it, one process for all. Each RECV could flush after its own records, but then
//! all of them would wait for the disk each second, and no client be read meanwhile.

use std::time::{Duration, Instant};

use crate::config::Durability;

/// How long after a record; what is left of the second is for the bell, which may have rested: longer
/// than that, up to half a second, only where more than 7,000 listen.
const AFTER: Duration = Duration::from_millis(850);
/// How long a disk may take before the keeper counts as stuck, and the service with it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The flush that is due, or under way.
pub struct Flush {
    /// Some session's records wait for it: as long as the service runs, for a change of the
    /// configuration counts for new sessions only.
    wanted: bool,
    due: Option<Instant>,
    asked: Option<Instant>,
}

impl Flush {
    /// Nothing to flush yet.
    pub fn new(durability: Durability) -> Self {
        Self { wanted: durability == Durability::Interval, due: None, asked: None }
    }

    /// The configuration was read again.
    pub fn configure(&mut self, durability: Durability) {
        self.wanted |= durability == Durability::Interval;
    }

    /// There are records that may not be on the disk.
    pub fn stored(&mut self, now: Instant) {
        if self.wanted && self.due.is_none() {
            self.due = Some(now + AFTER);
        }
    }

    /// When the keeper is to be asked; not while it has not answered, as long as there is hope.
    pub fn next_due(&self) -> Option<Instant> {
        let due = self.due?;
        Some(self.asked.map_or(due, |asked| due.max(asked + PATIENCE)))
    }

    /// Whether the keeper is to be asked now. What is stored from here on is for the next time.
    pub fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.next_due().is_some_and(|due| due <= now);
        if is_due {
            (self.due, self.asked) = (None, Some(now));
        }
        is_due
    }

    /// The keeper has flushed, or said why it cannot.
    pub fn answered(&mut self) {
        self.asked = None;
    }

    /// It could not be asked: another time.
    pub fn put_off(&mut self, now: Instant) {
        (self.due, self.asked) = (Some(now + AFTER), None);
    }

    /// Whether the service ends with records that may not be on the disk.
    pub fn is_owed(&self) -> bool {
        self.due.is_some()
    }

    /// Whether the keeper waits for the disk, and cannot answer anything else.
    pub fn is_under_way(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now < asked + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn records_are_flushed_within_a_second_and_together() {
        let now = Instant::now();
        let mut flush = Flush::new(Durability::Interval);
        assert_eq!(flush.next_due(), None);
        flush.stored(now);
        flush.stored(now + 500 * MS);
        let due = flush.next_due().unwrap();
        // The bell's longest wait is a tenth of a second, for up to 5,000 listeners.
        assert!(due + 100 * MS < now + 1000 * MS);
        assert!(!flush.begin(due - MS) && flush.begin(due));
        assert!(!flush.begin(due + 10_000 * MS), "twice for the same records");
    }

    #[test]
    fn a_slow_disk_is_asked_once_at_a_time_and_no_record_is_forgotten() {
        let now = Instant::now();
        let mut flush = Flush::new(Durability::Interval);
        flush.stored(now);
        assert!(flush.begin(now + AFTER));
        flush.stored(now + AFTER);
        assert_eq!(flush.next_due(), Some(now + AFTER + PATIENCE));
        assert!(!flush.begin(now + 100 * AFTER));
        assert!(flush.is_owed() && flush.is_under_way(now + 100 * AFTER));
        assert!(!flush.is_under_way(now + AFTER + PATIENCE));
        flush.answered();
        assert!(!flush.is_under_way(now) && flush.begin(now + 2 * AFTER));
        flush.put_off(now + 2 * AFTER);
        assert!(flush.is_owed() && flush.begin(now + 3 * AFTER));
    }

    #[test]
    fn who_never_wanted_it_does_not_get_it_and_who_did_keeps_it() {
        let now = Instant::now();
        let mut flush = Flush::new(Durability::Never);
        flush.stored(now);
        assert!(!flush.is_owed());
        for durability in [Durability::Interval, Durability::Never] {
            flush.configure(durability);
            flush.stored(now);
            assert!(flush.begin(now + AFTER), "{durability:?}");
            flush.answered();
        }
    }
}

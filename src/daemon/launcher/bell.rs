//! When the launcher rings the bell. Pure: it is told the time, the records and the listeners.
//!
//! Each ring wakes every SEND, so it costs as much as there are listeners, and what one record more
//! costs in the same ring is next to nothing. So after a ring the bell rests, the longer the more
//! listen, and in a room that is both large and lively it then waits for a few records together. A
//! record after a silence is rung for at once, and in a small room so is each.

use std::time::{Duration, Instant};

/// The rest after a ring, for each listener: about what waking one costs ...
const REST: Duration = Duration::from_micros(20);
/// ... which leaves time for the rest of the machine only if not too many listen.
const REST_MAX: Duration = Duration::from_millis(500);
/// With the square of the listeners, as what they say together grows too, up to a time that nobody
/// notices.
const REST_SQUARE: Duration = Duration::from_micros(4);
const REST_SQUARE_MAX: Duration = Duration::from_millis(20);
/// Rests shorter than this are those of small rooms, where nobody waits for others' records.
const SMALL: Duration = Duration::from_millis(1);
/// So many records are worth a ring as soon as the rest is over.
const TOGETHER: usize = 5;
/// Fewer wait for so many rests after the last ring, and at most so long.
const RESTS: u32 = 6;
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The bell's state.
pub struct Bell {
    rang: Instant,
    rest: Duration,
    waiting: usize,
}

impl Bell {
    /// A bell that has never rung.
    pub fn new(now: Instant) -> Self {
        Self { rang: now, rest: Duration::ZERO, waiting: 0 }
    }

    /// So many records, or other reasons to ring, have come.
    pub fn pulled(&mut self, records: usize) {
        self.waiting = self.waiting.saturating_add(records);
    }

    /// Whether the rest is over, so that it matters what has come since.
    pub fn is_awake(&self, now: Instant) -> bool {
        now >= self.rang + self.rest
    }

    /// When it has to be looked at again; `None` if nothing waits and the rest is over.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        match self.waiting {
            0 if self.is_awake(now) => None,
            0 => Some(self.rang + self.rest),
            _ => Some(self.next()),
        }
    }

    /// Whether it is to ring now, for so many listeners; then the rest begins.
    pub fn ring(&mut self, now: Instant, listeners: usize) -> bool {
        if self.waiting == 0 || now < self.next() {
            return false;
        }
        *self = Self { rang: now, rest: rest(listeners), waiting: 0 };
        true
    }

    /// When it rings for what waits.
    fn next(&self) -> Instant {
        let gathers = self.rest >= SMALL && self.waiting < TOGETHER;
        let more = (self.rest * RESTS).min(WAIT_MAX);
        self.rang + if gathers { self.rest.max(more) } else { self.rest }
    }
}

fn rest(listeners: usize) -> Duration {
    // More than this many listeners reach both bounds.
    let listeners = u32::try_from(listeners).unwrap_or(u32::MAX).min(30_000);
    let square = REST_SQUARE * listeners * listeners.min(100);
    square.min(REST_SQUARE_MAX).max((REST * listeners).min(REST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A bell with so many listeners that has just rung, and that moment.
    fn just_rung(listeners: usize) -> (Bell, Instant) {
        let now = Instant::now();
        let mut bell = Bell::new(now);
        bell.pulled(1);
        assert!(bell.ring(now, listeners));
        (bell, now)
    }

    #[test]
    fn a_record_after_a_silence_is_rung_for_at_once() {
        for listeners in [1, 64, 1000, 10_000] {
            let (mut bell, rang) = just_rung(listeners);
            let later = rang + ms(600);
            assert_eq!(bell.due(later), None);
            bell.pulled(1);
            assert!(bell.ring(later, listeners), "{listeners} listeners");
        }
    }

    #[test]
    fn two_in_an_exchange_wait_for_no_timer_that_they_could_notice() {
        let (mut bell, rang) = just_rung(2);
        bell.pulled(1);
        assert!(bell.due(rang).is_some_and(|due| due <= rang + Duration::from_micros(50)));
        assert!(bell.ring(rang + Duration::from_micros(50), 2));
    }

    #[test]
    fn in_a_large_and_lively_room_records_are_gathered_but_not_for_long() {
        let (mut bell, rang) = just_rung(64);
        let rest = bell.rest;
        assert!(rest > ms(10) && rest <= ms(20), "{rest:?}");
        assert!(!bell.is_awake(rang + ms(10)));
        bell.pulled(4);
        assert!(!bell.ring(rang + rest, 64));
        assert!(bell.due(rang + rest).is_some_and(|due| due <= rang + WAIT_MAX));
        bell.pulled(1);
        assert!(bell.ring(rang + rest, 64));
        let rang = rang + rest;
        bell.pulled(1);
        assert!(bell.ring(rang + WAIT_MAX, 64));
    }

    #[test]
    fn nothing_is_rung_for_nothing_and_no_ring_is_forgotten() {
        let (mut bell, rang) = just_rung(1000);
        assert!(!bell.ring(rang + ms(1000), 1000));
        bell.pulled(1);
        assert!(!bell.ring(rang, 1000));
        assert!(bell.ring(bell.due(rang).unwrap(), 1000));
    }

    #[test]
    fn the_rest_grows_with_the_listeners_up_to_its_bounds() {
        let rests: Vec<_> = [0, 1, 2, 8, 64, 1000, 5000, 25_000, usize::MAX].map(rest).into();
        assert!(rests.is_sorted(), "{rests:?}");
        assert_eq!((rests[0], rests[8]), (Duration::ZERO, REST_MAX));
    }
}

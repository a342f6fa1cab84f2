//! When the launcher rings the bell. Pure: it is told the time, the records and the listeners.
//!
//! Each ring wakes every SEND, so it costs as much as there are listeners, and what one record more
//! costs in the same ring is next to nothing. So after a ring the bell rests, the longer the more
//! listen. If many records came meanwhile, it then rings; if few did, it waits for a few together
//! where more than a handful listen. A record after a silence is rung for at once. In a small room a
//! silence counts for a while: so who answer each other are rung for at once, and only who rings
//! without end is held to the rests.

use std::time::{Duration, Instant};

/// The rest after a ring, for each listener, and for at least two: about what waking one costs ...
const REST: Duration = Duration::from_micros(20);
/// ... which leaves time for the rest of the machine only if not too many listen.
const REST_MAX: Duration = Duration::from_millis(500);
/// With the square of the listeners, as what they say together grows too, up to a time that nobody
/// notices.
const REST_SQUARE: Duration = Duration::from_nanos(4250);
const REST_SQUARE_MAX: Duration = Duration::from_millis(20);
/// In a room of fewer nobody waits for others' records ...
const SMALL: usize = 8;
/// ... and the rests are kept on the whole: rings may come so long before their time. A timer would make
/// a rest as short as theirs twice as long (PR_SET_TIMERSLACK(2const)).
const AHEAD: Duration = Duration::from_millis(1);
/// So many records at once, when the rest is over, are worth a ring ...
const RUSH: usize = 5;
/// ... and fewer are once so many have gathered, or after so long since the last ring: for each
/// listener, up to what a reader does not notice.
const TOGETHER: usize = 10;
const WAIT: Duration = Duration::from_micros(6250);
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The bell's state.
pub struct Bell {
    /// When the rest began; in a small room up to [`AHEAD`] before it last rang.
    rang: Instant,
    rest: Duration,
    /// How long after the last ring a few records may wait for others.
    wait: Duration,
    waiting: usize,
    /// Until then it does not matter what comes. While a few wait, it is looked each time after as
    /// long again: soon where many write, seldom where few do.
    look: Instant,
}

impl Bell {
    /// A bell that has never rung.
    pub fn new(now: Instant) -> Self {
        let none = Duration::ZERO;
        Self { rang: now, rest: none, wait: none, waiting: 0, look: now }
    }

    /// So many records, or other reasons to ring, have come.
    pub fn pulled(&mut self, records: usize) {
        let worth = if records >= RUSH { TOGETHER } else { records };
        self.waiting = self.waiting.saturating_add(worth);
    }

    /// Whether it matters what has come.
    pub fn is_awake(&self, now: Instant) -> bool {
        now >= self.look
    }

    /// When it has to be looked at again; `None` if nothing waits and whatever comes matters.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        match self.waiting {
            _ if now < self.look => Some(self.look),
            0 => None,
            _ => Some(self.next()),
        }
    }

    /// Whether it is to ring now, for so many listeners; then the rest begins.
    pub fn ring(&mut self, now: Instant, listeners: usize) -> bool {
        let next = self.next();
        if self.waiting == 0 || now < next {
            if self.waiting > 0 {
                let again = now + now.saturating_duration_since(self.rang);
                self.look = self.look.max(again.min(next));
            }
            return false;
        }
        let (rest, wait) = (rest(listeners), wait(listeners));
        let ahead = if listeners < SMALL { AHEAD } else { Duration::ZERO };
        let rang = now.checked_sub(ahead).map_or(now, |earliest| next.max(earliest));
        *self = Self { rang, rest, wait, waiting: 0, look: rang + rest };
        true
    }

    /// When it rings for what waits.
    fn next(&self) -> Instant {
        let gathers = self.waiting < TOGETHER;
        self.rang + if gathers { self.rest.max(self.wait) } else { self.rest }
    }
}

fn wait(listeners: usize) -> Duration {
    if listeners < SMALL {
        return Duration::ZERO;
    }
    let listeners = u32::try_from(listeners).unwrap_or(u32::MAX).min(1000);
    (WAIT * listeners).min(WAIT_MAX)
}

fn rest(listeners: usize) -> Duration {
    // More than this many listeners reach both bounds.
    let listeners = u32::try_from(listeners).unwrap_or(u32::MAX).clamp(2, 30_000);
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
    fn a_few_in_an_exchange_wait_for_no_timer() {
        for listeners in 1..SMALL {
            let (mut bell, mut now) = just_rung(listeners);
            now += ms(1000);
            for _ in 0..5 {
                assert!(bell.is_awake(now) && bell.due(now).is_none());
                bell.pulled(1);
                assert!(bell.ring(now, listeners), "{listeners} listeners");
                now += Duration::from_micros(20);
            }
        }
    }

    #[test]
    fn who_rings_without_end_is_held_to_the_rests_in_a_small_room_too() {
        for listeners in 1..SMALL {
            let (mut bell, rang) = just_rung(listeners);
            let rings = (0..1_000_000).filter(|microseconds| {
                let now = rang + ms(1000) + Duration::from_micros(*microseconds);
                bell.is_awake(now) && {
                    bell.pulled(4096);
                    bell.ring(now, listeners)
                }
            });
            let most = (ms(1000) + AHEAD).as_nanos() / rest(listeners).as_nanos();
            let rings = rings.count() as u128;
            assert!(rings <= most + 1 && rings >= most - 1, "{listeners}: {rings} of {most}");
        }
    }

    #[test]
    fn in_a_large_and_lively_room_records_are_gathered_but_not_for_long() {
        let (mut bell, rang) = just_rung(64);
        let over = rang + bell.rest;
        assert!(bell.rest > ms(10) && bell.rest <= ms(20), "{:?}", bell.rest);
        assert!(!bell.is_awake(rang + ms(10)));
        // Few came while it rested: it waits for ten, or for a tenth of a second.
        bell.pulled(4);
        assert!(!bell.ring(over, 64));
        bell.pulled(4);
        assert!(!bell.ring(over + ms(20), 64));
        bell.pulled(2);
        assert!(bell.ring(over + ms(50), 64));
        let rang = over + ms(50);
        bell.pulled(1);
        assert!(!bell.ring(rang + ms(99), 64) && bell.ring(rang + WAIT_MAX, 64));
        // Many came while it rested.
        let over = rang + WAIT_MAX + bell.rest;
        bell.pulled(5);
        assert!(bell.ring(over, 64));
    }

    #[test]
    fn while_it_waits_for_more_it_is_looked_at_a_few_times_only() {
        let (mut bell, rang) = just_rung(64);
        let (mut now, mut looks) = (rang + bell.rest, 0);
        loop {
            bell.pulled(1);
            if bell.ring(now, 64) {
                break;
            }
            assert!(!bell.is_awake(now));
            now = bell.due(now).unwrap();
            assert!(bell.is_awake(now));
            looks += 1;
        }
        assert_eq!((now, looks), (rang + WAIT_MAX, 3));
    }

    #[test]
    fn a_flood_in_a_room_of_a_few_is_not_slowed_down() {
        let (mut bell, rang) = just_rung(8);
        // The first of it comes when the rest is over, the others right behind.
        bell.pulled(1);
        assert!(!bell.ring(rang + bell.rest, 8));
        bell.pulled(5);
        assert!(bell.ring(bell.due(rang + bell.rest).unwrap(), 8));
        assert!(bell.rang <= rang + ms(1));
    }

    #[test]
    fn nothing_is_rung_for_nothing_and_no_ring_is_forgotten() {
        let (mut bell, rang) = just_rung(1000);
        assert!(!bell.ring(rang + ms(1000), 1000));
        bell.pulled(1);
        let (mut now, mut looks) = (rang, 0);
        while !bell.ring(now, 1000) {
            now = bell.due(now).unwrap();
            looks += 1;
        }
        assert!(now == rang + WAIT_MAX && looks < 10, "{looks}");
    }

    #[test]
    fn the_rest_grows_with_the_listeners_up_to_its_bounds() {
        let rests: Vec<_> = [0, 1, 2, 8, 64, 1000, 5000, 25_000, usize::MAX].map(rest).into();
        assert!(rests.is_sorted(), "{rests:?}");
        assert_eq!((rests[0], rests[8]), (REST * 2, REST_MAX));
    }
}

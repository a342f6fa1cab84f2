//! How long to wait before the next attempt: doubling, bounded, and with jitter, so that a
//! thousand clients do not come back in step after a restart. Pure; the caller gives the
//! randomness.

use std::time::Duration;

/// The first wait, before jitter.
pub const FIRST: Duration = Duration::from_millis(200);
/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(30);

/// A series of growing waits.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::beginning_with(FIRST)
    }
}

impl Backoff {
    /// A series whose first wait is this one, before jitter.
    pub fn beginning_with(first: Duration) -> Self {
        Self { first, attempts: 0 }
    }

    /// The next wait: between half of and the whole of the first one doubled per attempt, at most
    /// [`LONGEST`]. `random` chooses the place in between.
    pub fn next(&mut self, random: u32) -> Duration {
        let whole = self.first.saturating_mul(1 << self.attempts.min(16)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        let part = f64::from(random) / f64::from(u32::MAX);
        whole.mul_f64(0.5 + 0.5 * part)
    }

    /// It worked: begin again with the shortest wait.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let mut longest = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| longest.next(u32::MAX).as_millis()).collect();
        assert_eq!(&waits[..4], &[200, 400, 800, 1600]);
        assert!(waits[10..].iter().all(|&ms| ms == 30_000));
        let mut shortest = Backoff::default();
        assert_eq!(shortest.next(0).as_millis(), 100);
        shortest.reset();
        assert_eq!(shortest.next(0).as_millis(), 100);
    }
}

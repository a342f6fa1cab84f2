//! What has happened since the service started, in numbers, for `papayad status`. Pure.

use serde::Serialize;

use crate::daemon::channel::launcher_listener::{TurnedAway, Verdict};

/// The numbers; none of them ever goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Tokens that were good.
    pub joins: u64,
    /// Connections that ended before a token was good, by what was wrong.
    pub refusals: Refusals,
    /// Times that the listener began to turn a source away.
    pub penalties: u64,
    /// Workers that their filter killed, that crashed, or that held a lock for too long; and
    /// listeners that their filter killed.
    pub violations: u64,
    /// Messages that were stored, as the bell tells: too few if it was ever full, and no more
    /// than the word of workers.
    pub messages: u64,
}

/// Connections that were not let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refusals {
    /// They showed no token, or sent what is no hello.
    pub no_token: u64,
    /// Their token did not open.
    pub bad_token: u64,
    /// They ran out of the grace time.
    pub too_slow: u64,
    /// The listener turned them away.
    #[serde(flatten)]
    pub at_the_door: TurnedAway,
}

impl Counters {
    /// A worker has ended.
    pub fn ended(&mut self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Orderly => return,
            Verdict::NoToken => &mut self.refusals.no_token,
            Verdict::BadToken => &mut self.refusals.bad_token,
            Verdict::TooSlow => &mut self.refusals.too_slow,
            Verdict::Violation => &mut self.violations,
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_has_a_number_of_its_own_and_an_orderly_visit_has_none() {
        let mut counters = Counters::default();
        counters.ended(Verdict::Orderly);
        assert_eq!(counters, Counters::default());
        for verdict in [Verdict::NoToken, Verdict::BadToken, Verdict::TooSlow, Verdict::Violation] {
            counters.ended(verdict);
        }
        let refusals = Refusals { no_token: 1, bad_token: 1, too_slow: 1, ..Refusals::default() };
        assert_eq!(counters, Counters { refusals, violations: 1, ..Counters::default() });
    }
}

//! Doctor: the sandbox level in force, against what is required and what this kernel could do.

use super::service::Service;
use super::{Finding, Outcome};
use crate::config::{Config, Sandbox};
use crate::confine::{self, Level};

/// What the launcher reached, by its own word: no file under `/proc` tells of Landlock, or of sealed
/// memory, in another process. Filters and the rest are compared process by process.
pub fn check(config: &Config, service: &Service) -> Finding {
    let outcome = compare(&config.sandbox, service, confine::available().ok());
    Finding { place: "service".into(), check: "sandbox", outcome }
}

/// `best`: what this kernel can do.
pub(super) fn compare(sandbox: &Sandbox, service: &Service, best: Option<Level>) -> Outcome {
    let Sandbox { require, ceiling } = *sandbox;
    match service.level {
        None => Outcome::differs("the service does not say its level", "restart it"),
        Some(level) if level < require => Outcome::differs(
            format!("the level is {level}, but the configuration requires {require}"),
            "restart the service",
        ),
        Some(level) if best.is_some_and(|best| best < level) => Outcome::differs(
            format!("it says {level}, but this kernel can do less"),
            "restart the service; do not trust what it says",
        ),
        Some(level) => {
            let weaker = match best {
                Some(best) if best > level && ceiling == level => {
                    format!("; this kernel could do {best}, but sandbox.ceiling asks for no more")
                }
                Some(best) if best > level => format!("; this kernel could do {best}"),
                _ => String::new(),
            };
            let confined = &service.confined;
            Outcome::Good(format!(
                "{level}, {require} is required ({confined}){weaker}; Landlock and sealed memory as \
                 the service says, for they cannot be seen from outside: see `papayad sandbox test`"
            ))
        }
    }
}

//! Doctor: the sandbox level in force, against what is required and what this kernel could do.

use super::service::Service;
use super::{Finding, Outcome};
use crate::config::Config;

/// What the launcher reached. Landlock cannot be seen from outside a process; that it holds is
/// shown by `papayad sandbox test`.
pub fn check(config: &Config, service: &Service) -> Finding {
    let require = config.sandbox.require;
    let outcome = match service.level {
        None => Outcome::differs("the service does not say its level", "restart it"),
        Some(level) if level < require => Outcome::differs(
            format!("the level is {level}, but the configuration requires {require}"),
            "restart the service",
        ),
        Some(level) => {
            let weaker = match crate::confine::available() {
                Ok(best) if best > level => format!("; this kernel could do {best}"),
                _ => String::new(),
            };
            Outcome::Good(format!("{level}, {require} is required ({}){weaker}", service.confined))
        }
    };
    Finding { place: "service".into(), check: "sandbox", outcome }
}

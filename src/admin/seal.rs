//! `papayad log seal` and `papayad log unseal`: the log's append-only flag, by hand.
//!
//! For backups that are put back, and for whoever has to remove what must not stay. Root alone, and
//! not behind the back of a running service.

use crate::config::Config;
use crate::confine::identity;
use crate::daemon::launcher::control::{Caller, Request};
use crate::daemon::launcher::seal::{self, SealError};
use crate::exit::{Exit, Failure};
use crate::room::log::LOG;

/// Makes the log append-only.
///
/// # Errors
/// It cannot be.
pub fn seal(config: &Config) -> Result<Exit, Failure> {
    let service = Caller::connect(&config.paths.runtime)?;
    seal::seal(config, Some(keeper(config)?)).map_err(|e| explain(config, &e))?;
    tell(service, &Request::Sealed)?;
    eprintln!("papayad: {} can only grow now, for root too", path(config));
    Ok(Exit::Ok)
}

/// Lets root cut or remove the log.
///
/// # Errors
/// The service runs and this is not `force`d, or it cannot be told, or the flag cannot be cleared.
pub fn unseal(config: &Config, force: bool) -> Result<Exit, Failure> {
    // Before anything is changed: a service that is there must be able to hear of it.
    let service = Caller::connect(&config.paths.runtime)?;
    if !force && service.is_some() {
        let message = "the service is running; stop it first, or say --force: until it starts \
                       again only its confinement keeps the log from being changed";
        return Err(Failure::new(Exit::Unavailable, message));
    }
    seal::unseal(config, keeper(config)?.uid).map_err(|e| explain(config, &e))?;
    tell(service, &Request::Unsealed)?;
    eprintln!("papayad: {} can be cut and removed by root now", path(config));
    Ok(Exit::Ok)
}

/// The running service logs what was done, and shows it until it is undone.
fn tell(service: Option<Caller>, what: &Request) -> Result<(), Failure> {
    let Some(service) = service else { return Ok(()) };
    service.ask(what).map(drop).map_err(|e| {
        let message = format!("it is done, but the service was not told: {}", e.message);
        Failure::new(e.exit, message)
    })
}

fn keeper(config: &Config) -> Result<identity::Ids, Failure> {
    identity::lookup(&config.identity.keeper_user)
        .map_err(|e| Failure::new(Exit::Config, e.to_string()))
}

fn path(config: &Config) -> String {
    let path = config.paths.state.join(LOG);
    crate::visible::visible(&path.to_string_lossy()).into_owned()
}

fn explain(config: &Config, problem: &SealError) -> Failure {
    let exit = match problem {
        SealError::NotRoot | SealError::NotPermitted => Exit::Refused,
        SealError::Unsupported | SealError::Call(..) => Exit::Unavailable,
        SealError::Suspicious(_) => Exit::BadData,
    };
    Failure::new(exit, format!("{}: {problem}", path(config)))
}

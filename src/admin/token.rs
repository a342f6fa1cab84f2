//! `papayad token add|list|revoke`: who may join.
//!
//! Runs as root or as the service's user; as root it becomes the keeper's user before it touches
//! the state directory, so that files belong to whom they must and root follows nobody's links.

use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use nix::unistd::geteuid;

use super::cli::Configured;
use crate::config::Config;
use crate::confine::identity::{self, IdentityError};
use crate::daemon::launcher::control::{Caller, Request};
use crate::daemon::launcher::prepare;
use crate::exit::{Exit, Failure};
use crate::state::tokens::{self, Entry, Hasher, Standing, Tokens, TokensError};
use crate::state::{StateDir, StateError, hostkey};
use crate::token::{Name, Role, SECRET_LEN, Secret, Token, TokenId};

/// What to do with tokens.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make a token and print it, once: only its hash is kept
    Add {
        /// The name it speaks under
        name: Name,
        /// member, operator (no rate limit, may post notices) or readonly
        #[arg(long, default_value = "member")]
        role: Role,
        /// Ends after this time: 30m, 12h, 7d
        #[arg(long, value_name = "TIME", value_parser = span)]
        expires: Option<Duration>,
        #[command(flatten)]
        configured: Configured,
    },
    /// Print all tokens; the secrets are not kept
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Take a token back; its sessions end at once
    Revoke {
        /// Its name or its id
        which: String,
        #[command(flatten)]
        configured: Configured,
    },
}

/// Runs `papayad token`.
///
/// # Errors
/// The state directory cannot be used, or the token cannot be added or revoked.
pub fn run(action: &Action) -> Result<(), Failure> {
    match action {
        Action::Add { name, role, expires, configured } => {
            let config = configured.load()?;
            // Before the service is called: on a slow machine this may take longer than it waits.
            let fresh = Fresh::make()?;
            let service = enter(&config)?;
            let token = fresh.add(&config, name, *role, *expires)?;
            tell(service);
            eprintln!("papayad: token {} for {name} ({role}); it is shown only now:", token.id);
            println!("{}", *token.encode());
            Ok(())
        }
        Action::List { json, configured } => {
            let config = configured.load()?;
            become_keeper(&config)?;
            list(&config, *json)
        }
        Action::Revoke { which, configured } => {
            let config = configured.load()?;
            let service = enter(&config)?;
            let entry =
                tokens::revoke(&open(&config)?, which, Timestamp::now()).map_err(changed)?;
            tell(service);
            eprintln!("papayad: token {} of {} is revoked", entry.id, entry.name);
            Ok(())
        }
    }
}

/// The running service, or why it cannot be told.
type Service = Result<Option<Caller>, Failure>;

/// Calls the service while this is still root, if it is, for later the socket is out of reach; then
/// becomes the keeper's user.
fn enter(config: &Config) -> Result<Service, Failure> {
    let service = Caller::connect(&config.paths.runtime);
    become_keeper(config)?;
    Ok(service)
}

/// Has a running service read the tokens again, which ends the sessions of revoked ones.
fn tell(service: Service) {
    match service.map(|caller| caller.map(|c| c.ask(&Request::Tokens))) {
        Ok(Some(Ok(_))) => {}
        Ok(None) => eprintln!("papayad: no service is running; it will know at its start"),
        Ok(Some(Err(failure))) | Err(failure) => {
            eprintln!("papayad: {failure}; send the service SIGHUP");
        }
    }
}

/// As root: makes the state directory if it is missing, and becomes its user for good, so that
/// files belong to whom they must, and root follows nobody's links.
fn become_keeper(config: &Config) -> Result<(), Failure> {
    if !geteuid().is_root() {
        return prepare::state_directory(config, None);
    }
    let failure = |e: IdentityError| Failure::new(Exit::Config, e.to_string());
    let ids = identity::lookup(&config.identity.keeper_user).map_err(failure)?;
    prepare::state_directory(config, Some(ids))?;
    identity::become_forever(&ids).map_err(failure)
}

/// What is new and random of a token, and its hash.
struct Fresh {
    id: TokenId,
    secret: Secret,
    hash: String,
}

impl Fresh {
    fn make() -> Result<Self, Failure> {
        let (mut id, mut secret) = (TokenId([0; 8]), Secret([0; SECRET_LEN]));
        let mut salt = [0; 16];
        for random in [&mut id.0[..], &mut secret.0[..], &mut salt[..]] {
            getrandom::fill(random).map_err(|e| {
                Failure::new(Exit::Internal, format!("the system gave no random numbers: {e}"))
            })?;
        }
        let hash = Hasher::new().hash(&secret, &salt).map_err(changed)?;
        Ok(Self { id, secret, hash })
    }

    /// Adds it to the file; gives the token that the client needs.
    fn add(
        self,
        config: &Config,
        name: &Name,
        role: Role,
        expires: Option<Duration>,
    ) -> Result<Token, Failure> {
        let dir = open(config)?;
        let key = hostkey::load_or_create(&dir).map_err(state)?;
        let now = Timestamp::now();
        let entry = Entry {
            id: self.id,
            name: name.clone(),
            role,
            created: now,
            expires: expires.and_then(|span| now.checked_add(span).ok()),
            revoked: None,
            hash: self.hash,
        };
        tokens::add(&dir, entry, now).map_err(changed)?;
        Ok(Token { server: key.public, id: self.id, secret: self.secret })
    }
}

fn open(config: &Config) -> Result<StateDir, Failure> {
    StateDir::open(&config.paths.state).map_err(state)
}

fn list(config: &Config, json: bool) -> Result<(), Failure> {
    let tokens = Tokens::load(&open(config)?).map_err(state)?;
    let now = Timestamp::now();
    if !json {
        println!(
            "{:<16}  {:<16} {:<9} {:<8} {:<20}  EXPIRES",
            "ID", "NAME", "ROLE", "STATE", "CREATED"
        );
    }
    for entry in tokens.entries() {
        let standing = match entry.standing(now) {
            Standing::Good => "good",
            Standing::Expired => "expired",
            Standing::Revoked => "revoked",
        };
        if json {
            let line = serde_json::json!({
                "id": entry.id, "name": entry.name, "role": entry.role, "state": standing,
                "created": entry.created, "expires": entry.expires, "revoked": entry.revoked,
            });
            println!("{line}");
        } else {
            let expires = entry.expires.map_or("never".to_owned(), |end| format!("{end:.0}"));
            let (id, name, role) = (entry.id, entry.name.as_str(), entry.role.to_string());
            println!("{id}  {name:<16} {role:<9} {standing:<8} {:<20.0}  {expires}", entry.created);
        }
    }
    Ok(())
}

fn state(problem: StateError) -> Failure {
    let exit = match problem {
        StateError::Damaged { .. } => Exit::BadData,
        StateError::Unsafe { .. } => Exit::Config,
        StateError::System { .. } => Exit::CannotCreate,
    };
    Failure::new(exit, problem.to_string())
}

fn changed(problem: TokensError) -> Failure {
    match problem {
        TokensError::State(problem) => state(problem),
        TokensError::Taken(_) | TokensError::Full => {
            Failure::new(Exit::CannotCreate, problem.to_string())
        }
        TokensError::Unknown(_) => Failure::new(Exit::BadData, problem.to_string()),
        TokensError::Hash(_) => Failure::new(Exit::Internal, problem.to_string()),
    }
}

/// A span of time: a number and one of s, m, h, d, w.
fn span(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no span of time: write a number and one of s m h d w, as 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(total) if (1..=3_155_760_000).contains(&total) => Ok(Duration::from_secs(total)),
        _ => Err(format!("{text:?} is out of range: from 1s to 100 years")),
    }
}

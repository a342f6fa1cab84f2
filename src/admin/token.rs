//! `papayad token add|list|rotate|revoke`: who may join.
//!
//! Runs as root or as the service's user; as root it becomes the keeper's user before it touches
//! the state directory, so that files belong to whom they must and root follows nobody's links.

use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::cli::Configured;
use crate::config::Config;
use crate::confine::identity::{self, IdentityError};
use crate::daemon::launcher::control::{Caller, Request};
use crate::daemon::launcher::prepare;
use crate::exit::{Exit, Failure, print};
use crate::state::tokens::{self, Entry, Hasher, Standing, Successor, Tokens, TokensError};
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
        /// The token and what it is for as one JSON object
        #[arg(long)]
        json: bool,
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
    /// Make a new token in a token's place and print it, once; the old one ends after the grace
    Rotate {
        /// Its name or its id; by a name, what earlier rotations have left ends, too
        which: String,
        /// How long the old one stays good, with its sessions: 0s ends it at once
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = grace)]
        grace: Duration,
        /// The new token and what it is for as one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Take back a token, or all of a name; its sessions end at once
    Revoke {
        /// Its name or its id
        which: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
}

/// Runs `papayad token`.
///
/// # Errors
/// The state directory cannot be used, or the token cannot be added or revoked.
pub fn run(action: &Action) -> Result<(), Failure> {
    let (Action::Add { configured, .. }
    | Action::List { configured, .. }
    | Action::Rotate { configured, .. }
    | Action::Revoke { configured, .. }) = action;
    let config = configured.load()?;
    match action {
        Action::Add { name, role, expires, json, .. } => {
            // Before the service is called: on a slow machine this may take longer than it waits.
            let fresh = Fresh::make()?;
            let service = enter(&config)?;
            let (token, entry) = fresh.add(&config, name, *role, *expires)?;
            tell(service);
            eprintln!("papayad: token {} for {name} ({role}); it is shown only now:", token.id);
            show(&token, &entry, None, *json)
        }
        Action::List { json, .. } => {
            become_keeper(&config)?;
            list(&config, *json)
        }
        Action::Rotate { which, grace, json, .. } => {
            let fresh = Fresh::make()?;
            let service = enter(&config)?;
            let (token, old, new) = fresh.rotate(&config, which, *grace)?;
            tell(service);
            let name = &new.name;
            match old.expires.filter(|_| old.revoked.is_none()) {
                Some(end) => eprintln!("papayad: token {} of {name} ends at {end:.0}", old.id),
                None => eprintln!("papayad: token {} of {name} is revoked", old.id),
            }
            eprintln!("papayad: token {} for {name} in its place; it is shown only now:", new.id);
            show(&token, &new, Some(&old), *json)
        }
        Action::Revoke { which, json, .. } => {
            let service = enter(&config)?;
            let now = Timestamp::now();
            let revoked = tokens::revoke(&open(&config)?, which, now).map_err(changed)?;
            tell(service);
            for entry in &revoked {
                eprintln!("papayad: token {} of {} is revoked", entry.id, entry.name);
                if *json {
                    print_line(&to_json(entry, now).to_string())?;
                }
            }
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

/// Prints a new token: exactly it, or an object with what it is for.
fn show(token: &Token, entry: &Entry, old: Option<&Entry>, json: bool) -> Result<(), Failure> {
    let text = token.encode();
    if !json {
        return print_line(&text);
    }
    let mut line = to_json(entry, entry.created);
    line["token"] = text.as_str().into();
    if let Some(old) = old {
        line["replaces"] = to_json(old, entry.created);
    }
    print_line(&Zeroizing::new(line.to_string()))
}

/// A token that nobody could read is lost: what cannot be printed is an error.
fn print_line(line: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| {
        let message = format!("cannot write to standard output: {e}; revoke what was made");
        Failure::new(Exit::CannotCreate, message)
    })
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

    /// Adds it to the file; gives the token that the client needs, and what stands in the file.
    fn add(
        self,
        config: &Config,
        name: &Name,
        role: Role,
        expires: Option<Duration>,
    ) -> Result<(Token, Entry), Failure> {
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
        tokens::add(&dir, entry.clone(), now).map_err(changed)?;
        Ok((Token { server: key.public, id: self.id, secret: self.secret }, entry))
    }

    /// Puts it in another's place; gives the token, and both as they stand now: the old one first.
    fn rotate(
        self,
        config: &Config,
        which: &str,
        grace: Duration,
    ) -> Result<(Token, Entry, Entry), Failure> {
        let dir = open(config)?;
        let key = hostkey::load_or_create(&dir).map_err(state)?;
        let successor = Successor { id: self.id, hash: self.hash };
        let (old, new) =
            tokens::rotate(&dir, which, successor, grace, Timestamp::now()).map_err(changed)?;
        Ok((Token { server: key.public, id: self.id, secret: self.secret }, old, new))
    }
}

fn open(config: &Config) -> Result<StateDir, Failure> {
    StateDir::open(&config.paths.state).map_err(state)
}

fn list(config: &Config, json: bool) -> Result<(), Failure> {
    let tokens = Tokens::load(&open(config)?).map_err(state)?;
    let now = Timestamp::now();
    let row = |entry: &Entry| {
        if json {
            return format!("{}\n", to_json(entry, now));
        }
        let standing = standing(entry, now);
        let expires = entry.expires.map_or("never".to_owned(), |end| format!("{end:.0}"));
        let (id, name, role) = (entry.id, entry.name.as_str(), entry.role.to_string());
        format!("{id}  {name:<16} {role:<9} {standing:<8} {:<20.0}  {expires}\n", entry.created)
    };
    let head = format!(
        "{:<16}  {:<16} {:<9} {:<8} {:<20}  EXPIRES\n",
        "ID", "NAME", "ROLE", "STATE", "CREATED"
    );
    let head = (!json).then_some(head);
    print(&head.into_iter().chain(tokens.entries().iter().map(row)).collect::<String>())
}

fn standing(entry: &Entry, now: Timestamp) -> &'static str {
    match entry.standing(now) {
        Standing::Good => "good",
        Standing::Expired => "expired",
        Standing::Revoked => "revoked",
    }
}

fn to_json(entry: &Entry, now: Timestamp) -> serde_json::Value {
    serde_json::json!({
        "id": entry.id, "name": entry.name, "role": entry.role, "state": standing(entry, now),
        "created": entry.created, "expires": entry.expires, "revoked": entry.revoked,
    })
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

/// A span of time, or none at all.
fn grace(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { span(text) }
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

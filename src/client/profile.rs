//! `papaya profile`: a server and a token under a short name, in one file that only its owner can
//! read: `$XDG_CONFIG_HOME/papayachat/NAME.toml`, or the same below `~/.config`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::access::{Access, parse_server, read_secret_file};
use super::address::ServerAddress;
use super::output::stdout_failure;
use crate::exit::{Exit, Failure};
use crate::token::{Name, Token};

/// What can be done with profiles.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Store a server and a token under a name
    Add(Add),
    /// Show all profiles, without their secrets
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Delete a profile
    Remove {
        /// The profile's name
        name: String,
    },
}

/// The arguments of `profile add`.
#[derive(Args, Debug)]
pub struct Add {
    /// The profile's name: 1 to 32 of A-Z a-z 0-9 . _ -
    name: String,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    server: String,
    token: Zeroized,
}

/// The text of a token; wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Zeroized(String);

impl Drop for Zeroized {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// Runs one of the actions.
///
/// # Errors
/// Usage, a file that cannot be read or written, or a damaged token.
pub fn run(action: &Action) -> Result<(), Failure> {
    let directory = directory()?;
    match action {
        Action::Add(add) => {
            let server = add.access.server.as_deref().ok_or_else(|| {
                Failure::new(Exit::Usage, "which server? Name it with --server HOST:PORT")
            })?;
            let server = parse_server(server)?;
            let path = path_of(&directory, &add.name)?;
            if path.exists() {
                return Err(exists(&add.name));
            }
            write_new(&directory, &path, &server, &add.access.token()?, &add.name)
        }
        Action::List { json } => list(&directory, *json),
        Action::Remove { name } => {
            let path = path_of(&directory, name)?;
            fs::remove_file(&path).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => missing(name),
                _ => {
                    let problem = format!("cannot remove {}: {e}", path.display());
                    Failure::new(Exit::CannotCreate, problem)
                }
            })
        }
    }
}

/// The server and the token of the profile `name`; without a name the profile `default`, or the
/// only one there is.
///
/// # Errors
/// No such profile, or its file is unreadable or damaged.
pub fn load(name: Option<&str>) -> Result<(ServerAddress, Token), Failure> {
    let directory = directory()?;
    let name = match name {
        Some(name) => name.to_owned(),
        None => usual(&directory)?,
    };
    let path = path_of(&directory, &name)?;
    if !path.exists() {
        return Err(missing(&name));
    }
    read(&path)
}

fn read(path: &Path) -> Result<(ServerAddress, Token), Failure> {
    let text = read_secret_file(path)?;
    let bad = |problem: &str| Failure::new(Exit::BadData, format!("{}: {problem}", path.display()));
    // The parser's own message would quote the line, which may be the token's.
    let profile: Profile = toml::from_str(&text).map_err(|e| {
        bad(&format!("not a profile: {}", e.message().lines().next().unwrap_or("")))
    })?;
    let server = profile
        .server
        .parse()
        .map_err(|e: super::address::AddressError| bad(&format!("server: {e}")))?;
    Ok((server, Token::parse(&profile.token.0).map_err(|e| bad(&format!("token: {e}")))?))
}

/// Written under another name and then linked to its own, so that it is there whole or not at all,
/// and an existing profile is never replaced.
fn write_new(
    directory: &Path,
    path: &Path,
    server: &ServerAddress,
    token: &Token,
    name: &str,
) -> Result<(), Failure> {
    let failed = |e: io::Error| {
        Failure::new(Exit::CannotCreate, format!("cannot write {}: {e}", path.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let text = Zeroizing::new(format!("server = \"{server}\"\ntoken = \"{}\"\n", *token.encode()));
    let temporary = directory.join(format!(".{name}.{}.new", std::process::id()));
    let mut open = OpenOptions::new();
    let mut file =
        open.write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match written {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(exists(name)),
        other => other.map_err(failed),
    }
}

fn list(directory: &Path, json: bool) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    for name in names(directory)? {
        let written = match read(&path_of(directory, &name)?) {
            Ok((server, token)) if json => {
                let (server, id) = (server.to_string(), token.id.to_string());
                let row = serde_json::json!({ "name": name, "server": server, "token": id });
                writeln!(stdout, "{row}")
            }
            Ok((server, token)) => writeln!(stdout, "{name:<16} {server}  token {}", token.id),
            Err(failure) if json => {
                let row = serde_json::json!({ "name": name, "problem": failure.message });
                writeln!(stdout, "{row}")
            }
            Err(failure) => writeln!(stdout, "{name:<16} {}", failure.message),
        };
        written.map_err(|e| stdout_failure(&e))?;
    }
    Ok(())
}

/// All profiles' names in order.
fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let unreadable = |e: io::Error| {
        Failure::new(Exit::Unavailable, format!("cannot read {}: {e}", directory.display()))
    };
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(unreadable)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(unreadable)?.file_name();
        let name = file.to_str().and_then(|f| f.strip_suffix(".toml"));
        names.extend(name.filter(|n| n.parse::<Name>().is_ok()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn usual(directory: &Path) -> Result<String, Failure> {
    let names = names(directory)?;
    let problem = match names.as_slice() {
        [only] => return Ok(only.clone()),
        many if many.iter().any(|n| n == "default") => return Ok("default".to_owned()),
        [] => "which server? Name it with --server HOST:PORT, or store one with \"papaya profile add\""
            .to_owned(),
        many => format!("which profile? There are {}; name one, or use --server", many.join(", ")),
    };
    Err(Failure::new(Exit::Usage, problem))
}

fn directory() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|base| base.join("papayachat"))
        .ok_or_else(|| Failure::new(Exit::Config, "neither XDG_CONFIG_HOME nor HOME is set"))
}

fn path_of(directory: &Path, name: &str) -> Result<PathBuf, Failure> {
    let name: Name = name.parse().map_err(|_| {
        let problem = "is not a profile's name: use 1 to 32 of A-Z a-z 0-9 . _ - and begin with a letter or a digit";
        Failure::new(Exit::Usage, format!("{name:?} {problem}"))
    })?;
    Ok(directory.join(format!("{name}.toml")))
}

fn missing(name: &str) -> Failure {
    let problem =
        format!("there is no profile {name:?}; \"papaya profile list\" shows what there is");
    Failure::new(Exit::Usage, problem)
}

fn exists(name: &str) -> Failure {
    let problem = format!(
        "the profile {name:?} exists; remove it first with \"papaya profile remove {name}\""
    );
    Failure::new(Exit::CannotCreate, problem)
}

//! Which server, and with which token: from options, from a profile, or asked for without echo. A
//! token never comes from the command line or the environment, where others can read it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::address::ServerAddress;
use super::output::complain;
use super::profile;
use crate::exit::{Exit, Failure};
use crate::token::{HRP, Token};

/// More than any token or profile has, in bytes.
const MAX_FILE: u64 = 16 * 1024;

/// The options that every command has in common.
#[derive(Args, Clone, Debug, Default)]
pub struct Access {
    /// The server, instead of a profile; the port is 7722 when it is left out
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// A file that holds the token, instead of being asked for it
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl Access {
    /// Server and token, with the help of `profile` when no server is named.
    ///
    /// # Errors
    /// Usage, an unreadable file, or a damaged token.
    pub fn open(&self, profile: Option<&str>) -> Result<(ServerAddress, Token), Failure> {
        let Some(server) = &self.server else {
            let (server, token) = profile::load(profile)?;
            return match &self.token_file {
                Some(file) => Ok((server, token_from_file(file)?)),
                None => Ok((server, token)),
            };
        };
        if let Some(profile) = profile {
            let problem = format!("give a profile ({profile:?}) or --server, not both");
            return Err(Failure::new(Exit::Usage, problem));
        }
        Ok((parse_server(server)?, self.token()?))
    }

    /// The token alone: from the file, or asked for.
    ///
    /// # Errors
    /// An unreadable file, no terminal to ask at, or a damaged token.
    pub fn token(&self) -> Result<Token, Failure> {
        match &self.token_file {
            Some(file) => token_from_file(file),
            None => ask_for_token(),
        }
    }
}

/// Parses what `--server` says.
///
/// # Errors
/// It is not a server's address.
pub fn parse_server(text: &str) -> Result<ServerAddress, Failure> {
    text.parse().map_err(|e: super::address::AddressError| Failure::new(Exit::Usage, e.to_string()))
}

/// Refuses arguments that are tokens, before anything else looks at them.
///
/// # Errors
/// One of them is.
pub fn refuse_tokens<'a>(arguments: impl Iterator<Item = &'a OsStr>) -> Result<(), Failure> {
    for argument in arguments {
        let text = argument.to_string_lossy();
        let value = text.rsplit('=').next().unwrap_or(&text).trim();
        let prefix = value.get(..HRP.len() + 1).unwrap_or("").to_ascii_lowercase();
        let one_word = value.bytes().all(|b| b.is_ascii_alphanumeric());
        if prefix == "papaya1" && one_word && value.len() > 60 {
            return Err(Failure::new(
                Exit::Usage,
                "a token does not belong on the command line: every user of this machine can read it there, \
                 and your shell keeps it\nput it into a file and name it with --token-file, or wait to be \
                 asked for it; and have this one revoked",
            ));
        }
    }
    Ok(())
}

/// Reads a file that holds a secret; says so on stderr when others may read it, too.
///
/// # Errors
/// It cannot be read, or is not text of a sensible size.
pub fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let unreadable = |e: std::io::Error| {
        Failure::new(Exit::Unavailable, format!("cannot read {}: {e}", path.display()))
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        let path = path.display();
        complain(&format!("warning: others can read {path}, which holds a token; chmod 600 it"));
    }
    // Room for everything at once: growing would leave copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize + 1));
    file.by_ref().take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        let problem = format!("{} is too large to be a token or a profile", path.display());
        return Err(Failure::new(Exit::BadData, problem));
    }
    Ok(text)
}

fn token_from_file(path: &Path) -> Result<Token, Failure> {
    Token::parse(&read_secret_file(path)?)
        .map_err(|e| Failure::new(Exit::BadData, format!("{}: {e}", path.display())))
}

fn ask_for_token() -> Result<Token, Failure> {
    let text = rpassword::prompt_password("Token (it is not shown): ").map_err(|e| {
        let problem = format!("no token: there is no terminal to ask for it ({e})");
        Failure::new(
            Exit::Usage,
            format!("{problem}\nput it into a file and use --token-file FILE"),
        )
    })?;
    Token::parse(&Zeroizing::new(text)).map_err(|e| Failure::new(Exit::BadData, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(argument: &str) -> bool {
        refuse_tokens(["papaya", "send", argument].iter().map(OsStr::new)).is_err()
    }

    #[test]
    fn a_token_on_the_command_line_is_refused_and_not_repeated() {
        let token = format!("papaya1{}", "q".repeat(122));
        for form in [token.clone(), token.to_uppercase(), format!("--token={token}")] {
            assert!(refused(&form));
        }
        let error = refuse_tokens([OsStr::new(&token)].into_iter()).unwrap_err();
        assert!(!error.message.contains("qqq"));
        for fine in ["papaya1", "papaya1 is a fine fruit", "ä", "papayachat", ""] {
            assert!(!refused(fine), "{fine}");
        }
    }
}

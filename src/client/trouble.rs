//! Everything that can go wrong between this client and a server, and what each means: the one
//! sentence for a person, the exit code, and whether a session that has once worked should try
//! again. Only what an authenticated server says is ever final; what anyone on the way could have
//! said is not.

use std::fmt;

use super::address::ServerAddress;
use crate::exit::{Exit, Failure};
use crate::visible::visible;
use crate::wire::cipher::CipherError;
use crate::wire::event::{ByeReason, EventError, Refusal};
use crate::wire::frame::FrameError;
use crate::wire::handshake::{HandshakeError, VERSION};

/// Why there is no connection, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No address, or none that answers; with the system's words.
    Unreachable(String),
    /// The connection broke; with the system's words.
    Broken(String),
    /// The server closed the connection without a word.
    Closed,
    /// Nothing came for this many seconds.
    Silent(u64),
    /// The server says that it is full or closing.
    Busy,
    /// The server says that it speaks this version.
    Version(u8),
    /// The server does not hold the key that the token names.
    WrongKey,
    /// What answers does not speak the protocol.
    NotPapaya,
    /// The part of the log was removed in which the echoes of what was just sent may have been.
    Removed,
    /// A frame was damaged or forged on the way.
    Damaged(String),
    /// The authenticated server broke the protocol.
    Protocol(String),
    /// The join was refused.
    Refused(Refusal, String),
    /// The server ended the connection.
    Bye {
        /// Why.
        reason: ByeReason,
        /// Whether to come back.
        retry: bool,
        /// The server's words.
        message: String,
    },
    /// This machine gave no randomness, no socket, or the like.
    Local(String),
}

impl Trouble {
    /// Whether a session that has been connected before gives up, too.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(reason, _) => !matches!(
                reason,
                Refusal::Ticket | Refusal::Sessions | Refusal::Full | Refusal::Internal
            ),
            Self::Bye { retry, .. } => !retry,
            Self::Protocol(_) => true,
            _ => false,
        }
    }

    /// The end of a program, in a sentence that names the server.
    pub fn failure(&self, server: &ServerAddress) -> Failure {
        Failure::new(self.exit(), self.sentence(server))
    }

    fn exit(&self) -> Exit {
        use Refusal as R;
        match self {
            Self::WrongKey => Exit::Refused,
            Self::Protocol(_) | Self::Local(_) => Exit::Internal,
            Self::Refused(R::Sessions | R::Internal | R::Ticket, _) => Exit::Unavailable,
            Self::Refused(R::Offset, _) => Exit::BadData,
            Self::Refused(R::BadJoin, _) => Exit::Internal,
            Self::Refused(..) => Exit::Refused,
            Self::Bye { reason, .. } => match reason {
                ByeReason::Kicked
                | ByeReason::Revoked
                | ByeReason::Expired
                | ByeReason::Replaced => Exit::Refused,
                ByeReason::Protocol => Exit::Internal,
                _ => Exit::Unavailable,
            },
            _ => Exit::Unavailable,
        }
    }

    fn sentence(&self, server: &ServerAddress) -> String {
        match self {
            Self::Unreachable(cause) => format!(
                "cannot reach {server}: {cause}; check the address, and whether the server runs"
            ),
            Self::Broken(_) | Self::Closed | Self::Silent(_) | Self::Damaged(_) | Self::Removed => {
                format!("the connection to {server} failed: {self}")
            }
            Self::Busy => {
                format!("the server at {server} is full or closing its door; try again later")
            }
            Self::Version(theirs) => format!(
                "the server at {server} speaks version {theirs} of the protocol and this program version {VERSION}; update the older one"
            ),
            Self::WrongKey => format!(
                "the server at {server} does not hold the key that this token names: the token is for another server, the address is wrong, or someone stands in between"
            ),
            Self::NotPapaya => format!("what answers at {server} is not a papayachat server"),
            Self::Protocol(_) | Self::Refused(..) | Self::Bye { .. } => {
                format!("the server at {server}: {self}")
            }
            Self::Local(what) => what.clone(),
        }
    }
}

/// The cause alone, for a notice in a session that goes on.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(cause) | Self::Broken(cause) | Self::Damaged(cause) => {
                f.write_str(cause)
            }
            Self::Closed => f.write_str("the server closed the connection without a word"),
            Self::Silent(seconds) => write!(f, "nothing came from the server for {seconds} s"),
            Self::Removed => f.write_str("a part of the log was removed before it came here"),
            Self::Busy => f.write_str("the server is full or closing its door"),
            Self::Version(theirs) => write!(f, "the server speaks version {theirs}"),
            Self::WrongKey => f.write_str("the server does not hold the key of this token"),
            Self::NotPapaya => f.write_str("what answers is not a papayachat server"),
            Self::Protocol(what) => write!(f, "it broke the protocol: {what}"),
            Self::Refused(reason, words) => f.write_str(&with_words(refusal(*reason), words)),
            Self::Bye { reason, message, .. } => f.write_str(&with_words(bye(*reason), message)),
            Self::Local(what) => f.write_str(what),
        }
    }
}

fn refusal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Unknown => "it does not know this token; ask its operator for a new one",
        Refusal::WrongSecret => "the secret in this token is wrong; copy the token again",
        Refusal::Expired => "this token has expired; ask its operator for a new one",
        Refusal::Revoked => "this token was revoked by the operator",
        Refusal::Ticket => "it does not accept this session's ticket any more",
        Refusal::Sessions => "too many clients are connected with this token; leave with one first",
        Refusal::Full => "the room is full; try again later",
        Refusal::BadJoin => "it did not understand this program's join",
        Refusal::Offset => "its log has no record that begins at this offset",
        Refusal::Internal => "it failed while it checked the token; try again later",
        Refusal::Other => "it refused this token",
    }
}

fn bye(reason: ByeReason) -> &'static str {
    match reason {
        ByeReason::Shutdown => "it is shutting down",
        ByeReason::Kicked => "its operator ended this connection",
        ByeReason::Revoked => "this token was revoked by the operator",
        ByeReason::Expired => "this token has expired; ask its operator for a new one",
        ByeReason::Replaced => "this session was taken over by a newer connection",
        ByeReason::Client => "it closed the connection as asked",
        ByeReason::Lock => "it ended a connection that held up the room",
        ByeReason::Idle => "it ended a connection that was silent",
        ByeReason::Protocol => "it did not understand what this program sent",
        ByeReason::Other => "it ended this connection",
    }
}

/// Our own sentence, and what the server adds: hostile text, so it passes the filter and is cut.
fn with_words(ours: &str, theirs: &str) -> String {
    if theirs.is_empty() {
        return ours.to_owned();
    }
    let short: String = theirs.chars().take(200).collect();
    format!("{ours} (the server says: {})", visible(&short))
}

impl From<CipherError> for Trouble {
    fn from(error: CipherError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<FrameError> for Trouble {
    fn from(error: FrameError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<EventError> for Trouble {
    fn from(error: EventError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<HandshakeError> for Trouble {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::NotAuthentic => Self::WrongKey,
            other => Self::Local(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(trouble: Trouble) -> (Exit, String) {
        let failure = trouble.failure(&"host".parse().unwrap());
        (failure.exit, failure.message)
    }

    #[test]
    fn each_trouble_has_its_code_and_names_the_server() {
        let bye = |reason| Trouble::Bye { reason, retry: false, message: String::new() };
        let refused = |reason| Trouble::Refused(reason, String::new());
        for (trouble, exit) in [
            (Trouble::Unreachable("no route".into()), Exit::Unavailable),
            (Trouble::Busy, Exit::Unavailable),
            (Trouble::Version(2), Exit::Unavailable),
            (Trouble::WrongKey, Exit::Refused),
            (refused(Refusal::Unknown), Exit::Refused),
            (refused(Refusal::WrongSecret), Exit::Refused),
            (refused(Refusal::Expired), Exit::Refused),
            (refused(Refusal::Revoked), Exit::Refused),
            (refused(Refusal::Offset), Exit::BadData),
            (bye(ByeReason::Kicked), Exit::Refused),
            (bye(ByeReason::Shutdown), Exit::Unavailable),
            (Trouble::Protocol("x".into()), Exit::Internal),
        ] {
            let (code, sentence) = failure(trouble.clone());
            assert_eq!(code, exit, "{trouble:?}");
            assert!(sentence.contains("host:7722"), "{sentence}");
        }
    }

    #[test]
    fn what_the_server_says_is_filtered_and_cut() {
        let evil = format!("\u{1b}]0;owned\u{7}\n{}", "x".repeat(5000));
        let (_, sentence) = failure(Trouble::Refused(Refusal::Other, evil));
        assert!(!sentence.contains(char::is_control), "{sentence}");
        assert!(sentence.len() < 500);
    }

    #[test]
    fn only_an_authenticated_no_is_final() {
        for trouble in [Trouble::WrongKey, Trouble::Busy, Trouble::Version(9), Trouble::NotPapaya] {
            assert!(!trouble.is_final(), "{trouble:?}");
        }
        assert!(Trouble::Refused(Refusal::Revoked, String::new()).is_final());
        assert!(!Trouble::Refused(Refusal::Ticket, String::new()).is_final());
    }
}

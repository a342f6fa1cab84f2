//! Tokens: the one long string that a person needs to join. Pure values and their text form.
//!
//! A token is bech32m (BIP 350) with the human-readable part `papaya`:
//! `server public key (32 bytes) | token id (8) | secret (32)`, 129 characters in all. So it pins
//! the server, and a typing error is caught before anything is sent.

use std::fmt;
use std::str::FromStr;

use bech32::{Bech32m, Hrp, primitives::decode::CheckedHrpstring};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The human-readable part in front of the separator `1`.
pub const HRP: &str = "papaya";
/// Length of a secret in bytes.
pub const SECRET_LEN: usize = 32;
/// Length of a token's payload in bytes.
pub const PAYLOAD_LEN: usize = 32 + 8 + SECRET_LEN;
/// Length of a token's text in characters.
pub const TEXT_LEN: usize = HRP.len() + 1 + (PAYLOAD_LEN * 8).div_ceil(5) + 6;

/// The server's static X25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerKey(pub [u8; 32]);

/// Names a token in lists and logs; random, so that it cannot be guessed, but not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(pub [u8; 8]);

/// The secret part of a token; wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub [u8; SECRET_LEN]);

/// A whole token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The server this token is for.
    pub server: ServerKey,
    /// Which token it is.
    pub id: TokenId,
    /// What proves that its holder was given it.
    pub secret: Secret,
}

/// The name a token speaks under: 1 to 32 of `A-Z a-z 0-9 . _ -`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and writes.
    Member,
    /// Reads, writes without the rate limit, and may post notices.
    Operator,
    /// Reads.
    Readonly,
}

/// Why a text is not a token, a token id, a name or a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It does not begin with `papaya1`.
    NotAToken,
    /// It has this many characters instead of [`TEXT_LEN`].
    Length(usize),
    /// A character is not allowed, or the checksum does not match.
    Checksum,
    /// Not 16 hexadecimal digits.
    Id(String),
    /// Not a valid name.
    Name(String),
    /// Not one of the three roles.
    Role(String),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAToken => {
                write!(f, "this is not a papayachat token: a token begins with \"{HRP}1\"")
            }
            Self::Length(n) => write!(
                f,
                "the token has {n} characters instead of {TEXT_LEN}: part of it is missing or doubled; copy it again"
            ),
            Self::Checksum => {
                f.write_str("the token is damaged (its checksum does not match): copy it again")
            }
            Self::Id(s) => write!(f, "{s:?} is not a token id: it has 16 hexadecimal digits"),
            Self::Name(s) => write!(
                f,
                "{s:?} is not a name: use 1 to 32 of A-Z a-z 0-9 . _ - and begin with a letter or a digit"
            ),
            Self::Role(s) => write!(f, "{s:?} is not a role: use member, operator or readonly"),
        }
    }
}

impl std::error::Error for TokenError {}

impl Token {
    /// The text form; wiped when dropped.
    pub fn encode(&self) -> Zeroizing<String> {
        let mut payload = Zeroizing::new([0u8; PAYLOAD_LEN]);
        payload[..32].copy_from_slice(&self.server.0);
        payload[32..40].copy_from_slice(&self.id.0);
        payload[40..].copy_from_slice(&self.secret.0);
        // Cannot fail: 72 bytes are far below the 1023 characters that bech32m's checksum covers.
        let text = bech32::encode::<Bech32m>(Hrp::parse_unchecked(HRP), &payload[..]);
        Zeroizing::new(text.unwrap_or_default())
    }

    /// Parses the text form; blanks and line ends around it are ignored, upper case is allowed.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let is_token = text.get(..HRP.len() + 1).is_some_and(|p| p.eq_ignore_ascii_case("papaya1"));
        if !is_token {
            return Err(TokenError::NotAToken);
        }
        let characters = text.chars().count();
        if characters != TEXT_LEN {
            return Err(TokenError::Length(characters));
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| TokenError::Checksum)?;
        let mut payload = Zeroizing::new([0u8; PAYLOAD_LEN]);
        let mut bytes = checked.byte_iter();
        for (slot, byte) in payload.iter_mut().zip(&mut bytes) {
            *slot = byte;
        }
        let mut token = Self {
            server: ServerKey([0; 32]),
            id: TokenId([0; 8]),
            secret: Secret([0; SECRET_LEN]),
        };
        token.server.0.copy_from_slice(&payload[..32]);
        token.id.0.copy_from_slice(&payload[32..40]);
        token.secret.0.copy_from_slice(&payload[40..]);
        Ok(token)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(s: &str) -> Result<Self, TokenError> {
        let mut id = [0u8; 8];
        if s.len() != 16 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(TokenError::Id(s.into()));
        }
        for (i, slot) in id.iter_mut().enumerate() {
            *slot = u8::from_str_radix(&s[2 * i..2 * i + 2], 16)
                .map_err(|_| TokenError::Id(s.into()))?;
        }
        Ok(Self(id))
    }
}

impl TryFrom<String> for TokenId {
    type Error = TokenError;
    fn try_from(s: String) -> Result<Self, TokenError> {
        s.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.to_string()
    }
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = TokenError;

    fn from_str(s: &str) -> Result<Self, TokenError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let first = s.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if first && s.len() <= 32 && s.bytes().all(allowed) {
            Ok(Self(s.into()))
        } else {
            Err(TokenError::Name(s.into()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = TokenError;
    fn try_from(s: String) -> Result<Self, TokenError> {
        s.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Role {
    type Err = TokenError;

    fn from_str(s: &str) -> Result<Self, TokenError> {
        match s {
            "member" => Ok(Self::Member),
            "operator" => Ok(Self::Operator),
            "readonly" => Ok(Self::Readonly),
            _ => Err(TokenError::Role(s.into())),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Member => "member",
            Self::Operator => "operator",
            Self::Readonly => "readonly",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Token {
        Token {
            server: ServerKey(std::array::from_fn(|i| i as u8)),
            id: TokenId([0xa0, 1, 2, 3, 4, 5, 6, 0xff]),
            secret: Secret(std::array::from_fn(|i| 255 - i as u8)),
        }
    }

    #[test]
    fn a_token_survives_its_text_form_in_either_case() {
        let text = sample().encode();
        assert_eq!(text.len(), TEXT_LEN);
        assert_eq!(TEXT_LEN, 129);
        assert_eq!(Token::parse(&text), Ok(sample()));
        assert_eq!(Token::parse(&format!("  {}\r\n", text.to_uppercase())), Ok(sample()));
    }

    #[test]
    fn every_single_wrong_character_is_caught_offline() {
        let text = sample().encode();
        for at in 7..TEXT_LEN {
            let mut wrong: Vec<u8> = text.bytes().collect();
            wrong[at] = if wrong[at] == b'q' { b'p' } else { b'q' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(Token::parse(&wrong), Err(TokenError::Checksum), "at {at}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_text_is_named() {
        let text = sample().encode();
        assert_eq!(Token::parse(""), Err(TokenError::NotAToken));
        assert_eq!(Token::parse("hunter2"), Err(TokenError::NotAToken));
        assert_eq!(Token::parse("päpaya1"), Err(TokenError::NotAToken));
        assert_eq!(Token::parse(&text[..TEXT_LEN - 1]), Err(TokenError::Length(TEXT_LEN - 1)));
        let foreign = format!("{}ä", &text[..TEXT_LEN - 1]);
        assert_eq!(Token::parse(&foreign), Err(TokenError::Checksum));
        // Plain bech32 (BIP 173) has another constant in its checksum: not ours.
        let hrp = Hrp::parse("papaya").unwrap();
        let old = bech32::encode::<bech32::Bech32>(hrp, &[7u8; PAYLOAD_LEN]).unwrap();
        assert_eq!(Token::parse(&old), Err(TokenError::Checksum));
    }

    #[test]
    fn names_are_short_and_printable() {
        for good in ["a", "alice", "Bob-2", "x.y_z", &"n".repeat(32)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a\n", "ä", "a/b", &"n".repeat(33)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert!(!format!("{:?}", sample()).contains("255, 254"));
    }
}

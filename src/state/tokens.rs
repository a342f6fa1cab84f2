//! The tokens of a room: who may join, under which name, with which rights, until when.
//!
//! `tokens` holds one JSON object a line; it is replaced as a whole, under a lock that keeps
//! concurrent administrators apart. The secret itself is not in it, only its argon2id hash.
//! A revoked token stays as a line without a hash, so that its holder can be told.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use argon2::password_hash::{Ident, PasswordHash, PasswordHashString, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{StateDir, StateError};
use crate::token::{Name, Role, Secret, TokenId};

const FILE: &str = "tokens";
/// The most lines the file may have.
const TOKENS_MAX: usize = 50_000;
const HASH_LEN: usize = 32;

/// One token, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its id.
    pub id: TokenId,
    /// The name it speaks under.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// The argon2id hash of its secret as a PHC string; empty once it is revoked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

/// What a token is good for at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can join.
    Good,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// Why the tokens were not changed.
#[derive(Debug)]
pub enum TokensError {
    /// A file could not be read or written.
    State(StateError),
    /// There is a good token for this name already.
    Taken(Name),
    /// No good token has this name or id.
    Unknown(String),
    /// There are `TOKENS_MAX` lines already.
    Full,
    /// The hash could not be computed.
    Hash(String),
}

impl fmt::Display for TokensError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(e) => e.fmt(f),
            Self::Taken(name) => write!(
                f,
                "there is a token for {name} already; revoke it first, or choose another name"
            ),
            Self::Unknown(what) => write!(
                f,
                "no token that could join has the name or id {what:?}; see `papayad token list`"
            ),
            Self::Full => write!(f, "there are {TOKENS_MAX} tokens already"),
            Self::Hash(cause) => write!(f, "the secret could not be hashed: {cause}"),
        }
    }
}

impl std::error::Error for TokensError {}

impl From<StateError> for TokensError {
    fn from(e: StateError) -> Self {
        Self::State(e)
    }
}

impl Entry {
    /// What it is good for at `now`.
    pub fn standing(&self, now: Timestamp) -> Standing {
        if self.revoked.is_some() || self.hash.is_empty() {
            Standing::Revoked
        } else if self.expires.is_some_and(|end| now >= end) {
            Standing::Expired
        } else {
            Standing::Good
        }
    }

    fn is(&self, which: &str) -> bool {
        self.name.as_str() == which || self.id.to_string() == which
    }

    fn revoke(&mut self, now: Timestamp) {
        self.revoked = Some(now);
        self.hash.zeroize();
    }
}

/// All tokens, the oldest first, and where each id stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Entry>, HashMap<TokenId, usize>);

impl Tokens {
    /// Reads the file; a missing one is an empty one.
    pub fn load(dir: &StateDir) -> Result<Self, StateError> {
        let Some(content) = dir.read(FILE, 0o177)? else { return Ok(Self::default()) };
        let damaged = |line, problem: String| StateError::Damaged {
            path: dir.file_path(FILE),
            line,
            problem,
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = HashSet::new();
        for (number, line) in content.split(|b| *b == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let entry: Entry = serde_json::from_slice(line)
                .map_err(|e| damaged(number + 1, format!("this is not a token's line: {e}")))?;
            if !entry.hash.is_empty() && Stored::parse(&entry.hash).is_none() {
                return Err(damaged(number + 1, "its hash is not an argon2id hash of ours".into()));
            }
            if !seen.insert(entry.id) {
                return Err(damaged(number + 1, format!("the id {} stands here twice", entry.id)));
            }
            if entries.len() == TOKENS_MAX {
                return Err(damaged(number + 1, format!("more than {TOKENS_MAX} tokens")));
            }
            entries.push(entry);
        }
        entries.sort_by_key(|e| e.created);
        let places = entries.iter().enumerate().map(|(place, e)| (e.id, place)).collect();
        Ok(Self(entries, places))
    }

    /// All entries, the oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The entry with this id.
    pub fn find(&self, id: TokenId) -> Option<&Entry> {
        self.0.get(*self.1.get(&id)?)
    }

    /// How many can join at `now`.
    pub fn good(&self, now: Timestamp) -> usize {
        self.0.iter().filter(|e| e.standing(now) == Standing::Good).count()
    }

    fn save(&self, dir: &StateDir) -> Result<(), StateError> {
        let mut text = String::new();
        for entry in &self.0 {
            // Serializing these types cannot fail; an entry that did would be left out, not lost in
            // silence: loading would miss it at once.
            text.push_str(&serde_json::to_string(entry).unwrap_or_default());
            text.push('\n');
        }
        dir.fresh(FILE, 0o600, text.as_bytes())?.replace()
    }
}

/// Adds a token under the lock; `hash` is [`Hasher::hash`] of its secret.
pub fn add(dir: &StateDir, entry: Entry, now: Timestamp) -> Result<(), TokensError> {
    let _lock = dir.lock()?;
    let mut tokens = Tokens::load(dir)?;
    if tokens.0.iter().any(|e| e.name == entry.name && e.standing(now) == Standing::Good) {
        return Err(TokensError::Taken(entry.name));
    }
    if tokens.0.len() >= TOKENS_MAX {
        return Err(TokensError::Full);
    }
    tokens.0.push(entry);
    tokens.save(dir).map_err(TokensError::State)
}

/// Revokes the token with this id, or all tokens with this name (the old one of a rotation is good
/// for a while), under the lock, and returns them.
pub fn revoke(dir: &StateDir, which: &str, now: Timestamp) -> Result<Vec<Entry>, TokensError> {
    let _lock = dir.lock()?;
    let mut tokens = Tokens::load(dir)?;
    let mut revoked = Vec::new();
    for entry in tokens.0.iter_mut().filter(|e| e.revoked.is_none() && e.is(which)) {
        entry.revoke(now);
        revoked.push(entry.clone());
    }
    if revoked.is_empty() {
        return Err(TokensError::Unknown(which.to_owned()));
    }
    tokens.save(dir)?;
    Ok(revoked)
}

/// What the new token of a rotation is made of; name, role and end are the old one's.
pub struct Successor {
    /// Its id.
    pub id: TokenId,
    /// [`Hasher::hash`] of its secret.
    pub hash: String,
}

/// Gives the token with this name or id a successor, under the lock: both are good until the grace
/// is over, then the old one ends, and with it whatever an earlier rotation of the name has left:
/// nobody who rotates because of a leak can know which of them has leaked. All changes are one
/// replacement of the file, so that a crash leaves either none or all. Returns the newest of the old
/// ones, and the new one.
pub fn rotate(
    dir: &StateDir,
    which: &str,
    successor: Successor,
    grace: Duration,
    now: Timestamp,
) -> Result<(Entry, Entry), TokensError> {
    let _lock = dir.lock()?;
    let mut tokens = Tokens::load(dir)?;
    if tokens.0.len() >= TOKENS_MAX {
        return Err(TokensError::Full);
    }
    let is_meant = |e: &Entry| e.is(which) && e.standing(now) == Standing::Good;
    let newest = tokens
        .0
        .iter()
        .rposition(is_meant)
        .ok_or_else(|| TokensError::Unknown(which.to_owned()))?;
    let Successor { id, hash } = successor;
    let new = Entry { id, hash, created: now, ..tokens.0[newest].clone() };
    let end = now.checked_add(grace).unwrap_or(Timestamp::MAX);
    for old in tokens.0.iter_mut().filter(|e| is_meant(e)) {
        if grace.is_zero() {
            old.revoke(now);
        } else {
            old.expires = Some(old.expires.map_or(end, |expires| expires.min(end)));
        }
    }
    let old = tokens.0[newest].clone();
    tokens.0.push(new.clone());
    tokens.save(dir)?;
    Ok((old, new))
}

/// Computes and checks argon2id hashes in one buffer, allocated once and wiped after each use.
pub struct Hasher {
    memory: Vec<Block>,
}

struct Stored {
    salt: Vec<u8>,
    hash: [u8; HASH_LEN],
}

impl Stored {
    /// Reads a PHC string with exactly our parameters: another cost could not be served from the
    /// one buffer, and is never written.
    fn parse(phc: &str) -> Option<Self> {
        let parsed = PasswordHash::new(phc).ok()?;
        let params = Params::try_from(&parsed).ok()?;
        let ours = parsed.algorithm == Algorithm::Argon2id.ident()
            && parsed.version == Some(Version::V0x13.into())
            && (params.m_cost(), params.t_cost(), params.p_cost()) == cost();
        let mut salt = [0u8; Salt::MAX_LENGTH];
        let salt = parsed.salt?.decode_b64(&mut salt).ok()?.to_vec();
        let hash: [u8; HASH_LEN] = parsed.hash?.as_bytes().try_into().ok()?;
        ours.then_some(Self { salt, hash })
    }
}

/// Memory in KiB, passes and lanes: the OWASP minimum, which is the crate's default too.
fn cost() -> (u32, u32, u32) {
    (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST)
}

impl Hasher {
    /// Allocates the buffer (19 MiB).
    pub fn new() -> Self {
        Self { memory: vec![Block::default(); Params::default().block_count()] }
    }

    /// The PHC string for `secret` with this salt of 16 random bytes.
    pub fn hash(&mut self, secret: &Secret, salt: &[u8; 16]) -> Result<String, TokensError> {
        let failed = |e: argon2::password_hash::Error| TokensError::Hash(e.to_string());
        let output = self.compute(secret, salt).map_err(|e| TokensError::Hash(e.to_string()))?;
        let salt = SaltString::encode_b64(salt).map_err(failed)?;
        let phc = PasswordHash {
            algorithm: Ident::new_unwrap("argon2id"),
            version: Some(Version::V0x13.into()),
            params: (&Params::default()).try_into().map_err(failed)?,
            salt: Some(salt.as_salt()),
            hash: Some(argon2::password_hash::Output::new(&output).map_err(failed)?),
        };
        Ok(PasswordHashString::from(phc).as_str().to_owned())
    }

    /// Whether `secret` is the one that was hashed, compared in constant time.
    pub fn verify(&mut self, secret: &Secret, phc: &str) -> bool {
        let Some(stored) = Stored::parse(phc) else { return false };
        match self.compute(secret, &stored.salt) {
            Ok(output) => output.ct_eq(&stored.hash).into(),
            Err(_) => false,
        }
    }

    fn compute(&mut self, secret: &Secret, salt: &[u8]) -> Result<[u8; HASH_LEN], argon2::Error> {
        let mut output = [0u8; HASH_LEN];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default());
        let done =
            argon2.hash_password_into_with_memory(&secret.0, salt, &mut output, &mut self.memory);
        self.memory.iter_mut().for_each(Zeroize::zeroize);
        done.map(|()| output)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_opens_and_nothing_of_it_stays_in_the_buffer() {
        let mut hasher = Hasher::new();
        let phc = hasher.hash(&Secret([5; 32]), &[9; 16]).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(hasher.verify(&Secret([5; 32]), &phc));
        assert!(!hasher.verify(&Secret([6; 32]), &phc));
        assert!(hasher.memory.iter().all(|b| b.as_ref().iter().all(|w| *w == 0)));
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn entry(id: u8, name: &str, expires: Option<i64>) -> Entry {
        Entry {
            id: TokenId([id; 8]),
            name: name.parse().unwrap(),
            role: Role::Operator,
            created: second(0),
            expires: expires.map(second),
            revoked: None,
            hash: hash(id),
        }
    }

    fn hash(byte: u8) -> String {
        Hasher::new().hash(&Secret([byte; 32]), &[byte; 16]).unwrap()
    }

    fn with_tokens(entries: impl IntoIterator<Item = Entry>) -> (tempfile::TempDir, StateDir) {
        use std::os::unix::fs::PermissionsExt;
        let at = tempfile::tempdir().unwrap();
        std::fs::set_permissions(at.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let dir = StateDir::open(at.path()).unwrap();
        entries.into_iter().for_each(|entry| add(&dir, entry, second(0)).unwrap());
        (at, dir)
    }

    fn rotate_at(
        dir: &StateDir,
        which: &str,
        id: u8,
        grace: u64,
    ) -> Result<(Entry, Entry), TokensError> {
        let successor = Successor { id: TokenId([id; 8]), hash: hash(id) };
        rotate(dir, which, successor, Duration::from_secs(grace), second(100))
    }

    fn standings(dir: &StateDir, now: i64) -> Vec<Standing> {
        let tokens = Tokens::load(dir).unwrap();
        tokens.entries().iter().map(|e| e.standing(second(now))).collect()
    }

    #[test]
    fn both_tokens_of_a_rotation_are_good_until_the_grace_is_over_to_the_second() {
        use Standing::{Expired, Good, Revoked};
        let (_at, dir) = with_tokens([entry(1, "alice", None)]);
        let (old, new) = rotate_at(&dir, "alice", 2, 10).unwrap();
        assert_eq!((old.id, new.id), (TokenId([1; 8]), TokenId([2; 8])));
        assert_eq!((new.role, new.expires, &new.hash), (old.role, None, &hash(2)));
        assert_eq!(standings(&dir, 109), [Good, Good]);
        assert_eq!(standings(&dir, 110), [Expired, Good]);
        // The name still is taken, and the newest of its tokens is the one that is rotated next.
        assert!(add(&dir, entry(3, "alice", None), second(110)).is_err());
        let (old, _) = rotate_at(&dir, "alice", 3, 0).unwrap();
        assert_eq!((old.id, old.hash.as_str()), (TokenId([2; 8]), ""));
        // Also the first one, whose grace was not over.
        assert_eq!(standings(&dir, 100), [Revoked, Revoked, Good]);
    }

    #[test]
    fn a_later_rotation_ends_all_tokens_of_the_name_within_its_own_grace() {
        use Standing::{Expired, Good};
        let (_at, dir) = with_tokens([entry(1, "alice", None), entry(9, "bob", None)]);
        rotate_at(&dir, "alice", 2, 3600).unwrap();
        rotate_at(&dir, "alice", 3, 10).unwrap();
        assert_eq!(standings(&dir, 109), [Good, Good, Good, Good]);
        assert_eq!(standings(&dir, 110), [Expired, Good, Expired, Good]);
        // And never lets one live longer; an id means one token.
        rotate_at(&dir, "alice", 4, 7200).unwrap();
        assert_eq!(standings(&dir, 110)[..3], [Expired, Good, Expired]);
        rotate_at(&dir, &TokenId([4; 8]).to_string(), 5, 0).unwrap();
        assert_eq!(standings(&dir, 110)[3..], [Good, Standing::Revoked, Good]);
    }

    #[test]
    fn a_rotation_never_makes_a_token_live_longer() {
        let (_at, dir) = with_tokens([entry(1, "alice", Some(105))]);
        let (old, new) = rotate_at(&dir, &TokenId([1; 8]).to_string(), 2, 3600).unwrap();
        assert_eq!((old.expires, new.expires), (Some(second(105)), Some(second(105))));
        let (_at, dir) = with_tokens([entry(1, "alice", Some(50)), entry(2, "bob", None)]);
        assert!(matches!(rotate_at(&dir, "alice", 3, 1), Err(TokensError::Unknown(_))));
        revoke(&dir, "bob", second(60)).unwrap();
        assert!(matches!(rotate_at(&dir, "bob", 3, 1), Err(TokensError::Unknown(_))));
    }

    #[test]
    fn a_name_that_is_revoked_keeps_no_token_of_a_rotation() {
        let (_at, dir) = with_tokens([entry(1, "alice", None), entry(9, "bob", None)]);
        rotate_at(&dir, "alice", 2, 3600).unwrap();
        assert_eq!(revoke(&dir, "alice", second(101)).unwrap().len(), 2);
        let (_at, dir) = with_tokens([entry(1, "alice", None)]);
        rotate_at(&dir, "alice", 2, 3600).unwrap();
        let one = revoke(&dir, &TokenId([1; 8]).to_string(), second(101)).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(standings(&dir, 101), [Standing::Revoked, Standing::Good]);
    }

    #[test]
    fn a_hash_of_another_kind_or_cost_opens_nothing() {
        let mut hasher = Hasher::new();
        let good = hasher.hash(&Secret([5; 32]), &[9; 16]).unwrap();
        for bad in [
            good.replace("argon2id", "argon2i"),
            good.replace("m=19456", "m=1048576"),
            good.replace("v=19", "v=16"),
            good[..good.len() - 4].to_owned(),
            String::new(),
            "plain".to_owned(),
        ] {
            assert!(!hasher.verify(&Secret([5; 32]), &bad), "{bad}");
        }
    }
}

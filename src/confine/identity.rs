//! Who a process is: from root to an ordinary user, with no way back.
//!
//! The launcher and the keeper call [`become_forever`] once, before they confine themselves; a
//! service that was started without root calls [`rootless`]. Both read back from the kernel what
//! they asked for, try to undo it, and fail if any of that is not as it must be. Needs no `/proc`.

use std::fmt;

use nix::errno::Errno;
use nix::unistd::{
    Gid, Uid, User, getgroups, getresgid, getresuid, setegid, seteuid, setgid, setgroups,
    setresgid, setresuid, setuid,
};

/// The user and the group that a process is to run as; neither is root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: Uid,
    /// Its primary group, and the only one it will have.
    pub gid: Gid,
}

/// Why the identity is not what it must be. The process must end.
#[derive(Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// There is no such user.
    Unknown(String),
    /// The user is root, or its group is root's.
    Privileged(String),
    /// A step failed.
    Step {
        /// What was attempted, as in "cannot …".
        attempted: &'static str,
        /// The system's reason.
        cause: String,
    },
    /// The kernel says something else than what was asked for.
    Differs(&'static str),
    /// An attempt to become root again had success.
    Regained(&'static str),
}

impl IdentityError {
    fn step(attempted: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Step { attempted, cause: errno.desc().to_owned() }
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(user) => {
                write!(f, "there is no user {user:?}; create it, or name another in [identity]")
            }
            Self::Privileged(user) => {
                write!(f, "user {user:?} is root or has root's group; name another in [identity]")
            }
            Self::Step { attempted, cause } => write!(f, "cannot {attempted}: {cause}"),
            Self::Differs(what) => write!(f, "root was dropped, but {what}"),
            Self::Regained(how) => write!(f, "root was dropped, but {how} brought it back"),
        }
    }
}

impl std::error::Error for IdentityError {}

/// The ids of a user in the system's user database.
///
/// # Errors
/// No such user, a user with root's uid or gid, or a database that cannot be read.
pub fn lookup(user: &str) -> Result<Ids, IdentityError> {
    let entry = User::from_name(user)
        .map_err(IdentityError::step("read the user database"))?
        .ok_or_else(|| IdentityError::Unknown(user.to_owned()))?;
    if entry.uid.is_root() || entry.gid.as_raw() == 0 {
        return Err(IdentityError::Privileged(user.to_owned()));
    }
    Ok(Ids { uid: entry.uid, gid: entry.gid })
}

/// Turns this process, which is root, into an ordinary one for good: supplementary groups, group,
/// user, every capability set, `no_new_privs`; all read back, and the way back tried.
///
/// Must be called with a single thread. Clears the death signal that was set before it (the kernel
/// does when a process changes its user).
///
/// # Errors
/// Any step that fails, any difference, any success at becoming root again.
pub fn become_forever(ids: &Ids) -> Result<(), IdentityError> {
    if ids.uid.is_root() || ids.gid.as_raw() == 0 {
        return Err(IdentityError::Privileged(ids.uid.to_string()));
    }
    // The order matters: each step needs a privilege that a later one gives up.
    os::drop_bounding_set()?;
    setgroups(os::no_groups(&[ids.gid])).map_err(IdentityError::step("drop the groups"))?;
    setresgid(ids.gid, ids.gid, ids.gid).map_err(IdentityError::step("change the group"))?;
    setresuid(ids.uid, ids.uid, ids.uid).map_err(IdentityError::step("change the user"))?;
    os::drop_capabilities()?;
    verify(ids)?;
    os::verify_bounding_set()?;
    refuse_return()
}

/// Does `job` with another's effective ids, as root, and becomes root again: in a directory that the
/// other may change, nothing is done with more than the other's rights. What `job` keeps is the right
/// to make a file append-only, if it is there.
///
/// Must be called with a single thread.
///
/// # Errors
/// The ids cannot be changed, or not back.
pub fn acting_as<T>(other: &Ids, job: impl FnOnce() -> T) -> Result<T, Errno> {
    let own = Ids { uid: Uid::effective(), gid: Gid::effective() };
    setegid(other.gid)?;
    let done = seteuid(other.uid).and_then(|()| {
        os::keep_append_only();
        let done = job();
        seteuid(own.uid).map(|()| done)
    });
    setegid(own.gid).and(done)
}

/// Makes sure that a process which was not started as root cannot become it: gives up whatever
/// capabilities it was started with, sets `no_new_privs`, reads back, and tries the way back.
///
/// Groups and the bounding set stay as they are: without root nobody can change them.
///
/// # Errors
/// The process is root, or one of its ids differs from the others, or a step fails.
pub fn rootless() -> Result<(), IdentityError> {
    let ids = Ids { uid: Uid::current(), gid: Gid::current() };
    if ids.uid.is_root() || Uid::effective().is_root() {
        return Err(IdentityError::Differs("this process is root, and was to be rootless"));
    }
    os::drop_capabilities()?;
    verify_ids(&ids)?;
    os::verify_capabilities()?;
    refuse_root_user()
}

fn verify(ids: &Ids) -> Result<(), IdentityError> {
    verify_ids(ids)?;
    let groups = getgroups().map_err(IdentityError::step("read the groups"))?;
    if !os::groups_are_dropped(&groups, ids.gid) {
        return Err(IdentityError::Differs("supplementary groups are left"));
    }
    os::verify_capabilities()
}

/// Real, effective and saved: a program that was set-uid could return through the saved one.
fn verify_ids(ids: &Ids) -> Result<(), IdentityError> {
    let users = getresuid().map_err(IdentityError::step("read the user ids"))?;
    if [users.real, users.effective, users.saved] != [ids.uid; 3] {
        return Err(IdentityError::Differs("a user id is another"));
    }
    let groups = getresgid().map_err(IdentityError::step("read the group ids"))?;
    if [groups.real, groups.effective, groups.saved] != [ids.gid; 3] {
        return Err(IdentityError::Differs("a group id is another"));
    }
    Ok(())
}

/// Every way back that there is a call for; each must be refused.
fn refuse_return() -> Result<(), IdentityError> {
    let root = Gid::from_raw(0);
    must_fail("setgroups", setgroups(&[root]))?;
    must_fail("setgid", setgid(root))?;
    must_fail("setegid", setegid(root))?;
    must_fail("setresgid", setresgid(root, root, root))?;
    refuse_root_user()
}

fn refuse_root_user() -> Result<(), IdentityError> {
    let root = Uid::from_raw(0);
    must_fail("setuid", setuid(root))?;
    must_fail("seteuid", seteuid(root))?;
    must_fail("setresuid", setresuid(root, root, root))?;
    os::refuse_capabilities()
}

fn must_fail<T, E>(how: &'static str, result: Result<T, E>) -> Result<(), IdentityError> {
    match result {
        Ok(_) => Err(IdentityError::Regained(how)),
        Err(_) => Ok(()),
    }
}

#[cfg(target_os = "linux")]
mod os {
    use caps::errors::CapsError;
    use caps::{CapSet, Capability};
    use nix::sys::prctl;
    use nix::unistd::Gid;

    use super::{IdentityError, must_fail};
    use crate::sys::confine_linux as sys;

    /// No kernel can have more: the sets are 64 bits wide.
    const HIGHEST_CAPABILITY: u32 = 63;

    pub(super) fn no_groups(_only: &[Gid]) -> &[Gid] {
        &[]
    }

    pub(super) fn groups_are_dropped(groups: &[Gid], _only: Gid) -> bool {
        groups.is_empty()
    }

    fn cannot(attempted: &'static str) -> impl Fn(CapsError) -> IdentityError {
        move |cause| IdentityError::Step { attempted, cause: cause.to_string() }
    }

    /// By number and not by name: the kernel may know capabilities that the crate does not.
    /// The kernel clears the effective set with the user (capabilities(7)), not the permitted one.
    pub(super) fn keep_append_only() {
        // Without it the file system says why.
        let _ = caps::raise(None, CapSet::Effective, Capability::CAP_LINUX_IMMUTABLE);
    }

    pub(super) fn drop_bounding_set() -> Result<(), IdentityError> {
        for capability in 0..=HIGHEST_CAPABILITY {
            if sys::bounding_set_has(capability) == Some(true) {
                sys::drop_from_bounding_set(capability)
                    .map_err(IdentityError::step("drop a capability from the bounding set"))?;
            }
        }
        Ok(())
    }

    pub(super) fn verify_bounding_set() -> Result<(), IdentityError> {
        let left = (0..=HIGHEST_CAPABILITY).any(|c| sys::bounding_set_has(c) == Some(true));
        if left {
            return Err(IdentityError::Differs("the bounding set has capabilities left"));
        }
        Ok(())
    }

    pub(super) fn drop_capabilities() -> Result<(), IdentityError> {
        prctl::set_keepcaps(false)
            .map_err(IdentityError::step("clear the keep-capabilities flag"))?;
        caps::clear(None, CapSet::Ambient).map_err(cannot("clear the ambient capabilities"))?;
        caps::clear(None, CapSet::Inheritable)
            .map_err(cannot("clear the inheritable capabilities"))?;
        // Clears the effective set in the same call.
        caps::clear(None, CapSet::Permitted).map_err(cannot("clear the permitted capabilities"))?;
        prctl::set_no_new_privs().map_err(IdentityError::step("set no_new_privs"))
    }

    pub(super) fn verify_capabilities() -> Result<(), IdentityError> {
        for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Permitted, CapSet::Effective] {
            let left = caps::read(None, set).map_err(cannot("read the capabilities"))?;
            if !left.is_empty() {
                return Err(IdentityError::Differs("capabilities are left"));
            }
        }
        if prctl::get_no_new_privs() != Ok(true) {
            return Err(IdentityError::Differs("no_new_privs is not set"));
        }
        Ok(())
    }

    pub(super) fn refuse_capabilities() -> Result<(), IdentityError> {
        for capability in [Capability::CAP_SETUID, Capability::CAP_SYS_ADMIN] {
            must_fail("capset (effective)", caps::raise(None, CapSet::Effective, capability))?;
            must_fail("capset (permitted)", caps::raise(None, CapSet::Permitted, capability))?;
            must_fail("prctl (ambient)", caps::raise(None, CapSet::Ambient, capability))?;
        }
        Ok(())
    }
}

#[cfg(target_os = "freebsd")]
mod os {
    use nix::unistd::Gid;

    use super::IdentityError;

    /// The first entry is the effective group (before FreeBSD 15), so the set is never empty.
    pub(super) fn no_groups(only: &[Gid]) -> &[Gid] {
        only
    }

    pub(super) fn groups_are_dropped(groups: &[Gid], only: Gid) -> bool {
        groups.iter().all(|group| *group == only)
    }

    pub(super) fn keep_append_only() {}

    pub(super) fn drop_bounding_set() -> Result<(), IdentityError> {
        Ok(())
    }

    pub(super) fn verify_bounding_set() -> Result<(), IdentityError> {
        Ok(())
    }

    /// FreeBSD has no capability sets; what is left is that no program may raise privileges.
    pub(super) fn drop_capabilities() -> Result<(), IdentityError> {
        crate::sys::confine_freebsd::set_no_new_privs()
            .map_err(IdentityError::step("set no_new_privs"))
    }

    pub(super) fn verify_capabilities() -> Result<(), IdentityError> {
        match crate::sys::confine_freebsd::no_new_privs() {
            Ok(true) => Ok(()),
            _ => Err(IdentityError::Differs("no_new_privs is not set")),
        }
    }

    pub(super) fn refuse_capabilities() -> Result<(), IdentityError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_no_identity_for_a_role() {
        assert_eq!(lookup("root"), Err(IdentityError::Privileged("root".into())));
        let root = Ids { uid: Uid::from_raw(0), gid: Gid::from_raw(1) };
        assert!(matches!(become_forever(&root), Err(IdentityError::Privileged(_))));
    }

    #[test]
    fn an_unknown_user_is_named_in_the_error() {
        let error = lookup("no-such-user-here").expect_err("a user that nobody has");
        assert!(error.to_string().contains("no-such-user-here"));
    }
}

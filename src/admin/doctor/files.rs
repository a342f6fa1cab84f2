//! Doctor: owners, modes and kinds of the service's files, and the log's append-only flag.

use std::fs::{Metadata, symlink_metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::service::Service;
use super::{Finding, Outcome};
use crate::admin::check::{HOST_KEY, TOKENS};
use crate::config::Config;
use crate::daemon::launcher::control::SOCKET;
use crate::daemon::launcher::seal::{self, SealError};
use crate::room::log::{GATE, LOG};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Socket,
}

struct Expected {
    path: PathBuf,
    kind: Kind,
    owner: Uid,
    /// No other permission than these.
    most: u32,
    /// Whether it may be missing.
    optional: bool,
}

/// All files.
pub fn check(config: &Config, service: &Service) -> Vec<Finding> {
    let keeper = service.keeper.0;
    let master = if service.rootless { service.workers.0 } else { Uid::from_raw(0) };
    let (state, runtime) = (&config.paths.state, &config.paths.runtime);
    let expected =
        |path: PathBuf, kind, owner, most| Expected { path, kind, owner, most, optional: false };
    let all = [
        expected(state.clone(), Kind::Directory, keeper, 0o750),
        expected(state.join(HOST_KEY), Kind::File, keeper, 0o600),
        Expected { optional: true, ..expected(state.join(TOKENS), Kind::File, keeper, 0o600) },
        expected(state.join(LOG), Kind::File, keeper, 0o640),
        expected(state.join(GATE), Kind::File, keeper, 0o640),
        expected(runtime.clone(), Kind::Directory, master, 0o755),
        expected(runtime.join(SOCKET), Kind::Socket, master, 0o600),
    ];
    let mut findings: Vec<Finding> = all.iter().map(look).collect();
    findings.push(append_only(config, service));
    findings
}

fn place(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn look(expected: &Expected) -> Finding {
    let outcome = match symlink_metadata(&expected.path) {
        Ok(found) => compare(expected, &found),
        Err(e) if e.kind() == io::ErrorKind::NotFound && expected.optional => {
            Outcome::Good("there is none yet".into())
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Outcome::Unseen("only root and its owner can look at it".into())
        }
        Err(e) => Outcome::differs(format!("cannot be looked at: {e}"), "restart the service"),
    };
    Finding { place: place(&expected.path), check: "owner and mode", outcome }
}

fn compare(expected: &Expected, found: &Metadata) -> Outcome {
    let path = expected.path.display();
    let Expected { kind, owner, most, .. } = expected;
    let is = |wanted: Kind| match wanted {
        Kind::Directory => found.is_dir(),
        Kind::File => found.is_file(),
        Kind::Socket => found.file_type().is_socket(),
    };
    if !is(*kind) {
        let remedy = "stop the service and find out who put it there";
        return Outcome::differs("it is another kind of file", remedy);
    }
    let mode = found.mode() & 0o7777;
    let (mut wrong, mut remedies) = (Vec::new(), Vec::new());
    if found.uid() != owner.as_raw() {
        wrong.push(format!("it belongs to uid {}, not {owner}", found.uid()));
        remedies.push(format!("chown {owner} {path}"));
    }
    if mode & !most != 0 {
        wrong.push(format!("its mode is {mode:04o}, which is more than {most:04o}"));
        remedies.push(format!("chmod {:04o} {path}", mode & most));
    }
    if *kind == Kind::File && found.nlink() != 1 {
        wrong.push(format!("it has {} names", found.nlink()));
        remedies.push("find and remove the other names".to_owned());
    }
    Outcome::of(format!("uid {owner}, mode {mode:04o}"), wrong, remedies.join("; "))
}

/// Where it can be set, it must be.
fn append_only(config: &Config, service: &Service) -> Finding {
    let found = seal::is_sealed(config);
    let outcome = append_only_outcome(&found, service);
    Finding { place: place(&config.paths.state.join(LOG)), check: "append-only", outcome }
}

pub(super) fn append_only_outcome(found: &Result<bool, SealError>, service: &Service) -> Outcome {
    match (found, &service.unsealed_since) {
        // Somebody sealed it without `papayad log seal`: the status would go on saying otherwise.
        (Ok(true), Some(since)) => Outcome::differs(
            format!("it can only grow, but the service was told at {since} that it can be cut"),
            "run `papayad log seal`, which tells it",
        ),
        (Ok(true), None) => Outcome::Good("it can only grow, for root too".into()),
        (Ok(false), _) if service.rootless => {
            Outcome::Good("not set: a rootless service cannot".into())
        }
        (Ok(false), since) => {
            let who = match since {
                Some(since) => format!("`papayad log unseal` was run at {since}"),
                None => "the service was not told of it".to_owned(),
            };
            Outcome::differs(
                format!(
                    "the log can be cut and replaced by root, and by whoever gets past the \
                     confinement; {who}"
                ),
                "run `papayad log seal`, or restart the service with CAP_LINUX_IMMUTABLE",
            )
        }
        (Err(SealError::Unsupported), _) => {
            Outcome::Good("not set: the file system has no such flag".into())
        }
        (Err(problem), _) => Outcome::Unseen(problem.to_string()),
    }
}

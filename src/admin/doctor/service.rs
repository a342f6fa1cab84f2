//! Doctor: what the running service says of itself, and whom the configuration names.

use std::os::unix::fs::MetadataExt;

use nix::unistd::{Gid, Uid};
use serde_json::Value;

use super::proc;
use crate::config::{Config, Level};
use crate::confine::{Role, identity};
use crate::daemon::launcher::control::{Caller, Request, SOCKET};
use crate::exit::{Exit, Failure};

/// One process of the service, and what it must be.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its number.
    pub pid: i32,
    /// Its role.
    pub role: Role,
    /// Its parent.
    pub parent: Option<i32>,
    /// What ps(1) must show.
    pub title: String,
    /// The configuration's part of its limit of descriptors.
    pub descriptors: Option<u64>,
}

impl Subject {
    /// How it is named in findings.
    pub fn place(&self) -> String {
        format!("{} (process {})", self.title.trim_start_matches("papayad: "), self.pid)
    }
}

/// The running service.
pub struct Service {
    /// Its processes, the launcher first.
    pub subjects: Vec<Subject>,
    /// Whether it was started without root.
    pub rootless: bool,
    /// The workers' user, and group where it is known.
    pub workers: (Uid, Option<Gid>),
    /// The keeper's.
    pub keeper: (Uid, Option<Gid>),
    /// What the launcher says is in force.
    pub level: Option<Level>,
    /// The same with its parts.
    pub confined: String,
    /// Since when root has had the log unsealed, if the service was told.
    pub unsealed_since: Option<String>,
    /// Addresses that it listens on.
    pub addresses: usize,
    /// Where its files are.
    pub state: std::path::PathBuf,
    /// What it says of itself.
    pub status: Value,
}

impl Service {
    /// Asks the running service.
    pub fn ask(config: &Config) -> Result<Self, Failure> {
        let runtime = &config.paths.runtime;
        let caller = Caller::connect(runtime)?.ok_or_else(|| {
            let message = format!(
                "no papayad is running (nothing answers in {}); there is nothing to look at",
                runtime.display()
            );
            Failure::new(Exit::Unavailable, message)
        })?;
        let answer = caller.ask(&Request::Status)?;
        let mut lines = answer.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let odd = || Failure::new(Exit::Internal, "the service's status is not understood");
        let status = lines.next().ok_or_else(odd)?;
        let clients: Vec<Value> = lines.collect();
        let rootless = status["rootless"].as_bool().ok_or_else(odd)?;
        let (workers, keeper) = users(config, rootless)?;
        Ok(Self {
            subjects: subjects(config, &status, &clients).ok_or_else(odd)?,
            rootless,
            workers,
            keeper,
            level: serde_json::from_value(status["level"].clone()).ok(),
            confined: status["sandbox"].as_str().unwrap_or_default().to_owned(),
            unsealed_since: status["unsealed_since"].as_str().map(str::to_owned),
            addresses: status["addresses"].as_array().map_or(0, Vec::len),
            state: config.paths.state.clone(),
            status,
        })
    }

    /// The launcher's process id.
    pub fn launcher(&self) -> i32 {
        self.subjects.first().map_or(0, |launcher| launcher.pid)
    }
}

type User = (Uid, Option<Gid>);

/// Rootless, all is the user's who owns the control socket.
fn users(config: &Config, rootless: bool) -> Result<(User, User), Failure> {
    if rootless {
        let path = config.paths.runtime.join(SOCKET);
        let owner = std::fs::symlink_metadata(&path).map(|found| Uid::from_raw(found.uid()));
        let owner = owner.map_err(|e| {
            Failure::new(Exit::Unavailable, format!("cannot look at {}: {e}", path.display()))
        })?;
        return Ok(((owner, None), (owner, None)));
    }
    let known = |name: &str| {
        let ids = identity::lookup(name).map_err(|e| Failure::new(Exit::Config, e.to_string()))?;
        Ok::<_, Failure>((ids.uid, Some(ids.gid)))
    };
    Ok((known(&config.identity.user)?, known(&config.identity.keeper_user)?))
}

fn number(of: &Value) -> Option<i32> {
    of.as_i64().and_then(|pid| pid.try_into().ok())
}

fn subjects(config: &Config, status: &Value, clients: &[Value]) -> Option<Vec<Subject>> {
    let launcher = number(&status["pid"])?;
    let subject = |pid, role, title: &str| Subject {
        pid,
        role,
        parent: (role != Role::Launcher).then_some(launcher),
        title: format!("papayad: {title}"),
        descriptors: None,
    };
    let mut all = vec![subject(launcher, Role::Launcher, "launcher")];
    let mut keeper = subject(number(&status["keeper"])?, Role::Keeper, "keeper");
    keeper.descriptors = Some(crate::daemon::keeper::descriptors(config));
    all.push(keeper);
    all.extend(number(&status["listener"]).map(|pid| subject(pid, Role::Listener, "listener")));
    let processes = proc::parents();
    for client in clients {
        let label = format!("{} {}", client["name"].as_str()?, client["address"].as_str()?);
        let recv = number(&client["pid"])?;
        all.push(subject(recv, Role::RecvJoined, &format!("recv {label}")));
        // The launcher does not know a SEND's number: it is RECV's child, and the only one.
        let send = processes.iter().find(|(_, parent)| *parent == recv);
        all.extend(send.map(|(pid, _)| Subject {
            parent: Some(recv),
            ..subject(*pid, Role::Send, &format!("send {label}"))
        }));
    }
    for pid in status["starting_pids"].as_array()? {
        all.push(subject(number(pid)?, Role::Recv, "recv -"));
    }
    Some(all)
}

//! Doctor: whether what runs is what is installed: an upgrade without a restart, or a unit that
//! starts another program.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::Outcome;
use super::super::proc::Process;
use super::super::service::Service;
use crate::confine::Role;
use crate::daemon::session;

const RESTART: &str = "restart the service (systemctl restart papayad)";
/// Where systemd looks for units, the first match counts.
const UNITS: &[&str] = &[
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Whether the launcher is this program, and its file is still there; and whether what it executes for
/// each client is the program that belongs to it.
pub fn check(service: &Service, version: &str) -> Outcome {
    let launcher = service.launcher();
    let ours = env!("CARGO_PKG_VERSION");
    if version != ours {
        let problem = format!("version {version} is running, this is version {ours}");
        return Outcome::differs(problem, RESTART);
    }
    let running = running(launcher);
    let here = fs::metadata("/proc/self/exe").or_else(|_| fs::metadata(std::env::current_exe()?));
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (running, here) {
        (Ok((path, _)), _) if path.ends_with(" (deleted)") => {
            let path = path.trim_end_matches(" (deleted)");
            Outcome::differs(format!("{path} was replaced since the service was started"), RESTART)
        }
        (Ok((path, file)), Ok(here)) if !same(&file, &here) => {
            let this = std::env::current_exe().unwrap_or_default();
            let problem = format!("{path} is running, this is {}", this.display());
            Outcome::differs(problem, "use that program, or restart the service with this one")
        }
        (Ok((path, _)), Ok(_)) => match clients(service) {
            Ok(None) => Outcome::Good(format!("{path}, version {version}")),
            Ok(Some(problem)) => Outcome::differs(problem, RESTART),
            Err(cause) => unseen(&cause),
        },
        (Err(cause), _) | (_, Err(cause)) => unseen(&cause),
    }
}

/// What is wrong with the program that the launcher executes for each client, if anything is.
fn clients(service: &Service) -> io::Result<Option<String>> {
    let launcher = service.launcher();
    let held = Process::read(launcher)?.descriptors?;
    if held.iter().any(|open| session::was_replaced(&open.link)) {
        let problem = format!("{} was replaced since the service was started", session::NAME);
        return Ok(Some(problem));
    }
    let installed = session::file_of(launcher)?;
    let serves = |role| matches!(role, Role::Recv | Role::RecvJoined | Role::Send);
    for subject in service.subjects.iter().filter(|subject| serves(subject.role)) {
        // Whoever has left meanwhile runs nothing.
        let Ok((path, file)) = running(subject.pid) else { continue };
        if let Some(problem) = other(&subject.place(), &path, (file.dev(), file.ino()), installed) {
            return Ok(Some(problem));
        }
    }
    Ok(None)
}

fn other(place: &str, path: &str, runs: (u64, u64), installed: (u64, u64)) -> Option<String> {
    let problem = || format!("{place} runs {path}, which is not the service's {}", session::NAME);
    (runs != installed).then(problem)
}

/// The program of a process: its path as it was started, and its file, even if it has no name now.
fn running(pid: i32) -> io::Result<(String, fs::Metadata)> {
    let link = format!("/proc/{pid}/exe");
    Ok((fs::read_link(&link)?.to_string_lossy().into_owned(), fs::metadata(&link)?))
}

fn unseen(cause: &io::Error) -> Outcome {
    Outcome::Unseen(format!("only root can look at it: {cause}"))
}

/// Whether systemd's unit, if it started the launcher, starts the program that runs.
pub fn unit(launcher: i32) -> Outcome {
    let unit = fs::read_to_string(format!("/proc/{launcher}/cgroup")).ok();
    let Some(unit) = unit.as_deref().and_then(unit_of) else {
        return Outcome::Good("it was not started by systemd".into());
    };
    let roots: Vec<PathBuf> = UNITS.iter().map(PathBuf::from).collect();
    match (exec_start(&unit, &roots), running(launcher)) {
        (None, _) => Outcome::Unseen(format!("the file of {unit} was not found")),
        (_, Err(cause)) => unseen(&cause),
        (Some(wanted), Ok((path, _))) => {
            compare(&unit, &wanted, path.trim_end_matches(" (deleted)"))
        }
    }
}

fn compare(unit: &str, wanted: &str, runs: &str) -> Outcome {
    let real = |path: &str| fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    if real(wanted) == real(runs) {
        return Outcome::Good(format!("{unit} starts {wanted}"));
    }
    Outcome::differs(
        format!("{unit} starts {wanted}, but {runs} is running"),
        "run `systemctl daemon-reload`, and restart the service with the program that you want",
    )
}

/// The unit's name in a process's list of control groups, if it is a service of the system's.
fn unit_of(cgroups: &str) -> Option<String> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut names = paths.filter_map(|path| {
        let service = path.split('/').rfind(|part| part.ends_with(".service"))?;
        service.starts_with("papayad").then(|| service.to_owned())
    });
    names.next()
}

/// The program that a unit starts: of its file, and of the drop-ins that replace it.
fn exec_start(unit: &str, roots: &[PathBuf]) -> Option<String> {
    let mut names = vec![unit.to_owned()];
    // papayad@room.service is made of papayad@.service.
    names.extend(unit.split_once('@').map(|(name, _)| format!("{name}@.service")));
    let file = names
        .iter()
        .find_map(|name| roots.iter().find_map(|root| fs::read_to_string(root.join(name)).ok()))?;
    let mut program = None;
    for text in [file].into_iter().chain(drop_ins(&names, roots)) {
        for value in text.lines().filter_map(|line| line.trim().strip_prefix("ExecStart=")) {
            // An empty one takes back what stood before; a prefix says how it is started.
            let word = value.split_whitespace().next();
            program =
                word.map(|word| word.trim_start_matches(['-', '@', ':', '+', '!', '|']).to_owned());
        }
    }
    program
}

/// The texts of UNIT.d/*.conf, in the order of their names.
fn drop_ins(names: &[String], roots: &[PathBuf]) -> Vec<String> {
    let directories =
        roots.iter().flat_map(|root| names.iter().map(move |name| root.join(format!("{name}.d"))));
    let mut files: Vec<PathBuf> = directories
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "conf"))
        .collect();
    files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    files.iter().filter_map(|path: &PathBuf| fs::read_to_string(Path::new(path)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_from_a_session() {
        let unit = |text: &str| unit_of(text);
        assert_eq!(
            unit("0::/system.slice/system-papayad.slice/papayad@den.service\n").as_deref(),
            Some("papayad@den.service")
        );
        assert_eq!(
            unit("3:pids:/x\n1:name=systemd:/system.slice/papayad.service/sub\n").as_deref(),
            Some("papayad.service")
        );
        assert_eq!(unit("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(unit("0::/system.slice/ssh.service\n0::/\n\n"), None);
    }

    #[test]
    fn another_program_for_a_client_is_told() {
        let other = |runs| other("recv alice (process 7)", "/tmp/x", runs, (1, 2));
        assert_eq!(other((1, 2)), None);
        for runs in [(1, 3), (2, 2)] {
            let problem = other(runs).unwrap();
            assert!(problem.starts_with("recv alice (process 7) runs /tmp/x, "), "{problem}");
        }
    }

    #[test]
    fn the_program_of_a_unit_is_that_of_its_last_drop_in() {
        let dir = tempfile::tempdir().unwrap();
        let roots = [dir.path().join("etc"), dir.path().join("lib")];
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let program = |unit: &str| exec_start(unit, &roots);
        assert_eq!(program("papayad.service"), None);
        put("lib/papayad.service", "[Service]\n# ExecStart=/no\nExecStart=/usr/sbin/papayad run\n");
        put("lib/papayad@.service", "ExecStart=+/usr/sbin/papayad run --config %i.toml\n");
        assert_eq!(program("papayad.service").as_deref(), Some("/usr/sbin/papayad"));
        assert_eq!(program("papayad@den.service").as_deref(), Some("/usr/sbin/papayad"));
        put(
            "lib/papayad.service.d/50-a.conf",
            "[Service]\nExecStart=\nExecStart=/opt/papayad run\n",
        );
        put("etc/papayad.service.d/20-b.conf", "[Service]\nExecStart=\nExecStart=/opt/other\n");
        put("etc/papayad.service.d/90-c.conf.old", "[Service]\nExecStart=/opt/none\n");
        assert_eq!(program("papayad.service").as_deref(), Some("/opt/papayad"));
        put("etc/papayad.service", "[Service]\nExecStart=/srv/papayad run\n");
        fs::remove_dir_all(dir.path().join("lib/papayad.service.d")).unwrap();
        assert_eq!(program("papayad.service").as_deref(), Some("/opt/other"));
    }

    #[test]
    fn another_program_than_the_units_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (here, link) = (dir.path().join("papayad"), dir.path().join("link"));
        fs::write(&here, "").unwrap();
        std::os::unix::fs::symlink(&here, &link).unwrap();
        let outcome = |a: &Path, b: &Path| compare("u", &a.to_string_lossy(), &b.to_string_lossy());
        assert!(matches!(outcome(&link, &here), Outcome::Good(_)));
        assert!(matches!(outcome(&dir.path().join("other"), &here), Outcome::Differs { .. }));
    }
}

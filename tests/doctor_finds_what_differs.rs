//! Promise: `papayad doctor` finds nothing in a fresh service, and every difference that is there.
#![allow(clippy::unwrap_used)]

#[path = "common/intruder.rs"]
mod intruder;
#[path = "common/processes.rs"]
mod processes;
#[path = "common/service.rs"]
mod service;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use papayachat::confine::policy::recv;
use papayachat::confine::{Level, Role};
use processes::{child_titled, wait_confined};
use serde_json::Value;
use service::{Service, is_root, wait_child};

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

fn main() -> ExitCode {
    let root = is_root();
    let trials = vec![
        Trial::test("a fresh service is as it must be, with three clients", fresh),
        Trial::test("as root everything is seen (needs root)", all_is_seen)
            .with_ignored_flag(!root),
        Trial::test("a file's owner, mode, names and flag are looked at (needs root)", files)
            .with_ignored_flag(!root),
        Trial::test("what the starter left open is in no process (needs root)", leaked)
            .with_ignored_flag(!root),
        Trial::test("a missing descriptor is named (needs root)", descriptors)
            .with_ignored_flag(!root),
        Trial::test(
            "an ordinary process in a role's place has nothing right (needs root)",
            impostor,
        )
        .with_ignored_flag(!root),
        // None is below the lowest.
        Trial::test("a level below the required one is named", weaker)
            .with_ignored_flag(service::level() == Level::Seccomp),
        Trial::test("processes of another user are named (needs root)", others)
            .with_ignored_flag(!root),
        Trial::test("without a service there is nothing to look at", no_service),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A service with everybody in it, until it is dropped.
struct Room {
    service: Service,
    people: Vec<Child>,
}

impl Room {
    fn open() -> Self {
        let service = Service::start("");
        let people = PEOPLE.map(|name| {
            let token = service.token(name, &[]);
            let mut tail = service.papaya(&token, "tail", &["--follow"]);
            tail.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        let (_, clients) = service.wait_for_status(|_, clients| clients.len() == PEOPLE.len());
        // Somebody is here a moment before RECV forks SEND, and before the two are confined.
        for client in &clients {
            let recv = pid(client).as_raw();
            wait_confined(child_titled(recv, "papayad: send"), Role::Send);
            wait_confined(recv, Role::RecvJoined);
        }
        Self { service, people: people.into() }
    }

    /// The exit code and the findings.
    fn examine(&self) -> (Option<i32>, Vec<Value>) {
        let output = self.service.admin(&["doctor", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let findings: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!findings.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), findings)
    }

    /// The same, with this for the service's answer.
    fn examine_as_told(&self, answer: String) -> (Option<i32>, Vec<Value>) {
        let control = self.service.dir.path().join("run/control");
        let aside = control.with_extension("aside");
        fs::rename(&control, &aside).unwrap();
        let door = UnixListener::bind(&control).unwrap();
        mode(&control, 0o600);
        let over = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                for caller in door.incoming() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let mut caller = caller.unwrap();
                    let mut request = String::new();
                    std::io::BufReader::new(&caller).read_line(&mut request).unwrap();
                    assert_eq!(request, "status\n");
                    caller.write_all(answer.as_bytes()).unwrap();
                }
            });
            let result = self.examine();
            over.store(true, Ordering::SeqCst);
            drop(UnixStream::connect(&control).unwrap());
            result
        });
        fs::remove_file(&control).unwrap();
        fs::rename(&aside, &control).unwrap();
        result
    }

    fn must_be_clean(&self) -> Vec<Value> {
        let (code, findings) = self.examine();
        let wrong: Vec<&Value> = with(&findings, "differs").collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(code, Some(0));
        findings
    }

    fn state(&self, name: &str) -> std::path::PathBuf {
        self.service.dir.path().join("state").join(name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for person in &mut self.people {
            let _ = person.kill();
            wait_child(person);
        }
    }
}

fn with<'a>(findings: &'a [Value], outcome: &str) -> impl Iterator<Item = &'a Value> {
    findings.iter().filter(move |finding| finding["outcome"] == outcome)
}

fn place(finding: &Value) -> &str {
    finding["place"].as_str().unwrap()
}

fn fresh() -> Result<(), Failed> {
    let room = Room::open();
    let findings = room.must_be_clean();
    let processes = ["launcher (", "keeper (", "listener ("].map(str::to_owned);
    let people =
        PEOPLE.iter().flat_map(|name| ["recv", "send"].map(|half| format!("{half} {name} ")));
    for expected in processes.into_iter().chain(people) {
        for check in ["identity", "capabilities", "filter", "tracing", "limits", "group"] {
            let is_good = |f: &Value| place(f).starts_with(&expected) && f["check"] == check;
            if !with(&findings, "ok").any(is_good) {
                return Err(format!("{expected}: {check} was not looked at: {findings:#?}").into());
            }
        }
    }
    // For people, the same and a summary.
    let text = room.service.admin_ok(&["doctor"]);
    assert!(text.lines().last().unwrap().contains(" 0 differ"), "{text}");
    Ok(())
}

fn all_is_seen() -> Result<(), Failed> {
    let room = Room::open();
    // A worker that is stopped is slow, and no difference.
    let (_, clients) = room.service.status();
    let stopped = pid(&clients[0]);
    kill(stopped, Signal::SIGSTOP)?;
    let findings = room.must_be_clean();
    kill(stopped, Signal::SIGCONT)?;
    match with(&findings, "unseen").next() {
        Some(unseen) => Err(format!("{unseen}").into()),
        None => Ok(()),
    }
}

fn pid(client: &Value) -> Pid {
    Pid::from_raw(client["pid"].as_i64().unwrap().try_into().unwrap())
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Place, check, and words of what and of the remedy; exactly these must differ.
type Expected = (String, &'static str, String, &'static str);

fn must_differ(room: &Room, expected: &[Expected]) {
    let (code, findings) = room.examine();
    assert_eq!(code, Some(77));
    for (wanted, check, what, remedy) in expected {
        let is_it = |f: &&Value| {
            let says = |key: &str, text: &str| f[key].as_str().unwrap().contains(text);
            place(f).starts_with(wanted.as_str())
                && f["check"] == *check
                && says("what", what)
                && says("remedy", remedy)
        };
        let found = with(&findings, "differs").any(|f| is_it(&f));
        assert!(found, "{wanted}: {check}: {what} was not found: {findings:#?}");
    }
    let found = with(&findings, "differs").count();
    assert_eq!(found, expected.len(), "{findings:#?}");
}

/// What doctor itself says it looks at: a file that it looks at tomorrow is in the list too.
fn files() -> Result<(), Failed> {
    const CHECK: &str = "owner and mode";
    let room = Room::open();
    let findings = room.must_be_clean();
    let looked_at = with(&findings, "ok").filter(|f| f["check"] == CHECK);
    let files: Vec<PathBuf> = looked_at.map(|f| place(f).into()).collect();
    assert_eq!(files.len(), 7, "{files:?}");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let unsealed = (path(&room.state("room.log")), "append-only", "cut".into(), "papayad log seal");
    let was: Vec<_> = files.iter().map(|file| fs::symlink_metadata(file).unwrap()).collect();
    // Its flag keeps root too from changing anything about the log.
    room.service.admin_ok(&["log", "unseal", "--force"]);

    // Everybody may write it.
    let expect = |what: &dyn Fn(&fs::Metadata) -> String, remedy| {
        let each = files.iter().zip(&was).map(|(file, was)| (path(file), CHECK, what(was), remedy));
        each.chain([unsealed.clone()]).collect::<Vec<Expected>>()
    };
    for (file, was) in files.iter().zip(&was) {
        mode(file, was.mode() & 0o7777 | 0o022);
    }
    let more = |was: &fs::Metadata| format!("its mode is {:04o}", was.mode() & 0o7777 | 0o022);
    must_differ(&room, &expect(&more, "chmod"));
    for (file, was) in files.iter().zip(&was) {
        mode(file, was.mode() & 0o7777);
    }

    // It belongs to somebody else.
    for file in &files {
        chown(file, Some(12345), None)?;
    }
    must_differ(&room, &expect(&|_| "it belongs to uid 12345".into(), "chown"));
    for (file, was) in files.iter().zip(&was) {
        chown(file, Some(was.uid()), None)?;
    }

    // It has a second name, outside of the directory that protects it.
    let mut expected = vec![unsealed.clone()];
    for file in files.iter().filter(|file| file.is_file()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        fs::hard_link(file, room.service.dir.path().join(format!("second-{name}")))?;
        expected.push((path(file), CHECK, "it has 2 names".into(), "remove the other names"));
    }
    assert_eq!(expected.len(), 5);
    must_differ(&room, &expected);
    for file in files.iter().filter(|file| file.is_file()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        fs::remove_file(room.service.dir.path().join(format!("second-{name}")))?;
    }

    // It is something else, or gone.
    let (gate, key) = (room.state("room.gate"), room.state("host.key"));
    let aside = |file: &Path| file.with_extension("aside");
    fs::rename(&gate, aside(&gate))?;
    fs::create_dir(&gate)?;
    fs::rename(&key, aside(&key))?;
    let (code, findings) = room.examine();
    assert_eq!(code, Some(77));
    let says = |file: &Path, what: &str| {
        let of = |f: &&Value| place(f) == path(file) && f["what"].as_str().unwrap().contains(what);
        with(&findings, "differs").any(|f| of(&f))
    };
    assert!(says(&gate, "another kind of file"), "{findings:#?}");
    assert!(says(&key, "cannot be looked at"), "{findings:#?}");
    fs::remove_dir(&gate)?;
    fs::rename(aside(&gate), &gate)?;
    fs::rename(aside(&key), &key)?;

    must_differ(&room, &[unsealed]);
    // What the remedy says is enough.
    room.service.admin_ok(&["log", "seal"]);
    room.must_be_clean();
    Ok(())
}

/// A descriptor of root's that the service is started with.
fn leaked() -> Result<(), Failed> {
    use nix::fcntl::{OFlag, open};
    let directory = tempfile::tempdir()?;
    let secret = directory.path().join("secret");
    fs::write(&secret, "root's\n")?;
    // Without close-on-exec, so the service inherits it.
    let leak = open(&secret, OFlag::O_RDWR, nix::sys::stat::Mode::empty())?;
    let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn()?;
    let has_it = |pid: i32| {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).any(|link| link == secret)
    };
    let is_inherited = has_it(child.id().try_into()?);
    let room = Room::open();
    drop(leak);
    child.kill()?;
    child.wait()?;
    assert!(is_inherited, "it is not even inherited: this test shows nothing");
    let mut all = room.service.processes();
    all.push((room.service.pid().as_raw(), "launcher".into()));
    for (pid, title) in all {
        assert!(!has_it(pid), "{title} has it");
    }
    room.must_be_clean();
    Ok(())
}

/// A descriptor that a live process has not got any more.
fn descriptors() -> Result<(), Failed> {
    let room = Room::open();
    room.must_be_clean();
    let alice = room.service.recvs_of("alice")[0];
    intruder::call(Pid::from_raw(alice), libc::SYS_close, [recv::LOG_TAIL as u64, 0, 0]);
    let place = "recv alice 127.0.0.1:".to_owned();
    let missing = format!("{}, the log, to see its last byte, is missing", recv::LOG_TAIL);
    must_differ(&room, &[(place, "descriptors", missing, "restart")]);
    Ok(())
}

/// The service says that an ordinary process is its listener: nothing about it is right, and the
/// true listener is a stranger.
fn impostor() -> Result<(), Failed> {
    let room = Room::open();
    room.must_be_clean();
    // What looked at the port was here, and is gone again.
    let (status, clients) = room.service.wait_for_status(|status, _| {
        status["counters"]["refusals"]["no_token"] == 1 && status["starting"] == 0
    });
    let daemon = nix::unistd::User::from_name("daemon")?.unwrap();
    let (uid, gid) = (daemon.uid.as_raw(), daemon.gid.as_raw());
    let mut impostor = Command::new("sleep").arg("600").uid(uid).gid(gid).spawn()?;
    let mut told = status.clone();
    told["listener"] = impostor.id().into();
    let answer = clients.iter().fold(format!("{told}\n"), |all, one| all + &format!("{one}\n"));
    let (code, findings) = room.examine_as_told(answer);
    impostor.kill()?;
    impostor.wait()?;
    assert_eq!(code, Some(77));
    let of = |pid: String| {
        let is_its =
            move |f: &&Value| place(f).ends_with(&pid) || place(f).ends_with(&format!("{pid})"));
        with(&findings, "differs")
            .filter(is_its)
            .map(|f| f["check"].as_str().unwrap())
            .collect::<BTreeSet<_>>()
    };
    let found = of(format!("process {}", impostor.id()));
    let said = |check: &str| {
        let is_it = |f: &&Value| f["check"] == check && place(f).starts_with("listener");
        with(&findings, "differs").find(is_it).unwrap()["what"].as_str().unwrap()
    };
    for limit in ["core file size", "open files", "data size", "file size", "processes"] {
        assert!(said("limits").contains(&format!("Max {limit} is")), "{}", said("limits"));
    }
    for thing in ["no_new_privs", "seccomp is in mode", "it has 0 filters"] {
        assert!(said("filter").contains(thing), "{}", said("filter"));
    }
    for thing in ["process group", "session", "parent", "title"] {
        assert!(said("group").contains(&format!("its {thing} is")), "{}", said("group"));
    }
    let all = ["identity", "capabilities", "filter", "tracing", "limits", "descriptors", "group"];
    assert_eq!(found, BTreeSet::from(all), "{findings:#?}");
    assert_eq!(of(format!("process {}", status["listener"])), BTreeSet::from(["processes"]));
    assert_eq!(with(&findings, "differs").count(), all.len() + 1, "{findings:#?}");
    Ok(())
}

/// The service says of itself that it reached less than is required.
fn weaker() -> Result<(), Failed> {
    let room = Room::open();
    let (mut status, clients) = room.service.wait_for_status(|status, _| status["starting"] == 0);
    status["level"] = "seccomp".into();
    let answer = clients.iter().fold(format!("{status}\n"), |all, one| all + &format!("{one}\n"));
    let (code, findings) = room.examine_as_told(answer);
    assert_eq!(code, Some(77));
    let found: Vec<&Value> = with(&findings, "differs").collect();
    assert!(found.len() == 1 && found[0]["check"] == "sandbox", "{found:#?}");
    Ok(())
}

/// The configuration names another user than the one that the processes were started as.
fn others() -> Result<(), Failed> {
    let room = Room::open();
    let text = fs::read_to_string(&room.service.config)?;
    let other = text.replace("user = \"nobody\"", "user = \"games\"");
    assert_ne!(text, other);
    fs::write(&room.service.config, other)?;
    let (code, findings) = room.examine();
    assert_eq!(code, Some(77));
    let wrong: Vec<&Value> = with(&findings, "differs").collect();
    let named = |who: &str| wrong.iter().any(|f| place(f).starts_with(who));
    for who in ["launcher (", "listener (", "recv alice ", "send bob "] {
        assert!(named(who), "{who}: {wrong:#?}");
    }
    assert!(!named("keeper ("), "{wrong:#?}");
    assert!(wrong.iter().all(|f| f["check"] == "identity"), "{wrong:#?}");
    Ok(())
}

fn no_service() -> Result<(), Failed> {
    let mut service = Service::start("");
    service.stop();
    let output = service.admin(&["doctor"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    Ok(())
}

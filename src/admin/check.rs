//! `papayad check`: everything about the configuration that can be known without side effects.
//!
//! Looks at files and users, and touches nothing. The first part is the parser's, which the launcher
//! asks as well; here is what depends on the system, which the launcher finds out by doing it.

use std::ffi::CString;
use std::fs::{Metadata, symlink_metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, User, faccessat, geteuid};
use serde_json::json;

use crate::config::keys::{Effect, KEYS};
use crate::config::{self, Config, ConfigError, Level, Place, Source};
use crate::confine;
use crate::daemon::session;
use crate::exit::{Exit, Failure, written};
use crate::visible::{visible, visible_json};

/// The host key in the state directory.
pub const HOST_KEY: &str = "host.key";
/// The tokens' hashes in the state directory.
pub const TOKENS: &str = "tokens";

const ROOT: u32 = 0;

/// Checks the configuration file, and prints every problem or one line that all is well. With
/// `json`, one JSON object a line.
///
/// # Errors
/// The file cannot be read. Problems in it are no error but [`Exit::Config`].
pub fn check(file: &Path, out: &mut dyn Write, json: bool) -> Result<Exit, Failure> {
    check_with(file, session::own().err(), out, json)
}

/// `session`: what is wrong with the program that is executed for each client.
fn check_with(
    file: &Path,
    session: Option<session::Unusable>,
    out: &mut dyn Write,
    json: bool,
) -> Result<Exit, Failure> {
    let sources = config::sources(file)?;
    let (mut problems, config) = match Config::parse_all(&sources) {
        Ok(config) => (system_problems(&config, &sources, file), config),
        Err(problems) => (problems, Config::default()),
    };
    problems.extend(session.map(|unusable| ConfigError {
        file: session::NAME.to_owned(),
        line: 0,
        column: 0,
        key: String::new(),
        problem: unusable.problem,
        remedy: unusable.remedy.to_owned(),
    }));
    let printed = if problems.is_empty() {
        writeln!(
            out,
            "{}",
            if json { sound_json(&config, file) } else { sound_text(&config, file) }
        )
    } else {
        let show = if json { problem_json } else { problem_text };
        problems.iter().try_for_each(|problem| writeln!(out, "{}", show(problem)))
    };
    written(printed)?;
    Ok(if problems.is_empty() { Exit::Ok } else { Exit::Config })
}

/// Prints the configuration that counts, with the place where each value stands and what a change
/// takes: as TOML with comments, or with `json` one JSON object a line.
///
/// # Errors
/// A file cannot be read. Mistakes in one are printed instead, and are [`Exit::Config`].
pub fn print(file: &Path, out: &mut dyn Write, json: bool) -> Result<Exit, Failure> {
    let sources = config::sources(file)?;
    let (text, exit) = match Config::parse_all(&sources) {
        Ok(config) => (effective(&config, &sources, json), Exit::Ok),
        Err(problems) => {
            let show = if json { problem_json } else { problem_text };
            (problems.iter().map(|problem| show(problem) + "\n").collect(), Exit::Config)
        }
    };
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))?;
    Ok(exit)
}

fn effective(config: &Config, sources: &[Source], json: bool) -> String {
    let (mut text, mut section) = (String::new(), "");
    for key in KEYS {
        let mut places = config::places(sources, &key.full());
        let origin = places.pop();
        let value = (key.show)(config);
        if json {
            let place = |place: &Place| json!({ "file": place.file, "line": place.line });
            let value: serde_json::Value = serde_json::from_str(&value).unwrap_or_default();
            let line = json!({
                "key": key.full(), "value": value, "origin": origin.as_ref().map(place),
                "overrides": places.iter().map(place).collect::<Vec<_>>(),
                "change": if key.effect == Effect::Reload { "reload" } else { "restart" },
            });
            text.push_str(&(visible_json(&line.to_string()) + "\n"));
            continue;
        }
        if key.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{}]\n", key.section));
            section = key.section;
        }
        let place = |place: &Place| format!("{}:{}", visible(&place.file), place.line);
        let origin = origin.as_ref().map_or("default".to_owned(), place);
        let instead = match places.iter().map(place).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => none,
            others => format!(", instead of {others}"),
        };
        let change = if key.effect == Effect::Reload { "reload" } else { "restart" };
        let line = format!("{} = {}", key.name, visible_json(&value));
        text.push_str(&format!("{line:<32} # {origin}{instead}; a change takes a {change}\n"));
    }
    text
}

/// What on this system stands against the configuration: users, directories, modes, ports. As
/// root it is checked for the two users; else for a rootless service of the one who asks.
fn system_problems(config: &Config, sources: &[Source], file: &Path) -> Vec<ConfigError> {
    let system = System::here(config);
    let mut check = Check { sources, problems: Vec::new() };
    check.configuration_files(file, &system);
    check.users(config, &system);
    check.state_directory(&config.paths.state, &system);
    check.runtime_directory(&config.paths.runtime, &system);
    check.ports(config, &system);
    check.sandbox(config, confine::available());
    check.problems
}

/// Who asks, and who the users are.
struct System {
    me: u32,
    user: Option<u32>,
    keeper: Option<u32>,
}

struct Check<'t> {
    sources: &'t [Source],
    problems: Vec<ConfigError>,
}

impl System {
    fn here(config: &Config) -> Self {
        let id = |name: &str| Some(User::from_name(name).ok()??.uid.as_raw());
        Self {
            me: geteuid().as_raw(),
            user: id(&config.identity.user),
            keeper: id(&config.identity.keeper_user),
        }
    }

    fn rootless(&self) -> bool {
        self.me != ROOT
    }

    /// The bits of a mode that let strangers write. Where users have a group of their own, a
    /// person's files are often writable for the group, and that is no stranger.
    fn foreign_write_bits(&self) -> u32 {
        if self.rootless() { 0o002 } else { 0o022 }
    }

    /// Who will own the state directory, if that is known.
    fn state_owner(&self) -> Option<u32> {
        if self.rootless() { Some(self.me) } else { self.keeper }
    }
}

impl Check<'_> {
    fn say(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(ConfigError::about(self.sources, key, problem, remedy));
    }

    /// The file, its drop-ins, and the directory that they are in.
    fn configuration_files(&mut self, file: &Path, system: &System) {
        let directory = file.parent().unwrap_or(Path::new("")).join(config::DROP_INS);
        let drop_ins = self.sources.iter().map(|source| PathBuf::from(&source.file));
        let drop_ins = drop_ins.filter(|path| path.parent() == Some(&directory));
        let all: Vec<PathBuf> =
            [file.to_owned(), directory.clone()].into_iter().chain(drop_ins).collect();
        for path in all {
            let Ok(found) = std::fs::metadata(&path) else { continue };
            let trusted = [ROOT, system.me].contains(&found.uid());
            if trusted && found.mode() & system.foreign_write_bits() == 0 {
                continue;
            }
            let (kind, problem) = match found.is_dir() {
                true => ("directory", "others than root may write there"),
                false => ("file", "others than root may write it"),
            };
            self.problems.push(ConfigError {
                file: path.display().to_string(),
                line: 0,
                column: 0,
                key: String::new(),
                problem: format!(
                    "this {kind} belongs to user {} and has mode {:04o}: {problem}",
                    found.uid(),
                    found.mode() & 0o7777
                ),
                remedy: "chown it to root and chmod go-w".into(),
            });
        }
    }

    fn users(&mut self, config: &Config, system: &System) {
        if system.rootless() {
            return; // Nobody is switched to.
        }
        let users = [
            ("identity.user", &config.identity.user, system.user),
            ("identity.keeper_user", &config.identity.keeper_user, system.keeper),
        ];
        for (key, name, id) in users {
            match id {
                None => self.say(
                    key,
                    format!("there is no user {name:?}"),
                    format!("create it: {}", create_user(name)),
                ),
                Some(ROOT) => {
                    self.say(key, format!("{name:?} is root under another name"), "use another");
                }
                Some(_) => {}
            }
        }
        if system.user.is_some() && system.user == system.keeper {
            let problem = "has the same user id as identity.user";
            self.say("identity.keeper_user", problem, "the keeper needs a user of its own");
        }
    }

    fn state_directory(&mut self, state: &Path, system: &System) {
        const KEY: &str = "paths.state";
        let Some(found) = self.directory(KEY, state, system) else { return };
        if let Some(owner) = system.state_owner().filter(|&owner| owner != found.uid()) {
            self.say(
                KEY,
                format!("{} belongs to user {}, not to {owner}", shown(state), found.uid()),
                format!("chown it: it is the keeper's, whose user id is {owner}"),
            );
        }
        for (name, most) in [(HOST_KEY, 0o400), (TOKENS, 0o600)] {
            self.secret(KEY, &state.join(name), most, system);
        }
    }

    /// A file that only the keeper may read, if there is one.
    fn secret(&mut self, key: &str, path: &Path, most: u32, system: &System) {
        let Ok(found) = symlink_metadata(path) else { return };
        let mode = found.mode() & 0o7777;
        if !found.is_file() {
            self.say(key, format!("{} is not a regular file", shown(path)), "move it away");
        } else if mode & !most != 0 {
            let problem = format!("{} has mode {mode:04o}", shown(path));
            self.say(key, problem, format!("chmod {most:04o} it"));
        } else if system.state_owner().is_some_and(|owner| owner != found.uid()) {
            let problem = format!("{} belongs to user {}", shown(path), found.uid());
            self.say(key, problem, "chown it to the keeper");
        }
    }

    fn runtime_directory(&mut self, runtime: &Path, system: &System) {
        const KEY: &str = "paths.runtime";
        let Some(found) = self.directory(KEY, runtime, system) else { return };
        let owners = [Some(ROOT), Some(system.me), system.user, system.keeper];
        if !owners.contains(&Some(found.uid())) {
            let problem = format!("{} belongs to user {}", shown(runtime), found.uid());
            self.say(KEY, problem, "chown it to root, or to identity.user");
        }
    }

    /// The level that the kernel has, or why it cannot be asked.
    fn sandbox(&mut self, config: &Config, available: io::Result<Level>) {
        const KEY: &str = "sandbox.require";
        let require = config.sandbox.require;
        match available {
            Ok(level) if level >= require => {}
            Ok(level) => {
                let problem = format!(
                    "this kernel reaches sandbox level \"{level}\", but \"{require}\" is required"
                );
                let remedy = format!("use a newer kernel, or accept it with \"{level}\"");
                self.say(KEY, problem, remedy);
            }
            Err(e) => {
                let problem = format!("cannot ask this kernel what it reaches: {e}");
                self.say(KEY, problem, "use a kernel that can tell");
            }
        }
    }

    /// A directory of the service: it exists and is sane, or it can be created. What is found.
    fn directory(&mut self, key: &str, path: &Path, system: &System) -> Option<Metadata> {
        for outer in path.ancestors().skip(1) {
            if !self.ancestor(key, outer, system) {
                return None;
            }
        }
        let found = match symlink_metadata(path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().unwrap_or(path);
                if !may_write(parent) {
                    let problem = format!("{} is missing, and so may not be created", shown(path));
                    self.say(key, problem, "create it, or choose a directory of your own");
                }
                return None;
            }
            Err(e) => {
                self.say(key, format!("cannot look at {}: {e}", shown(path)), "check the path");
                return None;
            }
        };
        if !found.is_dir() {
            let problem = format!("{} is not a directory", shown(path));
            self.say(key, problem, "a symbolic link will not do either");
            return None;
        }
        if found.mode() & 0o022 != 0 {
            let mode = found.mode() & 0o7777;
            let problem = format!("others may write to {} (mode {mode:04o})", shown(path));
            self.say(key, problem, "chmod go-w it");
        }
        if system.rootless() && found.uid() == system.me && !may_write(path) {
            self.say(key, format!("cannot write to {}", shown(path)), "chmod u+wx it");
        }
        Some(found)
    }

    /// A directory on the way: who may write there could put another one in our directory's place.
    fn ancestor(&mut self, key: &str, path: &Path, system: &System) -> bool {
        match std::fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                self.say(key, format!("{} is not a directory", shown(path)), "check the path");
                false
            }
            Ok(found) => {
                let sticky = found.mode() & 0o1000 != 0;
                let owners = [Some(ROOT), Some(system.me), system.state_owner()];
                let open = found.mode() & system.foreign_write_bits() != 0 && !sticky;
                if open || !owners.contains(&Some(found.uid())) {
                    let problem = format!("others than root may write to {}", shown(path));
                    self.say(key, problem, "chmod go-w it, or choose another path");
                }
                true
            }
            Err(e) => {
                self.say(key, format!("cannot look at {}: {e}", shown(path)), "create it first");
                false
            }
        }
    }

    fn ports(&mut self, config: &Config, system: &System) {
        const KEY: &str = "listen.addresses";
        let first = first_free_port();
        for address in &config.listen.addresses {
            if system.rootless() && (1..first).contains(&address.port()) {
                let remedy = format!("start the service as root, or use a port from {first} on");
                self.say(KEY, format!("{address} needs root"), remedy);
            }
        }
    }
}

/// Whether the one who asks may create something in this directory; root always may.
fn may_write(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    let how = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(nix::fcntl::AT_FDCWD, path.as_c_str(), how, AtFlags::AT_EACCESS).is_ok()
}

/// Ports below need a privilege. Linux lets the administrator choose.
fn first_free_port() -> u16 {
    let chosen = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    chosen.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn create_user(name: &str) -> String {
    if cfg!(target_os = "freebsd") {
        format!("pw useradd {name} -d /nonexistent -s /usr/sbin/nologin")
    } else {
        format!("useradd --system --no-create-home --shell /usr/sbin/nologin {name}")
    }
}

fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy()).into_owned()
}

fn problem_text(problem: &ConfigError) -> String {
    visible(&problem.to_string()).into_owned()
}

fn problem_json(p: &ConfigError) -> String {
    let line = json!({
        "file": p.file, "line": p.line, "column": p.column, "key": p.key,
        "problem": p.problem, "remedy": p.remedy,
    });
    visible_json(&line.to_string())
}

fn sound_text(config: &Config, file: &Path) -> String {
    let addresses: Vec<String> = config.listen.addresses.iter().map(ToString::to_string).collect();
    let identity = match geteuid().is_root() {
        true => format!("as {} and {}", config.identity.user, config.identity.keeper_user),
        false => "rootless (not started as root, so the two users are not checked)".into(),
    };
    format!(
        "{}: configuration ok: room {}, on {}, {identity}, state in {}",
        shown(file),
        visible(&config.room.name),
        addresses.join(" "),
        shown(&config.paths.state)
    )
}

fn sound_json(config: &Config, file: &Path) -> String {
    let line = json!({
        "ok": true, "file": file.to_string_lossy(), "room": config.room.name,
        "addresses": config.listen.addresses, "rootless": !geteuid().is_root(),
        "state": config.paths.state.to_string_lossy(),
    });
    visible_json(&line.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A directory with a configuration file for a room inside it.
    struct Setup {
        dir: tempfile::TempDir,
        file: PathBuf,
        text: String,
    }

    impl Setup {
        fn new(more: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path().display();
            let text = format!(
                "[paths]\nstate = \"{at}/state\"\nruntime = \"{at}/run\"\n\
                 [listen]\naddresses = [\"127.0.0.1:7722\"]\n{more}"
            );
            let file = dir.path().join("papayad.toml");
            fs::write(&file, &text).unwrap();
            set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
            Self { dir, file, text }
        }

        fn state(&self) -> PathBuf {
            let state = self.dir.path().join("state");
            fs::create_dir_all(&state).unwrap();
            set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
            state
        }

        /// What is wrong if the files of this test were the right user's, or another one's.
        fn problems(&self, system: &System) -> String {
            let config = Config::parse(&self.text, "f").unwrap();
            let sources = [Source { file: "f".into(), text: self.text.clone() }];
            let mut check = Check { sources: &sources, problems: Vec::new() };
            check.configuration_files(&self.file, system);
            check.users(&config, system);
            check.state_directory(&config.paths.state, system);
            check.runtime_directory(&config.paths.runtime, system);
            check.ports(&config, system);
            check.problems.iter().map(|problem| format!("{problem}\n")).collect()
        }
    }

    /// Whoever runs this test, as if it were not root.
    fn rootless() -> System {
        System { me: geteuid().as_raw().max(1), user: None, keeper: None }
    }

    /// As root, with a keeper to whom the files of this test belong.
    fn rooted() -> System {
        System { me: ROOT, user: Some(geteuid().as_raw() + 1), keeper: Some(geteuid().as_raw()) }
    }

    fn check_file(file: &Path, json: bool) -> (Exit, String) {
        let mut out = Vec::new();
        let exit = check_with(file, None, &mut out, json).unwrap();
        (exit, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_sound_setup_has_no_problem() {
        let setup = Setup::new("");
        setup.state();
        if !geteuid().is_root() {
            assert_eq!(setup.problems(&rootless()), "");
            let (exit, text) = check_file(&setup.file, false);
            assert_eq!(exit, Exit::Ok, "{text}");
            assert!(text.contains("configuration ok") && text.contains("rootless"), "{text}");
        }
        // To whom the test's files belong plays the keeper before root here. Only that is wrong.
        let expected = match geteuid().is_root() {
            true => "\"papayad-keys\" is root under another name",
            false => "this file belongs to user",
        };
        let problems = setup.problems(&rooted());
        assert_eq!(problems.lines().count(), 1, "{problems}");
        assert!(problems.contains(expected), "{problems}");
    }

    #[test]
    fn every_mistake_in_the_file_is_printed_with_its_line() {
        let setup = Setup::new("[limits]\ngrace = 20\nburst = 0\n");
        let (exit, text) = check_file(&setup.file, false);
        assert_eq!(exit, Exit::Config);
        let name = setup.file.display();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].starts_with(&format!("{name}:7: limits.grace: 20 has no unit; ")),
            "{text}"
        );
        assert!(lines[1].starts_with(&format!("{name}:8: limits.burst: ")), "{text}");
        let (exit, text) = check_file(&setup.file, true);
        assert_eq!(exit, Exit::Config);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&first["line"], &first["key"]), (&7.into(), &"limits.grace".into()));
        assert_eq!(Config::load(&setup.file).unwrap_err().exit, Exit::Config);
    }

    #[test]
    fn what_counts_is_printed_with_its_place_and_is_a_configuration_itself() {
        let setup = Setup::new("[limits]\nburst = 5\n[room]\nname = \"a # \\u00e9 \\\"\"\n");
        let drop_ins = setup.dir.path().join(config::DROP_INS);
        fs::create_dir(&drop_ins).unwrap();
        fs::write(drop_ins.join("20-b.toml"), "\n\nlimits.burst = 7\n").unwrap();
        fs::write(drop_ins.join("10-a.toml"), "limits = { burst = 6, clients = 50 }\n").unwrap();
        fs::write(drop_ins.join("30-c.toml.dpkg-old"), "not TOML").unwrap();
        fs::write(drop_ins.join(".hidden.toml"), "not TOML").unwrap();
        let printed = |json| {
            let mut out = Vec::new();
            assert_eq!(print(&setup.file, &mut out, json).unwrap(), Exit::Ok);
            String::from_utf8(out).unwrap()
        };
        let text = printed(false);
        let config = Config::load(&setup.file).unwrap();
        assert_eq!((config.limits.burst, config.limits.clients), (7, 50));
        assert_eq!(Config::parse(&text, "f").unwrap(), config, "{text}");
        let at = setup.dir.path().display();
        let burst = text.lines().find(|line| line.starts_with("burst = 7 ")).unwrap();
        let places = format!(
            "{at}/conf.d/20-b.toml:3, instead of {at}/papayad.toml:7, {at}/conf.d/10-a.toml:1"
        );
        assert!(burst.contains(&places) && burst.ends_with("a change takes a reload"), "{burst}");
        let rate = text.lines().find(|line| line.starts_with("rate = ")).unwrap();
        assert!(rate.contains("# default; "), "{rate}");
        for (line, key) in printed(true).lines().zip(KEYS) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["key"], key.full());
            assert_eq!(line["value"].to_string(), (key.show)(&config).replace(", ", ","));
            if key.full() == "limits.clients" {
                assert_eq!(
                    (&line["origin"]["line"], &line["change"]),
                    (&1.into(), &"restart".into())
                );
            }
        }
        // Mistakes are told instead.
        fs::write(drop_ins.join("40-d.toml"), "[limits]\nburst = 0\n").unwrap();
        let mut out = Vec::new();
        assert_eq!(print(&setup.file, &mut out, false).unwrap(), Exit::Config);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&format!("{at}/conf.d/40-d.toml:2: limits.burst: ")), "{text}");
    }

    #[test]
    fn a_drop_in_that_others_may_write_or_that_is_no_file_is_told() {
        let setup = Setup::new("");
        setup.state();
        let drop_ins = setup.dir.path().join(config::DROP_INS);
        fs::create_dir(&drop_ins).unwrap();
        let file = drop_ins.join("10.toml");
        fs::write(&file, "").unwrap();
        for path in [&file, &drop_ins] {
            let before = fs::metadata(path).unwrap().permissions();
            set_permissions(path, Permissions::from_mode(0o777)).unwrap();
            let (_, text) = check_file(&setup.file, false);
            assert!(text.contains(&format!("{}: this ", path.display())), "{text}");
            assert!(text.contains("mode 0777: others than root may write"), "{text}");
            set_permissions(path, before).unwrap();
        }
        nix::unistd::mkfifo(&drop_ins.join("20.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failure = Config::load(&setup.file).unwrap_err();
        assert!(failure.message.contains("20.toml: it is not a regular file"), "{failure}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_configuration_failure() {
        let setup = Setup::new("");
        let missing = setup.dir.path().join("none.toml");
        let failure = check(&missing, &mut Vec::new(), false).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("none.toml") && failure.message.contains("--config"));
        fs::write(&setup.file, b"[room]\nname = \"\xff\"\n").unwrap();
        let failure = check(&setup.file, &mut Vec::new(), false).unwrap_err();
        assert!(failure.message.contains("not UTF-8 (line 2)"), "{failure}");
        let failure = check(Path::new("/dev/zero"), &mut Vec::new(), false).unwrap_err();
        assert!(failure.message.contains("more than"), "{failure}");
    }

    #[test]
    fn directories_that_others_may_write_or_own_are_told() {
        let setup = Setup::new("");
        let state = setup.state();
        set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
        let problems = setup.problems(&rooted());
        assert!(problems.contains("f:2: paths.state: others may write to"), "{problems}");
        set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
        let stranger = System { keeper: Some(geteuid().as_raw() + 7), ..rooted() };
        let problems = setup.problems(&stranger);
        assert!(problems.contains("belongs to user"), "{problems}");
        set_permissions(setup.dir.path(), Permissions::from_mode(0o777)).unwrap();
        let problems = setup.problems(&rooted());
        assert!(problems.contains("others than root may write to"), "{problems}");
    }

    #[test]
    fn what_stands_in_a_directorys_place_is_told() {
        let setup = Setup::new("");
        symlink("/tmp", setup.dir.path().join("state")).unwrap();
        fs::write(setup.dir.path().join("run"), "").unwrap();
        let problems = setup.problems(&rooted());
        assert!(problems.contains("state is not a directory"), "{problems}");
        assert!(problems.contains("run is not a directory"), "{problems}");
        let setup = Setup::new("");
        fs::remove_file(&setup.file).unwrap();
        let text = setup.text.replace("/state", "/missing/deep/state");
        let setup = Setup { text, ..setup };
        let problems = setup.problems(&rooted());
        assert!(problems.contains("f:2: paths.state: cannot look at"), "{problems}");
    }

    #[test]
    fn secrets_that_others_may_read_are_told() {
        let setup = Setup::new("");
        let state = setup.state();
        for (name, mode, good) in [
            (HOST_KEY, 0o400, true),
            (HOST_KEY, 0o440, false),
            (HOST_KEY, 0o600, false),
            (TOKENS, 0o600, true),
            (TOKENS, 0o604, false),
        ] {
            let path = state.join(name);
            fs::write(&path, "").unwrap();
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let problems = setup.problems(&rooted());
            assert_eq!(!problems.contains(name), good, "{name} {mode:o}: {problems}");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn users_that_are_missing_or_the_same_are_told_to_root() {
        let setup = Setup::new("");
        setup.state();
        let none = System { me: ROOT, user: None, keeper: None };
        let problems = setup.problems(&none);
        assert!(problems.contains("identity.user: there is no user \"papayad\""), "{problems}");
        assert!(problems.contains("useradd"), "{problems}");
        let same = System { me: ROOT, user: Some(7), keeper: Some(7) };
        assert!(setup.problems(&same).contains("the same user id"));
        let root = System { me: ROOT, user: Some(ROOT), keeper: Some(7) };
        assert!(setup.problems(&root).contains("root under another name"));
    }

    #[test]
    fn a_privileged_port_is_told_to_who_is_not_root() {
        let setup = Setup::new("");
        let setup = Setup { text: setup.text.replace(":7722", ":443"), ..setup };
        let problems = setup.problems(&rootless());
        let told = problems.contains("f:5: listen.addresses: 127.0.0.1:443 needs root");
        // Where the administrator has lowered the limit, nobody needs a privilege for it.
        assert_eq!(told, first_free_port() > 443, "{problems}");
        assert!(!setup.problems(&rooted()).contains("needs root"));
    }
}

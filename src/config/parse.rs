//! From the configuration file's text to [`Config`]: TOML by the `toml` crate, with the place of
//! every value, so that each complaint can name its line. Collects all mistakes. No I/O.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::KEYS;
use super::values::{
    MAX_PATH, MAX_RUNTIME_PATH, MINUTE, Parsed, SECOND, addresses, boolean, choice, duration,
    integer, kind, motd, path, plain, quoted, rate, room_name, share_of_clients, startups, user,
};
use super::{Config, ConfigError, Durability, Facility, Level, Sandbox, Severity, Source};

impl Config {
    /// Parses the text of a configuration file; `file` is how its name appears in errors.
    ///
    /// # Errors
    /// Every mistake in the file, in the order of its lines. A file that is not TOML gives one
    /// error, since what follows a syntax error cannot be trusted.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<ConfigError>> {
        Self::parse_all(&[Source { file: file.to_owned(), text: text.to_owned() }])
    }

    /// Parses several files, of which the later ones count where they say something.
    ///
    /// # Errors
    /// As [`parse`](Config::parse), in the order of the files.
    pub fn parse_all(sources: &[Source]) -> Result<Self, Vec<ConfigError>> {
        let parsed: Vec<_> = sources.iter().map(|s| (s, DeTable::parse(&s.text))).collect();
        let broken = |(source, root): &(&Source, Result<_, _>)| match root {
            Ok(_) => None,
            Err(error) => Some(syntax_error(&source.text, &source.file, error)),
        };
        let broken: Vec<ConfigError> = parsed.iter().filter_map(broken).collect();
        if !broken.is_empty() {
            return Err(broken);
        }
        let roots: Vec<_> =
            parsed.into_iter().filter_map(|(_, root)| Some(root.ok()?.into_inner())).collect();
        let mut parser = Parser { sources, roots: &roots, errors: Vec::new() };
        for source in 0..roots.len() {
            parser.refuse_unknown_keys(source);
        }
        let config = parser.read();
        let mut errors = parser.errors;
        if errors.is_empty() {
            return Ok(config);
        }
        errors.sort_by(|(a, left), (b, right)| {
            (a, left.line, left.column, &left.key).cmp(&(b, right.line, right.column, &right.key))
        });
        Err(errors.into_iter().map(|(_, error)| error).collect())
    }
}

impl ConfigError {
    /// A complaint about the value of `section.key` in files that were parsed before, so that what
    /// only the system can tell names its line as well.
    pub fn about(
        sources: &[Source],
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let first = sources.first().map(|source| source.file.clone()).unwrap_or_default();
        let (file, line, column) = match places(sources, key).pop() {
            Some(place) => (place.file, place.line, place.column),
            None => (first, 0, 0),
        };
        let key = key.to_owned();
        Self { file, line, column, key, problem: problem.into(), remedy: remedy.into() }
    }
}

/// Where the value of a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// Every place where `section.key` has a value, the one that counts last.
pub fn places(sources: &[Source], key: &str) -> Vec<Place> {
    let place = |source: &Source| {
        let (line, column) = place_of(&source.text, key)?;
        Some(Place { file: source.file.clone(), line, column })
    };
    sources.iter().filter_map(place).collect()
}

fn place_of(text: &str, key: &str) -> Option<(usize, usize)> {
    let (section, key) = key.split_once('.')?;
    let root = DeTable::parse(text).ok()?;
    let value = root.get_ref().get(section)?.get_ref().as_table()?.get(key)?;
    Some(position(text, value.span().start))
}

/// A place in one of the files, by its number.
type At = (usize, Range<usize>);

struct Parser<'t> {
    sources: &'t [Source],
    roots: &'t [DeTable<'t>],
    /// Each with the number of its file.
    errors: Vec<(usize, ConfigError)>,
}

impl<'t> Parser<'t> {
    fn read(&mut self) -> Config {
        let mut c = Config::default();
        self.set("room", "name", &mut c.room.name, room_name);
        self.set("room", "motd", &mut c.room.motd, motd);
        self.set("listen", "addresses", &mut c.listen.addresses, addresses);
        self.set("identity", "user", &mut c.identity.user, user);
        self.set("identity", "keeper_user", &mut c.identity.keeper_user, user);
        self.set("paths", "state", &mut c.paths.state, |v| path(v, MAX_PATH));
        self.set("paths", "runtime", &mut c.paths.runtime, |v| path(v, MAX_RUNTIME_PATH));
        self.set("limits", "startups", &mut c.limits.startups, startups);
        self.set("limits", "grace", &mut c.limits.grace, |v| duration(v, SECOND, 10 * MINUTE));
        self.set("limits", "message_bytes", &mut c.limits.message_bytes, |v| {
            integer(v, 64..=65_536)
        });
        self.set("limits", "rate", &mut c.limits.rate, rate);
        self.set("limits", "burst", &mut c.limits.burst, |v| integer(v, 1..=10_000));
        self.set("limits", "penalties", &mut c.limits.penalties, boolean);
        self.set("limits", "clients", &mut c.limits.clients, |v| integer(v, 1..=100_000));
        let clients = c.limits.clients;
        for (key, slot) in
            [("per_source", &mut c.limits.per_source), ("sessions", &mut c.limits.sessions)]
        {
            *slot = (*slot).min(clients);
            self.set("limits", key, slot, |v| share_of_clients(v, clients));
        }
        self.set("log", "durability", &mut c.log.durability, |v| choice(v, Durability::NAMES));
        self.set("log", "presence", &mut c.log.presence, boolean);
        self.set("sandbox", "require", &mut c.sandbox.require, |v| choice(v, Level::NAMES));
        self.set("sandbox", "ceiling", &mut c.sandbox.ceiling, |v| choice(v, Level::NAMES));
        self.set("syslog", "facility", &mut c.syslog.facility, |v| choice(v, Facility::NAMES));
        self.set("syslog", "level", &mut c.syslog.level, |v| choice(v, Severity::NAMES));
        self.set("syslog", "socket", &mut c.syslog.socket, |v| {
            match super::values::string(v, "\"/dev/log\"")? {
                "" => Ok(None),
                _ => path(v, MAX_RUNTIME_PATH).map(Some),
            }
        });
        self.refuse_equal_users(&c);
        self.refuse_nested_paths(&c);
        self.refuse_low_ceiling(&c);
        c
    }

    /// Converts the value of `section.key` into `slot`, if a file has one; of several the last
    /// counts, but each must be one.
    fn set<T>(
        &mut self,
        section: &str,
        key: &str,
        slot: &mut T,
        convert: impl Fn(&DeValue<'_>) -> Parsed<T>,
    ) {
        for source in 0..self.roots.len() {
            let Some(value) = self.find_in(source, section, key) else { continue };
            match convert(value.get_ref()) {
                Ok(converted) => *slot = converted,
                Err(complaints) => {
                    for complaint in complaints {
                        let at = (source, complaint.at.unwrap_or(value.span()));
                        let key = format!("{section}.{key}");
                        self.error(at, key, complaint.problem, complaint.remedy);
                    }
                }
            }
        }
    }

    fn find_in(&self, source: usize, section: &str, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.roots.get(source)?.get(section)?.get_ref().as_table()?.get(key)
    }

    /// Where the value of `section.key` stands that counts.
    fn find(&self, section: &str, key: &str) -> Option<At> {
        (0..self.roots.len())
            .rev()
            .find_map(|source| Some((source, self.find_in(source, section, key)?.span())))
    }

    fn error(&mut self, (source, at): At, key: String, problem: String, remedy: String) {
        let Some(Source { file, text }) = self.sources.get(source) else { return };
        let (line, column) = position(text, at.start);
        let file = file.clone();
        self.errors.push((source, ConfigError { file, line, column, key, problem, remedy }));
    }

    fn refuse_unknown_keys(&mut self, source: usize) {
        for (name, content) in &self.roots[source] {
            let section = name.get_ref().as_ref();
            let keys = keys_of(section);
            if keys.is_empty() {
                let (problem, remedy) = unknown_section(section);
                self.error((source, name.span()), plain(section), problem, remedy);
                continue;
            }
            let Some(table) = content.get_ref().as_table() else {
                let problem = format!(
                    "is a section, but a value of type {} was given",
                    kind(content.get_ref())
                );
                let remedy =
                    format!("write [{section}] on a line of its own and the keys below it");
                self.error((source, name.span()), plain(section), problem, remedy);
                continue;
            };
            for name in table.keys() {
                let key = name.get_ref().as_ref();
                if !keys.contains(&key) {
                    let remedy = unknown_key_remedy(section, key, &keys);
                    let full = format!("{section}.{}", plain(key));
                    self.error((source, name.span()), full, "unknown key".into(), remedy);
                }
            }
        }
    }

    fn refuse_equal_users(&mut self, c: &Config) {
        if c.identity.user != c.identity.keeper_user {
            return;
        }
        // At least one of the two stands in the file, since the defaults differ.
        let Some((key, at)) = ["keeper_user", "user"]
            .iter()
            .find_map(|key| Some((*key, self.find("identity", key)?)))
        else {
            return;
        };
        let problem = format!("{} is the user of both roles", quoted(&c.identity.user));
        let remedy = "give the keeper a user of its own, so that nobody else can read its keys";
        self.error(at, format!("identity.{key}"), problem, remedy.into());
    }

    fn refuse_nested_paths(&mut self, c: &Config) {
        let (state, runtime) = (&c.paths.state, &c.paths.runtime);
        if !state.starts_with(runtime) && !runtime.starts_with(state) {
            return;
        }
        let Some((key, at)) =
            ["runtime", "state"].iter().find_map(|key| Some((*key, self.find("paths", key)?)))
        else {
            return;
        };
        let problem = "paths.state and paths.runtime are the same, or one is inside the other";
        let remedy = "use two separate directories: one survives a reboot, the other does not";
        self.error(at, format!("paths.{key}"), problem.into(), remedy.into());
    }

    fn refuse_low_ceiling(&mut self, c: &Config) {
        let Sandbox { require, ceiling } = c.sandbox;
        if ceiling >= require {
            return;
        }
        let Some(at) = self.find("sandbox", "ceiling") else { return };
        let problem = format!("\"{ceiling}\" is below sandbox.require, which is \"{require}\"");
        let remedy = "leave it out, or accept less with require";
        self.error(at, "sandbox.ceiling".into(), problem, remedy.into());
    }
}

fn syntax_error(text: &str, file: &str, error: &toml::de::Error) -> ConfigError {
    let (line, column) = position(text, error.span().map_or(0, |span| span.start));
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    ConfigError {
        file: file.to_owned(),
        line,
        column,
        key: String::new(),
        problem: format!("this is not TOML, at column {column}: {}", plain(&message)),
        remedy: "mend this line first; the rest of the file was not checked".into(),
    }
}

/// Line and column, both from 1, of the byte offset `at` in `text`.
fn position(text: &str, at: usize) -> (usize, usize) {
    let at = (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The keys of a section; none if there is no such section.
fn keys_of(section: &str) -> Vec<&'static str> {
    KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect()
}

/// The section that has a key of this name.
fn home_of(name: &str) -> Option<&'static str> {
    KEYS.iter().find(|key| key.name == name).map(|key| key.section)
}

fn unknown_section(section: &str) -> (String, String) {
    if let Some(home) = home_of(section) {
        return (
            "this key stands outside its section".into(),
            format!("move it below a line [{home}]"),
        );
    }
    let mut names: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    names.dedup();
    let remedy = match nearest(section, &names) {
        Some(name) => format!("did you mean [{name}]?"),
        None => format!("the sections are {}", names.join(", ")),
    };
    ("unknown section".into(), remedy)
}

fn unknown_key_remedy(section: &str, key: &str, keys: &[&str]) -> String {
    if let Some(name) = nearest(key, keys) {
        return format!("did you mean {section}.{name}?");
    }
    match home_of(key) {
        Some(home) => format!("did you mean {home}.{key}? move it below a line [{home}]"),
        None => format!("the keys of [{section}] are {}", keys.join(", ")),
    }
}

/// The known name that was probably meant; none if nothing is near.
fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    if word.len() > 64 {
        return None;
    }
    let distance = |name: &str| strsim::damerau_levenshtein(&word.to_lowercase(), name);
    let best = names.iter().copied().min_by_key(|name| distance(name))?;
    let near = distance(best) <= (best.len() / 3).max(1);
    (near || names.iter().any(|n| n.starts_with(word) && !word.is_empty() && *n == best))
        .then_some(best)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::{Rate, Startups};

    fn errors(text: &str) -> Vec<String> {
        match Config::parse(text, "papayad.toml") {
            Ok(config) => panic!("accepted: {config:?}"),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    /// Asserts that there is exactly one error, that it is on `line`, and that it says `part`.
    #[track_caller]
    fn one_error(text: &str, line: usize, part: &str) {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].starts_with(&format!("papayad.toml:{line}: ")), "{errors:#?}");
        assert!(errors[0].contains(part), "{errors:#?}");
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse("", "f"), Ok(Config::default()));
        assert_eq!(Config::parse("[room]\n[limits]\n", "f"), Ok(Config::default()));
    }

    #[test]
    fn the_defaults_may_be_written_out() {
        let text = r#"
            [room]
            name = "lobby"
            motd = ""
            [listen]
            addresses = ["[::]:7722"]
            [identity]
            user = "papayad"
            keeper_user = "papayad-keys"
            [limits]
            clients = 1000
            per_source = 16
            sessions = 8
            startups = "10:30:100"
            grace = "20s"
            message_bytes = 4096
            rate = "10/s"
            burst = 30
            penalties = true
            [log]
            durability = "interval"
            presence = true
            [sandbox]
            require = "full"
            [syslog]
            facility = "daemon"
            level = "info"
        "#;
        assert_eq!(Config::parse(text, "f"), Ok(Config::default()));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            room = { name = "Küche", motd = "a\n\tb" }
            listen.addresses = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:443"]
            [identity]
            user = "_chat"
            keeper_user = "_keys"
            [paths]
            state = "/srv/chat"
            runtime = "/run/chat"
            [limits]
            clients = 0x10
            startups = "1:100:1"
            grace = "1500ms"
            message_bytes = 65_536
            rate = "600/m"
            burst = 1
            penalties = false
            [log]
            durability = "always"
            presence = false
            [sandbox]
            require = "landlock-2"
            ceiling = "landlock-6"
            [syslog]
            facility = "local7"
            level = "debug"
        "#;
        let config = Config::parse(text, "f").unwrap();
        assert_eq!(config.room.name, "Küche");
        assert_eq!(config.listen.addresses.len(), 3);
        assert_eq!(config.identity.keeper_user, "_keys");
        assert_eq!(config.paths.runtime, Path::new("/run/chat"));
        let limits = &config.limits;
        assert_eq!((limits.clients, limits.per_source, limits.sessions), (16, 16, 8));
        assert_eq!(limits.startups, Startups { begin: 1, percent: 100, full: 1 });
        assert_eq!(limits.grace, Duration::from_millis(1500));
        assert_eq!(limits.rate, Rate { messages: 600, per: MINUTE });
        assert!(!limits.penalties && !config.log.presence);
        assert_eq!(config.log.durability, Durability::Always);
        assert_eq!(config.sandbox.require, Level::Landlock2);
        assert_eq!(config.sandbox.ceiling, Level::Landlock6);
        assert_eq!(config.syslog.facility, Facility::Local(7));
        assert_eq!(config.syslog.level, Severity::Debug);
    }

    #[test]
    fn every_mistake_is_told_in_the_order_of_the_lines() {
        let text = "[limits]\ngrace = 20\nburts = 3\nclients = 0\n[lgo]\n[room]\nname = 7\n";
        let found = errors(text);
        let places: Vec<_> =
            found.iter().map(|e| e.split(": ").take(2).collect::<Vec<_>>()).collect();
        let expected: Vec<Vec<&str>> = vec![
            vec!["papayad.toml:2", "limits.grace"],
            vec!["papayad.toml:3", "limits.burts"],
            vec!["papayad.toml:4", "limits.clients"],
            vec!["papayad.toml:5", "lgo"],
            vec!["papayad.toml:7", "room.name"],
        ];
        assert_eq!(places, expected, "{found:#?}");
    }

    #[test]
    fn a_number_without_a_unit_is_shown_how_to_write_it() {
        assert_eq!(
            errors("\n[limits]\ngrace = \"20\""),
            ["papayad.toml:3: limits.grace: \"20\" has no unit; \
              write a number and one of ms, s, m, h, d, for example \"20s\""]
        );
        one_error("[limits]\ngrace = 20", 2, "20 has no unit");
        one_error("[limits]\nrate = 10", 2, "10 has no unit");
        one_error("[limits]\nrate = \"10\"", 2, "has no unit");
    }

    #[test]
    fn a_syntax_error_is_one_error_with_its_line_and_column() {
        let found = Config::parse("[room]\nname = \"a\nx = ?\n", "f").unwrap_err();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].line, found[0].key.as_str()), (2, ""));
        assert!(found[0].to_string().contains("column"), "{}", found[0]);
        one_error("[room]\nname = \"a\"\nname = \"b\"\n", 3, "not TOML");
        one_error("limits", 1, "not TOML");
    }

    #[test]
    fn unknown_keys_and_sections_name_the_nearest_one() {
        one_error("[limits]\nper_sorce = 1", 2, "did you mean limits.per_source?");
        one_error("[limits]\nmessage-bytes = 100", 2, "did you mean limits.message_bytes?");
        one_error("[limits]\ndurability = \"never\"", 2, "did you mean log.durability?");
        one_error("[Limits]\n", 1, "did you mean [limits]?");
        one_error("grace = \"1s\"\n", 1, "below a line [limits]");
        one_error("[zzzzzz]\n", 1, "the sections are room, listen");
        one_error("[room]\nqqqq = 1\n", 2, "the keys of [room] are name, motd");
        one_error("room = 3\n", 1, "is a section");
        one_error("[[room]]\n", 1, "is a section");
    }

    #[test]
    fn values_out_of_range_or_of_a_wrong_type_are_refused() {
        for (line, part) in [
            ("room.name = \"\"", "has 0 characters"),
            ("room.name = \"a\\u001b[2J\"", "control characters"),
            ("room.motd = \"\\u0007\"", "control characters"),
            ("room.motd = 3", "is of type integer"),
            ("listen.addresses = []", "has 0 addresses"),
            ("listen.addresses = \"[::]:7722\"", "write an array"),
            ("listen.addresses = [7722]", "is of type integer"),
            ("listen.addresses = [\"::1\"]", "for example \"[::1]:7722\""),
            ("listen.addresses = [\"10.0.0.1\"]", "for example \"10.0.0.1:7722\""),
            ("listen.addresses = [\"localhost:1\"]", "names are not looked up"),
            ("listen.addresses = [\"[::]:7722\", \"[0::0]:7722\"]", "listed twice"),
            ("identity.user = \"root\"", "must not be root"),
            ("identity.user = \"0\"", "is not a user name"),
            ("identity.user = \"papayad-keys\"", "the user of both roles"),
            ("identity.keeper_user = \"papayad\"", "the user of both roles"),
            ("paths.state = \"var/lib\"", "is a relative path"),
            ("paths.state = \"/var/../etc\"", "without . and .."),
            ("paths.state = \"//\"", "/ itself"),
            ("paths.state = \"/run/papayachat/state\"", "one is inside the other"),
            ("limits.clients = 100_001", "from 1 to 100000"),
            ("limits.clients = -1", "is out of range"),
            ("limits.clients = 99999999999999999999999999", "is out of range"),
            ("limits.clients = 1.5", "is of type float"),
            ("limits.clients = \"10\"", "is of type string"),
            ("limits.per_source = 1001", "from 1 to 1000 (limits.clients)"),
            ("limits.sessions = 0", "is out of range"),
            ("limits.startups = \"10:30\"", "begin:percent:full"),
            ("limits.startups = \"100:30:10\"", "is out of range"),
            ("limits.startups = \"+1:30:10\"", "is not three numbers"),
            ("limits.startups = \"1:101:10\"", "is out of range"),
            ("limits.grace = \"0s\"", "use 1 to 600 seconds"),
            ("limits.grace = \"99999999d\"", "is out of range"),
            ("limits.grace = \"s\"", "is not a span of time"),
            ("limits.grace = \"1 s\"", "is not a span of time"),
            ("limits.message_bytes = 63", "from 64 to 65536"),
            ("limits.rate = \"0/s\"", "is not a rate"),
            ("limits.rate = \"1/d\"", "is not a rate"),
            ("limits.rate = \"/s\"", "is not a rate"),
            ("limits.burst = 0", "is out of range"),
            ("limits.penalties = \"yes\"", "write true or false"),
            ("log.durability = \"sometimes\"", "use one of \"always\""),
            ("log.presence = 1", "write true or false"),
            ("sandbox.require = \"none\"", "\"landlock-6\""),
            ("sandbox.ceiling = \"landlock-7\"", "\"landlock-6\""),
            ("sandbox.ceiling = \"landlock-6\"", "below sandbox.require, which is \"full\""),
            ("sandbox = { require = \"landlock-6\", ceiling = \"seccomp\" }", "below"),
            ("syslog.facility = \"local8\"", "is not known"),
            ("syslog.level = \"warn\"", "\"warning\""),
        ] {
            one_error(line, 1, part);
        }
    }

    #[test]
    fn what_the_system_says_about_a_value_names_its_line_too() {
        let text = "[paths]\n\nstate = \"/a\"\n";
        let mut sources = vec![source("f", text)];
        let error = ConfigError::about(&sources, "paths.state", "is missing", "create it");
        assert_eq!(error.to_string(), "f:3: paths.state: is missing; create it");
        let error = ConfigError::about(&sources, "paths.runtime", "is missing", "create it");
        assert_eq!(error.to_string(), "f: paths.runtime: is missing; create it");
        sources.push(source("g", "paths.state = \"/b\""));
        let error = ConfigError::about(&sources, "paths.state", "is missing", "create it");
        assert_eq!(error.to_string(), "g:1: paths.state: is missing; create it");
    }

    fn source(file: &str, text: &str) -> Source {
        Source { file: file.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn of_several_files_the_last_word_about_a_key_counts() {
        let files = [
            source("a", "[limits]\nclients = 7\nburst = 1\n[room]\nname = \"a\""),
            source("b", "# nothing"),
            source("c", "[limits]\nclients = 9\nsessions = 2"),
            source("d", "[room]\nname = \"d\""),
        ];
        let config = Config::parse_all(&files).unwrap();
        let limits = &config.limits;
        assert_eq!((limits.clients, limits.burst, limits.sessions), (9, 1, 2));
        assert_eq!(config.room.name, "d");
        let places: Vec<String> = places(&files, "limits.clients")
            .iter()
            .map(|place| format!("{}:{}", place.file, place.line))
            .collect();
        assert_eq!(places, ["a:2", "c:2"]);
        assert_eq!(Config::parse_all(&[]), Ok(Config::default()));
    }

    #[test]
    fn every_mistake_and_every_conflict_names_its_file() {
        let found = Config::parse_all(&[
            source("a", "[limits]\nper_source = 50\ngrace = 3\n[identity]\nuser = \"x\""),
            source("b", "[limits]\nclients = 10\nclents = 10"),
            source("c", "[limits]\ngrace = \"3s\"\n[identity]\nkeeper_user = \"x\""),
        ]);
        let found: Vec<String> = found.unwrap_err().iter().map(ToString::to_string).collect();
        let expected = [
            "a:2: limits.per_source: ",
            "a:3: limits.grace: 3 has no unit",
            "b:3: limits.clents: unknown key",
            "c:4: identity.keeper_user: ",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
        let broken = Config::parse_all(&[source("a", "[room]"), source("b", "\n[room")]);
        assert!(broken.unwrap_err()[0].to_string().starts_with("b:2: this is not TOML"));
    }

    #[test]
    fn what_a_file_contains_cannot_drive_a_terminal() {
        for text in
            ["\"\\u001b[2J\" = 1", "[room]\n\"\\u009b\" = 1", "[log]\ndurability=\"\\u001b\""]
        {
            for error in errors(text) {
                assert!(!error.chars().any(char::is_control), "{error:?}");
            }
        }
    }
}

//! From the configuration file's text to [`Config`]: TOML by the `toml` crate, with the place of
//! every value, so that each complaint can name its line. Collects all mistakes. No I/O.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, Durability, Facility, Level, Rate, Severity, Startups};

/// Every section and its keys: what is not here is an error.
const KEYS: &[(&str, &[&str])] = &[
    ("room", &["name", "motd"]),
    ("listen", &["addresses"]),
    ("identity", &["user", "keeper_user"]),
    ("paths", &["state", "runtime"]),
    (
        "limits",
        &[
            "clients",
            "per_source",
            "sessions",
            "startups",
            "grace",
            "message_bytes",
            "rate",
            "burst",
            "penalties",
        ],
    ),
    ("log", &["durability", "presence"]),
    ("sandbox", &["require"]),
    ("syslog", &["facility", "level", "socket"]),
];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MAX_PATH: usize = 1024;
const MAX_RUNTIME_PATH: usize = 80;

impl Config {
    /// Parses the text of a configuration file; `file` is how its name appears in errors.
    ///
    /// # Errors
    /// Every mistake in the file, in the order of its lines. A file that is not TOML gives one
    /// error, since what follows a syntax error cannot be trusted.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<ConfigError>> {
        let root = match DeTable::parse(text) {
            Ok(root) => root.into_inner(),
            Err(error) => return Err(vec![syntax_error(text, file, &error)]),
        };
        let mut parser = Parser { text, file, root: &root, errors: Vec::new() };
        parser.refuse_unknown_keys();
        let config = parser.read();
        let mut errors = parser.errors;
        if errors.is_empty() {
            return Ok(config);
        }
        errors.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        Err(errors)
    }
}

impl ConfigError {
    /// A complaint about the value of `section.key` in a file that was parsed before, so that what
    /// only the system can tell names its line as well.
    pub fn about(
        text: &str,
        file: &str,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (line, column) = place_of(text, key).unwrap_or_default();
        let (file, key) = (file.to_owned(), key.to_owned());
        Self { file, line, column, key, problem: problem.into(), remedy: remedy.into() }
    }
}

fn place_of(text: &str, key: &str) -> Option<(usize, usize)> {
    let (section, key) = key.split_once('.')?;
    let root = DeTable::parse(text).ok()?;
    let value = root.get_ref().get(section)?.get_ref().as_table()?.get(key)?;
    Some(position(text, value.span().start))
}

struct Parser<'t> {
    text: &'t str,
    file: &'t str,
    root: &'t DeTable<'t>,
    errors: Vec<ConfigError>,
}

/// What is wrong with one value, and where, if not at the value's beginning.
struct Complaint {
    at: Option<Range<usize>>,
    problem: String,
    remedy: String,
}

type Parsed<T> = Result<T, Vec<Complaint>>;

fn complain<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Parsed<T> {
    Err(vec![Complaint { at: None, problem: problem.into(), remedy: remedy.into() }])
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
        self.set("syslog", "facility", &mut c.syslog.facility, |v| choice(v, Facility::NAMES));
        self.set("syslog", "level", &mut c.syslog.level, |v| choice(v, Severity::NAMES));
        self.set("syslog", "socket", &mut c.syslog.socket, |v| match string(v, "\"/dev/log\"")? {
            "" => Ok(None),
            _ => path(v, MAX_RUNTIME_PATH).map(Some),
        });
        self.refuse_equal_users(&c);
        self.refuse_nested_paths(&c);
        c
    }

    /// Converts the value of `section.key` into `slot`, if the file has one.
    fn set<T>(
        &mut self,
        section: &str,
        key: &str,
        slot: &mut T,
        convert: impl Fn(&DeValue<'_>) -> Parsed<T>,
    ) {
        let Some(value) = self.find(section, key) else { return };
        match convert(value.get_ref()) {
            Ok(converted) => *slot = converted,
            Err(complaints) => {
                for complaint in complaints {
                    let at = complaint.at.unwrap_or(value.span());
                    self.error(at, format!("{section}.{key}"), complaint.problem, complaint.remedy);
                }
            }
        }
    }

    fn find(&self, section: &str, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.root.get(section)?.get_ref().as_table()?.get(key)
    }

    fn error(&mut self, at: Range<usize>, key: String, problem: String, remedy: String) {
        let (line, column) = position(self.text, at.start);
        let file = self.file.to_owned();
        self.errors.push(ConfigError { file, line, column, key, problem, remedy });
    }

    fn refuse_unknown_keys(&mut self) {
        for (name, content) in self.root {
            let section = name.get_ref().as_ref();
            let Some((_, keys)) = KEYS.iter().find(|(known, _)| *known == section) else {
                let (problem, remedy) = unknown_section(section);
                self.error(name.span(), plain(section), problem, remedy);
                continue;
            };
            let Some(table) = content.get_ref().as_table() else {
                let problem = format!(
                    "is a section, but a value of type {} was given",
                    kind(content.get_ref())
                );
                let remedy =
                    format!("write [{section}] on a line of its own and the keys below it");
                self.error(name.span(), plain(section), problem, remedy);
                continue;
            };
            for name in table.keys() {
                let key = name.get_ref().as_ref();
                if !keys.contains(&key) {
                    let remedy = unknown_key_remedy(section, key, keys);
                    let full = format!("{section}.{}", plain(key));
                    self.error(name.span(), full, "unknown key".into(), remedy);
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
            .find_map(|key| Some((*key, self.find("identity", key)?.span())))
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
        let Some((key, at)) = ["runtime", "state"]
            .iter()
            .find_map(|key| Some((*key, self.find("paths", key)?.span())))
        else {
            return;
        };
        let problem = "paths.state and paths.runtime are the same, or one is inside the other";
        let remedy = "use two separate directories: one survives a reboot, the other does not";
        self.error(at, format!("paths.{key}"), problem.into(), remedy.into());
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

fn unknown_section(section: &str) -> (String, String) {
    let home = KEYS.iter().find(|(_, keys)| keys.contains(&section));
    if let Some((home, _)) = home {
        return (
            "this key stands outside its section".into(),
            format!("move it below a line [{home}]"),
        );
    }
    let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
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
    match KEYS.iter().find(|(_, other)| other.contains(&key)) {
        Some((home, _)) => format!("did you mean {home}.{key}? move it below a line [{home}]"),
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

/// `text` in quotes, control characters escaped, cut at 60 characters.
fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

/// `text` without quotes, control characters escaped, cut at 60 characters.
fn plain(text: &str) -> String {
    let quoted = quoted(text);
    quoted.replace('"', "")
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "float",
        DeValue::Boolean(_) => "boolean",
        DeValue::Datetime(_) => "date",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "table",
    }
}

fn wrong_type<T>(value: &DeValue<'_>, remedy: impl Into<String>) -> Parsed<T> {
    complain(format!("is of type {}", kind(value)), remedy)
}

fn string<'v>(value: &'v DeValue<'_>, example: &str) -> Parsed<&'v str> {
    match value.as_str() {
        Some(text) => Ok(text),
        None => wrong_type(value, format!("write a string in quotes, for example {example}")),
    }
}

fn boolean(value: &DeValue<'_>) -> Parsed<bool> {
    match value.as_bool() {
        Some(flag) => Ok(flag),
        None => wrong_type(value, "write true or false, without quotes"),
    }
}

fn integer(value: &DeValue<'_>, range: RangeInclusive<u32>) -> Parsed<u32> {
    let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
    let Some(written) = value.as_integer() else { return wrong_type(value, remedy) };
    match i128::from_str_radix(written.as_str(), written.radix()) {
        Ok(n) if n >= (*range.start()).into() && n <= (*range.end()).into() => Ok(n as u32),
        _ => complain(format!("{} is out of range", plain(&written.to_string())), remedy),
    }
}

fn share_of_clients(value: &DeValue<'_>, clients: u32) -> Parsed<u32> {
    integer(value, 1..=clients).map_err(|mut complaints| {
        for complaint in &mut complaints {
            complaint.remedy += " (limits.clients)";
        }
        complaints
    })
}

fn choice<T: Copy>(value: &DeValue<'_>, names: &[(&str, T)]) -> Parsed<T> {
    let list = names.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let word = string(value, &list)?;
    match names.iter().find(|(name, _)| *name == word) {
        Some((_, value)) => Ok(*value),
        None => complain(format!("{} is not known", quoted(word)), format!("use one of {list}")),
    }
}

fn room_name(value: &DeValue<'_>) -> Parsed<String> {
    let name = string(value, "\"lobby\"")?;
    let length = name.chars().count();
    if length == 0 || length > 64 {
        return complain(format!("has {length} characters"), "use 1 to 64");
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return complain(
            format!("{} has control characters, or blanks around it", quoted(name)),
            "use printable characters",
        );
    }
    Ok(name.into())
}

fn motd(value: &DeValue<'_>) -> Parsed<String> {
    let motd = string(value, "\"Be kind.\"")?;
    if motd.len() > 1024 {
        return complain(format!("has {} bytes", motd.len()), "use at most 1024");
    }
    if motd.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return complain("has control characters", "use only line ends and tabs besides text");
    }
    Ok(motd.into())
}

fn addresses(value: &DeValue<'_>) -> Parsed<Vec<SocketAddr>> {
    const EXAMPLE: &str = "write an array of strings, for example [\"[::]:7722\"]";
    let Some(items) = value.as_array() else { return wrong_type(value, EXAMPLE) };
    if items.is_empty() || items.len() > 16 {
        return complain(format!("has {} addresses", items.len()), "give 1 to 16");
    }
    let mut seen = HashSet::new();
    let (mut found, mut complaints) = (Vec::new(), Vec::new());
    for item in items {
        let parsed = match item.get_ref().as_str() {
            None => wrong_type(item.get_ref(), EXAMPLE),
            Some(text) => address(text).and_then(|address| {
                // Port 0 means another port each time, so it may be repeated.
                if !seen.insert(address) && address.port() != 0 {
                    complain(format!("{} is listed twice", quoted(text)), "remove one of the two")
                } else {
                    Ok(address)
                }
            }),
        };
        match parsed {
            Ok(address) => found.push(address),
            Err(more) => complaints
                .extend(more.into_iter().map(|c| Complaint { at: Some(item.span()), ..c })),
        }
    }
    if complaints.is_empty() { Ok(found) } else { Err(complaints) }
}

fn address(text: &str) -> Parsed<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => complain(
            format!("{} has no port", quoted(text)),
            format!("add one, for example \"{ip}:7722\""),
        ),
        Ok(IpAddr::V6(ip)) => complain(
            format!("{} has no port", quoted(text)),
            format!("add one, for example \"[{ip}]:7722\""),
        ),
        Err(_) => complain(
            format!("{} is not an IP address and a port", quoted(text)),
            "write \"192.0.2.1:7722\" or \"[2001:db8::1]:7722\"; names are not looked up",
        ),
    }
}

fn user(value: &DeValue<'_>) -> Parsed<String> {
    let name = string(value, "\"papayad\"")?;
    if name == "root" {
        return complain("must not be root", "create a system user without a shell and name it");
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || name.len() > 32 || !name.bytes().all(allowed) {
        return complain(
            format!("{} is not a user name", quoted(name)),
            "use 1 to 32 of A-Z a-z 0-9 . _ - and begin with a letter or _ (a number is not a name)",
        );
    }
    Ok(name.into())
}

fn path(value: &DeValue<'_>, longest: usize) -> Parsed<PathBuf> {
    let text = string(value, "\"/var/lib/papayachat\"")?;
    let path = Path::new(text);
    if !path.is_absolute() {
        return complain(
            format!("{} is a relative path", quoted(text)),
            "write the whole path, beginning with /",
        );
    }
    // Component::CurDir only shows up at the beginning, so "." is looked for in the text.
    let dotted = text.split('/').any(|part| part == "." || part == "..");
    if dotted || text.chars().any(char::is_control) || path.components().eq([Component::RootDir]) {
        return complain(
            format!("{} is not a plain path of a directory", quoted(text)),
            "write it without . and .. and control characters; / itself is not allowed",
        );
    }
    if text.len() > longest {
        return complain(
            format!("has {} bytes", text.len()),
            format!("use a path of at most {longest}"),
        );
    }
    Ok(path.into())
}

fn duration(value: &DeValue<'_>, least: Duration, most: Duration) -> Parsed<Duration> {
    const REMEDY: &str = "write a number and one of ms, s, m, h, d, for example \"20s\"";
    if let Some(number) = value.as_integer() {
        return complain(format!("{} has no unit", plain(&number.to_string())), REMEDY);
    }
    let text = match value.as_str() {
        Some(text) => text,
        None => return wrong_type(value, REMEDY),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        "" if !number.is_empty() => {
            return complain(format!("{} has no unit", quoted(text)), REMEDY);
        }
        _ => return complain(format!("{} is not a span of time", quoted(text)), REMEDY),
    };
    if number.is_empty() {
        return complain(format!("{} is not a span of time", quoted(text)), REMEDY);
    }
    let span = number.parse().ok().and_then(|n: u32| unit.checked_mul(n));
    match span {
        Some(span) if (least..=most).contains(&span) => Ok(span),
        _ => complain(
            format!("{} is out of range", quoted(text)),
            format!("use {} to {} seconds", least.as_secs(), most.as_secs()),
        ),
    }
}

fn rate(value: &DeValue<'_>) -> Parsed<Rate> {
    const REMEDY: &str =
        "write a number from 1 to 1000000 and one of /s, /m, /h, for example \"10/s\"";
    if let Some(number) = value.as_integer() {
        return complain(format!("{} has no unit", plain(&number.to_string())), REMEDY);
    }
    let Some(text) = value.as_str() else { return wrong_type(value, REMEDY) };
    let Some((number, unit)) = text.split_once('/') else {
        return complain(format!("{} has no unit", quoted(text)), REMEDY);
    };
    let per = match unit {
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return complain(format!("{} is not a rate", quoted(text)), REMEDY),
    };
    match decimal(number) {
        Some(messages) if (1..=1_000_000).contains(&messages) => Ok(Rate { messages, per }),
        _ => complain(format!("{} is not a rate", quoted(text)), REMEDY),
    }
}

fn startups(value: &DeValue<'_>) -> Parsed<Startups> {
    const REMEDY: &str = "write begin:percent:full, for example \"10:30:100\"";
    let text = string(value, "\"10:30:100\"")?;
    let parts: Vec<Option<u32>> = text.split(':').map(decimal).collect();
    let [Some(begin), Some(percent), Some(full)] = parts[..] else {
        return complain(format!("{} is not three numbers", quoted(text)), REMEDY);
    };
    let sound = begin >= 1 && begin <= full && full <= 100_000 && (1..=100).contains(&percent);
    if !sound {
        return complain(
            format!("{} is out of range", quoted(text)),
            "use 1 <= begin <= full <= 100000 and a percentage from 1 to 100",
        );
    }
    Ok(Startups { begin, percent, full })
}

/// A number of digits only: `u32::from_str` would also take a sign.
fn decimal(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("syslog.facility = \"local8\"", "is not known"),
            ("syslog.level = \"warn\"", "\"warning\""),
        ] {
            one_error(line, 1, part);
        }
    }

    #[test]
    fn what_the_system_says_about_a_value_names_its_line_too() {
        let text = "[paths]\n\nstate = \"/a\"\n";
        let error = ConfigError::about(text, "f", "paths.state", "is missing", "create it");
        assert_eq!(error.to_string(), "f:3: paths.state: is missing; create it");
        let error = ConfigError::about(text, "f", "paths.runtime", "is missing", "create it");
        assert_eq!(error.to_string(), "f: paths.runtime: is missing; create it");
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

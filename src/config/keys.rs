//! Every key of the configuration: its name, whether a running service takes a change over, and its
//! value as it is written in a file. What is not here is an error in a file. Pure.

use std::time::Duration;

use super::Config;

/// What it takes for a change to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `systemctl reload`, which is SIGHUP.
    Reload,
    /// A restart of the service.
    Restart,
}

/// One key.
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What a change takes.
    pub effect: Effect,
    /// Its value in TOML (and JSON).
    pub show: fn(&Config) -> String,
}

/// All of them, in the order of the sample file.
pub const KEYS: &[Key] = &[
    key("room", "name", Effect::Reload, |c| string(&c.room.name)),
    key("room", "motd", Effect::Reload, |c| string(&c.room.motd)),
    key("listen", "addresses", Effect::Restart, |c| {
        let each: Vec<String> = c.listen.addresses.iter().map(string).collect();
        format!("[{}]", each.join(", "))
    }),
    key("identity", "user", Effect::Restart, |c| string(&c.identity.user)),
    key("identity", "keeper_user", Effect::Restart, |c| string(&c.identity.keeper_user)),
    key("paths", "state", Effect::Restart, |c| string(c.paths.state.display())),
    key("paths", "runtime", Effect::Restart, |c| string(c.paths.runtime.display())),
    key("limits", "clients", Effect::Restart, |c| c.limits.clients.to_string()),
    key("limits", "per_source", Effect::Reload, |c| c.limits.per_source.to_string()),
    key("limits", "sessions", Effect::Reload, |c| c.limits.sessions.to_string()),
    key("limits", "startups", Effect::Restart, |c| string(c.limits.startups)),
    key("limits", "grace", Effect::Reload, |c| span(c.limits.grace)),
    key("limits", "message_bytes", Effect::Reload, |c| c.limits.message_bytes.to_string()),
    key("limits", "rate", Effect::Reload, |c| string(c.limits.rate)),
    key("limits", "burst", Effect::Reload, |c| c.limits.burst.to_string()),
    key("limits", "penalties", Effect::Reload, |c| c.limits.penalties.to_string()),
    key("log", "durability", Effect::Reload, |c| string(c.log.durability)),
    key("log", "presence", Effect::Restart, |c| c.log.presence.to_string()),
    key("sandbox", "require", Effect::Restart, |c| string(c.sandbox.require)),
    key("sandbox", "ceiling", Effect::Restart, |c| string(c.sandbox.ceiling)),
    key("syslog", "facility", Effect::Reload, |c| string(c.syslog.facility)),
    key("syslog", "level", Effect::Reload, |c| string(c.syslog.level)),
    key("syslog", "socket", Effect::Reload, |c| {
        string(
            c.syslog.socket.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        )
    }),
];

const fn key(
    section: &'static str,
    name: &'static str,
    effect: Effect,
    show: fn(&Config) -> String,
) -> Key {
    Key { section, name, effect, show }
}

impl Key {
    /// `section.key`
    pub fn full(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

impl Config {
    /// The keys that differ from `running` and cannot change while a service runs.
    pub fn needs_restart(&self, running: &Self) -> Vec<String> {
        let changed = |key: &&Key| (key.show)(self) != (key.show)(running);
        let fixed = KEYS.iter().filter(|key| key.effect == Effect::Restart);
        fixed.filter(changed).map(Key::full).collect()
    }

    /// What a service that runs with `running` makes of this.
    pub fn after_reload(self, running: &Self) -> Self {
        let running = running.clone();
        let mut limits = self.limits;
        (limits.clients, limits.startups) = (running.limits.clients, running.limits.startups);
        let mut log = self.log;
        log.presence = running.log.presence;
        Self { room: self.room, limits, log, syslog: self.syslog, ..running }
    }
}

/// A TOML string: JSON's escapes are TOML's too.
fn string(value: impl ToString) -> String {
    serde_json::Value::String(value.to_string()).to_string()
}

fn span(span: Duration) -> String {
    string(format!("{}s", span.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key with another value than its default.
    const OTHER: &str = r#"
        room = { name = "den", motd = "a \"b\"\n\u00e9" }
        listen.addresses = ["127.0.0.1:1", "[::1]:2"]
        identity = { user = "a", keeper_user = "b" }
        paths = { state = "/s \\", runtime = "/r" }
        log = { durability = "always", presence = false }
        sandbox = { require = "seccomp", ceiling = "landlock-2" }
        syslog = { facility = "none", level = "debug", socket = "/l" }
        [limits]
        clients = 50
        per_source = 4
        sessions = 3
        startups = "1:2:3"
        grace = "2m"
        message_bytes = 64
        rate = "5/m"
        burst = 1
        penalties = false
    "#;

    fn written(config: &Config) -> String {
        let line = |key: &Key| format!("{} = {}\n", key.full(), (key.show)(config));
        KEYS.iter().map(line).collect()
    }

    #[test]
    fn every_value_is_written_as_it_is_read() {
        for text in ["", OTHER] {
            let config = Config::parse(text, "f").unwrap();
            assert_eq!(Config::parse(&written(&config), "g").unwrap(), config);
        }
    }

    #[test]
    fn a_reload_changes_exactly_the_keys_that_say_so() {
        let running = Config::default();
        let new = Config::parse(OTHER, "f").unwrap();
        let after = new.clone().after_reload(&running);
        for key in KEYS {
            let [old, new, after] = [&running, &new, &after].map(|config| (key.show)(config));
            assert_ne!(old, new, "{} has its default here: this tests nothing", key.full());
            let expected = if key.effect == Effect::Reload { new } else { old };
            assert_eq!(after, expected, "{}", key.full());
        }
        let fixed = KEYS.iter().filter(|key| key.effect == Effect::Restart).map(Key::full);
        assert_eq!(new.needs_restart(&running), fixed.collect::<Vec<_>>());
        assert!(running.needs_restart(&running).is_empty());
    }

    /// The comments and the value of each key in the sample, in its order.
    fn sample() -> Vec<(String, String, String)> {
        let text = include_str!("../../packaging/papayad.toml");
        let (mut section, mut comment, mut all) = (String::new(), String::new(), Vec::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
                comment.clear();
            } else if let Some(words) = line.strip_prefix("# ") {
                comment = comment + words + " ";
            } else if let Some((name, value)) =
                line.strip_prefix('#').and_then(|l| l.split_once(" = "))
            {
                all.push((
                    format!("{section}.{name}"),
                    value.to_owned(),
                    std::mem::take(&mut comment),
                ));
            } else {
                assert!(line.is_empty() || line == "#", "{line:?}");
                comment.clear();
            }
        }
        all
    }

    #[test]
    fn the_sample_file_has_every_key_with_its_default_and_what_a_change_takes() {
        let sample = sample();
        assert_eq!(
            sample.iter().map(|(key, ..)| key.clone()).collect::<Vec<_>>(),
            KEYS.iter().map(Key::full).collect::<Vec<_>>()
        );
        for (key, (name, value, comment)) in KEYS.iter().zip(&sample) {
            if cfg!(target_os = "linux") || key.section != "paths" {
                assert_eq!(*value, (key.show)(&Config::default()), "{name}");
            }
            let takes = |word| comment.contains(&format!("A change takes a {word}"));
            let expected = (key.effect == Effect::Reload, key.effect == Effect::Restart);
            assert_eq!((takes("reload"), takes("restart")), expected, "{name}: {comment}");
            assert!(comment.len() > 60, "{name} is not explained: {comment}");
        }
    }

    #[test]
    fn the_sample_file_may_be_used_as_it_is_and_with_every_value_uncommented() {
        let text = include_str!("../../packaging/papayad.toml");
        assert_eq!(Config::parse(text, "f"), Ok(Config::default()));
        if cfg!(target_os = "linux") {
            let is_value =
                |line: &str| line.starts_with('#') && !line.starts_with("# ") && line != "#";
            let open =
                |line: &str| if is_value(line) { line[1..].to_owned() } else { line.to_owned() };
            let text: Vec<String> = text.lines().map(open).collect();
            assert_eq!(Config::parse(&text.join("\n"), "f"), Ok(Config::default()));
        }
    }
}

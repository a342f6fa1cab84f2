//! One value of the configuration file at a time: from TOML to what it means, or to what is wrong
//! with it and how it is written instead. No I/O.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::{Rate, Startups};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
pub(super) const MAX_PATH: usize = 1024;
pub(super) const MAX_RUNTIME_PATH: usize = 80;

/// What is wrong with one value, and where, if not at the value's beginning.
pub(super) struct Complaint {
    pub(super) at: Option<Range<usize>>,
    pub(super) problem: String,
    pub(super) remedy: String,
}

pub(super) type Parsed<T> = Result<T, Vec<Complaint>>;

fn complain<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Parsed<T> {
    Err(vec![Complaint { at: None, problem: problem.into(), remedy: remedy.into() }])
}

/// `text` in quotes, control characters escaped, cut at 60 characters.
pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

/// `text` without quotes, control characters escaped, cut at 60 characters.
pub(super) fn plain(text: &str) -> String {
    let quoted = quoted(text);
    quoted.replace('"', "")
}

pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
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

pub(super) fn string<'v>(value: &'v DeValue<'_>, example: &str) -> Parsed<&'v str> {
    match value.as_str() {
        Some(text) => Ok(text),
        None => wrong_type(value, format!("write a string in quotes, for example {example}")),
    }
}

pub(super) fn boolean(value: &DeValue<'_>) -> Parsed<bool> {
    match value.as_bool() {
        Some(flag) => Ok(flag),
        None => wrong_type(value, "write true or false, without quotes"),
    }
}

pub(super) fn integer(value: &DeValue<'_>, range: RangeInclusive<u32>) -> Parsed<u32> {
    let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
    let Some(written) = value.as_integer() else { return wrong_type(value, remedy) };
    match i128::from_str_radix(written.as_str(), written.radix()) {
        Ok(n) if n >= (*range.start()).into() && n <= (*range.end()).into() => Ok(n as u32),
        _ => complain(format!("{} is out of range", plain(&written.to_string())), remedy),
    }
}

pub(super) fn share_of_clients(value: &DeValue<'_>, clients: u32) -> Parsed<u32> {
    integer(value, 1..=clients).map_err(|mut complaints| {
        for complaint in &mut complaints {
            complaint.remedy += " (limits.clients)";
        }
        complaints
    })
}

pub(super) fn choice<T: Copy>(value: &DeValue<'_>, names: &[(&str, T)]) -> Parsed<T> {
    let list = names.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let word = string(value, &list)?;
    match names.iter().find(|(name, _)| *name == word) {
        Some((_, value)) => Ok(*value),
        None => complain(format!("{} is not known", quoted(word)), format!("use one of {list}")),
    }
}

pub(super) fn room_name(value: &DeValue<'_>) -> Parsed<String> {
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

pub(super) fn motd(value: &DeValue<'_>) -> Parsed<String> {
    let motd = string(value, "\"Be kind.\"")?;
    if motd.len() > 1024 {
        return complain(format!("has {} bytes", motd.len()), "use at most 1024");
    }
    if motd.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return complain("has control characters", "use only line ends and tabs besides text");
    }
    Ok(motd.into())
}

pub(super) fn addresses(value: &DeValue<'_>) -> Parsed<Vec<SocketAddr>> {
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

pub(super) fn user(value: &DeValue<'_>) -> Parsed<String> {
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

pub(super) fn path(value: &DeValue<'_>, longest: usize) -> Parsed<PathBuf> {
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

pub(super) fn duration(value: &DeValue<'_>, least: Duration, most: Duration) -> Parsed<Duration> {
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

pub(super) fn rate(value: &DeValue<'_>) -> Parsed<Rate> {
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

pub(super) fn startups(value: &DeValue<'_>) -> Parsed<Startups> {
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

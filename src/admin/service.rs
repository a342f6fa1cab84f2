//! `papayad status`, `kick`, `pause`, `resume`: requests to the running service.

mod connections;
mod measured;
mod processes;
mod prometheus;

use clap::Args;
use serde_json::Value;

use super::cli::Configured;
use crate::config::Config;
use crate::daemon::launcher::control::{Caller, Request};
use crate::exit::{Exit, Failure, print};
use crate::visible::{visible_json, visible_lines};

/// Options of `papayad status`.
#[derive(Args, Debug)]
pub struct Status {
    /// One JSON object a line: the service, then each client
    #[arg(long)]
    json: bool,
    /// As text for the textfile collector of Prometheus' node_exporter
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
    #[command(flatten)]
    configured: Configured,
}

/// Options of `papayad kick`.
#[derive(Args, Debug)]
pub struct Kick {
    /// The name, or the process id of a RECV
    whom: crate::token::Name,
    #[command(flatten)]
    configured: Configured,
}

/// Prints who is here.
///
/// # Errors
/// No service is running, or it does not answer.
pub fn status(options: &Status) -> Result<(), Failure> {
    let config = options.configured.load()?;
    let answer = match request(&config, &Request::Status) {
        Ok(answer) => answer,
        Err(failure) => {
            if options.prometheus {
                print(&prometheus::down(&config.room.name))?;
            }
            return Err(failure);
        }
    };
    let mut lines = answer.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let mut service = lines.next().ok_or_else(|| {
        Failure::new(Exit::Unavailable, "the service's answer is not understood; is it as new?")
    })?;
    let mut clients: Vec<Value> = lines.collect();
    measured::add(&config, &mut service, &mut clients);
    print(&if options.prometheus {
        prometheus::page(&service, &clients)
    } else if options.json {
        let objects = std::iter::once(&service).chain(&clients);
        objects.map(|object| visible_json(&object.to_string()) + "\n").collect()
    } else {
        service_text(&service) + &clients_text(&clients)
    })
}

/// A column of the table: its head, its width, and what stands in it.
type Column = (&'static str, usize, fn(&Value) -> String);

const COLUMNS: [Column; 12] = [
    ("RECV", 7, |client| text(client, "pid")),
    ("SEND", 7, |client| text(client, "send_pid")),
    ("AGE", 5, |client| span(&client["age_seconds"])),
    ("IDLE", 5, |client| span(&client["idle_seconds"])),
    ("IN", 6, |client| size(&client["received_bytes"])),
    ("OUT", 6, |client| size(&client["sent_bytes"])),
    ("OFFSET", 10, |client| text(client, "offset")),
    ("LAG", 6, |client| size(&client["lag_bytes"])),
    ("CPU", 7, |client| seconds(&client["cpu_seconds"])),
    ("MEMORY", 6, |client| size(&client["memory_bytes"])),
    ("ROLE", 8, |client| text(client, "role")),
    ("NAME", 0, |client| format!("{} {}", text(client, "name"), text(client, "address"))),
];

fn clients_text(clients: &[Value]) -> String {
    let line = |cell: &dyn Fn(&Column) -> String| {
        let cells =
            COLUMNS.iter().map(|column| format!("{:>width$}", cell(column), width = column.1));
        cells.collect::<Vec<_>>().join(" ") + "\n"
    };
    let head = (!clients.is_empty()).then(|| line(&|(head, ..)| (*head).to_owned()));
    let rows = clients.iter().map(|client| line(&|(_, _, cell)| cell(client)));
    head.into_iter().chain(rows).collect()
}

/// Bytes in at most five characters.
fn size(value: &Value) -> String {
    let Some(bytes) = value.as_u64() else { return "-".into() };
    let units = ["", "K", "M", "G", "T", "P", "E"];
    let power = bytes.checked_ilog2().map_or(0, |log| log as usize / 10);
    match power {
        0 => bytes.to_string(),
        _ => format!("{:.1}{}", bytes as f64 / 1024f64.powi(power as i32), units[power]),
    }
}

/// A time in its largest unit.
fn span(value: &Value) -> String {
    match value.as_u64() {
        None => "-".into(),
        Some(seconds @ 0..120) => format!("{seconds}s"),
        Some(seconds @ 120..7200) => format!("{}m", seconds / 60),
        Some(seconds @ 7200..172_800) => format!("{}h", seconds / 3600),
        Some(seconds) => format!("{}d", seconds / 86_400),
    }
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or("-".into(), |seconds| format!("{seconds:.2}s"))
}

fn service_text(service: &Value) -> String {
    let mut shown = format!(
        "papayad {} (pid {}), up {} s, door {}, {} clients, {} starting, {} tokens\n\
         room {} on {}\n\
         {}\n",
        text(service, "version"),
        text(service, "pid"),
        text(service, "uptime_seconds"),
        text(service, "door"),
        text(service, "clients"),
        text(service, "starting"),
        text(service, "tokens"),
        text(service, "room"),
        text(service, "addresses"),
        text(service, "sandbox"),
    );
    let (counters, refusals) = (&service["counters"], &service["counters"]["refusals"]);
    shown += &format!(
        "since its start: {} messages, {} joins; refused: {} without a token, {} with a bad one, \
         {} too slow; {} penalties, {} violations\n",
        text(counters, "messages"),
        text(counters, "joins"),
        text(refusals, "no_token"),
        text(refusals, "bad_token"),
        text(refusals, "too_slow"),
        text(counters, "penalties"),
        text(counters, "violations"),
    );
    shown += &format!(
        "turned away at the door: {} because the room was full, {} of sources with too many connections, \
         {} start-ups, {} in a penalty, {} in overload\n",
        text(refusals, "full"),
        text(refusals, "per_source"),
        text(refusals, "startups"),
        text(refusals, "penalised"),
        text(refusals, "busy"),
    );
    if !service["unsealed_since"].is_null() {
        let since = text(service, "unsealed_since");
        shown += &format!("the log was unsealed by hand at {since}; `papayad log seal` seals it\n");
    }
    for seen in service["violations"].as_array().into_iter().flatten() {
        shown += &violation(seen);
    }
    shown
}

/// One of the newest violations.
fn violation(seen: &Value) -> String {
    let told = |key: &str| if seen[key].is_null() { "-".to_owned() } else { text(seen, key) };
    format!(
        "violation {} by {} of {} {}, process {}: {}\n",
        told("time"),
        told("role"),
        told("name"),
        told("address"),
        told("pid"),
        if seen["call"].is_null() { "not told".to_owned() } else { text(seen, "call") },
    )
}

/// A value as a person reads it; nothing in it can control the terminal.
fn text(object: &Value, key: &str) -> String {
    let shown = match &object[key] {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join(", ")
        }
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    crate::visible::visible(&shown).into_owned()
}

/// Ends somebody's sessions.
///
/// # Errors
/// Nobody is meant, or no service is running.
pub fn kick(options: &Kick) -> Result<(), Failure> {
    let request = Request::Kick(options.whom.to_string());
    simple(&options.configured, &request)
}

/// Closes the door.
///
/// # Errors
/// No service is running.
pub fn pause(configured: &Configured) -> Result<(), Failure> {
    simple(configured, &Request::Pause)
}

/// Opens the door.
///
/// # Errors
/// No service is running, or the door does not open.
pub fn resume(configured: &Configured) -> Result<(), Failure> {
    simple(configured, &Request::Resume)
}

fn simple(configured: &Configured, asked: &Request) -> Result<(), Failure> {
    let answer = request(&configured.load()?, asked)?;
    let failed = |exit, problem: &str| Err(Failure::new(exit, problem.trim_end()));
    if let Some(problem) = answer.strip_prefix("error: ") {
        failed(Exit::Unavailable, problem)
    } else if let Some(problem) = answer.strip_prefix("unknown: ") {
        failed(Exit::BadData, problem)
    } else {
        print(&visible_lines(&answer, 0))
    }
}

fn request(config: &Config, asked: &Request) -> Result<String, Failure> {
    let service = Caller::connect(&config.paths.runtime)?.ok_or_else(|| {
        let message = format!(
            "no papayad is running (nothing answers in {}); start it, or see --config",
            config.paths.runtime.display()
        );
        Failure::new(Exit::Unavailable, message)
    })?;
    service.ask(asked)
}

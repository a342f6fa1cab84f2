//! `papayad status`, `kick`, `pause`, `resume`: requests to the running service.

use clap::Args;
use serde_json::Value;

use super::cli::Configured;
use crate::config::Config;
use crate::daemon::launcher::control::{Caller, Request};
use crate::exit::{Exit, Failure};

/// Options of `papayad status`.
#[derive(Args, Debug)]
pub struct Status {
    /// One JSON object a line: the service, then each client
    #[arg(long)]
    json: bool,
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
    let answer = request(&options.configured.load()?, &Request::Status)?;
    if options.json {
        print!("{answer}");
        return Ok(());
    }
    let mut lines = answer.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    if let Some(service) = lines.next() {
        print_service(&service);
    }
    let clients: Vec<Value> = lines.collect();
    if !clients.is_empty() {
        println!("{:<16} {:<9} {:>8} {:>8}  ADDRESS", "NAME", "ROLE", "PID", "SECONDS");
    }
    for client in &clients {
        println!(
            "{:<16} {:<9} {:>8} {:>8}  {}",
            text(client, "name"),
            text(client, "role"),
            text(client, "pid"),
            text(client, "age_seconds"),
            text(client, "address"),
        );
    }
    Ok(())
}

fn print_service(service: &Value) {
    println!(
        "papayad {} (pid {}), up {} s, door {}, {} clients, {} starting, {} tokens",
        text(service, "version"),
        text(service, "pid"),
        text(service, "uptime_seconds"),
        text(service, "door"),
        text(service, "clients"),
        text(service, "starting"),
        text(service, "tokens"),
    );
    println!("room {} on {}", text(service, "room"), text(service, "addresses"));
    println!("{}", text(service, "sandbox"));
    let (counters, refusals) = (&service["counters"], &service["counters"]["refusals"]);
    println!(
        "since its start: {} joins; refused: {} without a token, {} with a bad one, {} too slow; \
         {} penalties, {} violations",
        text(counters, "joins"),
        text(refusals, "no_token"),
        text(refusals, "bad_token"),
        text(refusals, "too_slow"),
        text(counters, "penalties"),
        text(counters, "violations"),
    );
    if !service["unsealed_since"].is_null() {
        let since = text(service, "unsealed_since");
        println!("the log was unsealed by hand at {since}; `papayad log seal` seals it");
    }
    for seen in service["violations"].as_array().into_iter().flatten() {
        println!("{}", violation(seen));
    }
}

/// One of the newest violations.
fn violation(seen: &Value) -> String {
    let told = |key: &str| if seen[key].is_null() { "-".to_owned() } else { text(seen, key) };
    format!(
        "violation {} by {} of {} {}, process {}: {}",
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
    match answer.strip_prefix("error: ") {
        Some(problem) => Err(Failure::new(Exit::Unavailable, problem.trim_end())),
        None => {
            print!("{}", crate::visible::visible_lines(&answer, 0));
            Ok(())
        }
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

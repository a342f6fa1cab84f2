//! What `papayad status` adds to the service's own answer: what the kernel knows anyway.
//!
//! | what | from where |
//! |---|---|
//! | SEND's process | `/proc`: RECV's child |
//! | processor time, memory | `/proc`: RECV's and SEND's together |
//! | bytes both ways | the kernel's count of the connection: see `connections` |
//! | offset and lag | the position of SEND's descriptor of the log, which SEND sets before it sleeps |
//! | idle | the position of RECV's descriptor of the log is the end of the last record that RECV appended; that record has a time |
//!
//! Memory and the last two need root: the workers cannot be looked into, also by their own user. What is not
//! told is `null`.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::connections;
use super::processes::{self, Used};
use crate::config::Config;
use crate::confine::policy::{recv, send};
use crate::room::log::open_log;
use crate::room::record::{MAX_LINE, stamp_of};

/// The log, if it is a file: who owns its directory must not make root wait or look elsewhere.
fn log(state: &Path) -> Option<File> {
    let dir = File::open(state).ok()?;
    let log = open_log(dir.as_fd()).ok()?;
    Some(log.into())
}

/// Adds it to the status.
pub fn add(config: &Config, service: &mut Value, clients: &mut [Value]) {
    let log = log(&config.paths.state);
    let size = log.as_ref().and_then(|log| log.metadata().ok()).map(|found| found.len());
    let launcher = pid(service, "pid");
    service["log_bytes"] = json!(size);
    service["processes"] = pillars(service, launcher);
    let bytes = connections::ask(&ports(service));
    for client in clients {
        let (Some(launcher), Some(recv)) = (launcher, pid(client, "pid")) else { continue };
        let send = processes::child(recv);
        let offset = send.and_then(|send| processes::position(send, send::LOG));
        client["send_pid"] = json!(send);
        client["offset"] = json!(offset);
        client["lag_bytes"] = json!(size.zip(offset).map(|(size, at)| size.saturating_sub(at)));
        client["idle_seconds"] = json!(log.as_ref().and_then(|log| idle(log, recv, client)));
        let address = client["address"].as_str().and_then(|a| a.parse().ok());
        let bytes = address.and_then(|address| bytes.get(&address));
        client["received_bytes"] = json!(bytes.map(|b| b.received));
        client["sent_bytes"] = json!(bytes.map(|b| b.sent));
        let used =
            sum(processes::used(recv, launcher), send.and_then(|s| processes::used(s, recv)));
        put_used(client, used);
    }
}

fn pid(object: &Value, key: &str) -> Option<i32> {
    object[key].as_i64().and_then(|pid| i32::try_from(pid).ok())
}

/// The local ports.
fn ports(service: &Value) -> Vec<u16> {
    let addresses = service["addresses"].as_array().into_iter().flatten();
    let address = |text: &Value| text.as_str()?.parse::<std::net::SocketAddr>().ok();
    addresses.filter_map(address).map(|address| address.port()).collect()
}

/// The processes that there are once.
fn pillars(service: &Value, launcher: Option<i32>) -> Value {
    let pillar = |(role, key): (&str, &str)| {
        let pid = pid(service, key)?;
        let used = match role {
            // Whose child it is, is nobody's matter.
            "launcher" => processes::used_by(pid),
            _ => processes::used(pid, launcher?),
        };
        let mut pillar = json!({"role": role, "pid": pid});
        put_used(&mut pillar, used);
        Some(pillar)
    };
    [("launcher", "pid"), ("keeper", "keeper"), ("listener", "listener")]
        .into_iter()
        .filter_map(pillar)
        .collect()
}

fn put_used(object: &mut Value, used: Option<Used>) {
    object["cpu_seconds"] = json!(used.map(|u| u.cpu_seconds));
    object["memory_bytes"] = json!(used.and_then(|u| u.memory_bytes));
}

fn sum(recv: Option<Used>, send: Option<Used>) -> Option<Used> {
    let (recv, send) = (recv?, send?);
    let memory_bytes = recv.memory_bytes.zip(send.memory_bytes).map(|(a, b)| a + b);
    Some(Used { cpu_seconds: recv.cpu_seconds + send.cpu_seconds, memory_bytes })
}

/// Seconds since a client's last message; without one, since it came.
fn idle(log: &File, recv: i32, client: &Value) -> Option<u64> {
    match processes::position(recv, recv::LOG_APPEND)? {
        0 => client["age_seconds"].as_u64(),
        end => {
            let since = Timestamp::now().duration_since(record_before(log, end)?);
            Some(u64::try_from(since.as_secs()).unwrap_or(0))
        }
    }
}

/// The time of the record that ends at this offset.
fn record_before(log: &File, end: u64) -> Option<Timestamp> {
    // Most are short: a little is read first.
    [4 << 10, MAX_LINE as u64 + 1].into_iter().find_map(|room| {
        let start = end.saturating_sub(room);
        let mut text = vec![0; usize::try_from(end - start).ok()?];
        log.read_exact_at(&mut text, start).ok()?;
        let line = text.strip_suffix(b"\n")?;
        let begin = match line.iter().rposition(|b| *b == b'\n') {
            Some(before) => before + 1,
            None if start == 0 => 0,
            None => return None,
        };
        stamp_of(&text[begin..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_time_of_a_record_is_found_by_its_end_however_long_it_is() {
        let mut log = tempfile::tempfile().unwrap();
        let mut ends = Vec::new();
        let mut at = 0;
        for (second, length) in [(1, 10), (2, 60_000), (3, 5), (4, 5_000)] {
            let text = "x".repeat(length);
            let line = format!(
                "{{\"ts\":\"2026-11-22T22:23:0{second}.000Z\",\"from\":\"alice\",\"text\":\"{text}\"}}\n"
            );
            log.write_all(line.as_bytes()).unwrap();
            at += line.len() as u64;
            ends.push((second, at));
        }
        for (second, end) in ends {
            let found = record_before(&log, end).unwrap();
            assert_eq!(found.to_string(), format!("2026-11-22T22:23:0{second}Z"));
            assert_eq!(record_before(&log, end - 1), None, "that is no end of a line");
        }
        assert_eq!(record_before(&log, at + 1), None);
    }
}

//! `papayad status --prometheus`: the status as text for Prometheus, to be put where node_exporter's
//! textfile collector finds it. Pure.
//!
//! Each series has the room's name, so that node_exporter can read the files of several rooms.
//! Clients are told apart by name only: a series for each address or process would be a new one
//! with each connection, for ever. A name with several sessions has the sum of their bytes, the
//! largest lag and the shortest idle time.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::visible::visible;

/// What is said where no service answers.
pub fn down(room: &str) -> String {
    let mut page = Page { room, text: String::new() };
    page.metric("up", "gauge", "Whether the service answers.", &[(vec![], 0.0)]);
    page.text
}

/// The whole status.
pub fn page(service: &Value, clients: &[Value]) -> String {
    let room = service["room"].as_str().unwrap_or_default();
    let mut page = Page { room, text: String::new() };
    page.service(service);
    page.counters(&service["counters"]);
    page.processes(service);
    page.clients(clients);
    page.text
}

type Labels<'a> = Vec<(&'static str, &'a str)>;
type Sample<'a> = (Labels<'a>, f64);

struct Page<'a> {
    room: &'a str,
    text: String,
}

impl Page<'_> {
    /// One metric; without samples it is left out.
    fn metric(&mut self, name: &str, kind: &str, help: &str, samples: &[Sample<'_>]) {
        if samples.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP papayachat_{name} {help}");
        let _ = writeln!(self.text, "# TYPE papayachat_{name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> = [("room", self.room)]
                .iter()
                .chain(labels)
                .map(|(key, text)| format!("{key}=\"{}\"", escape(text)))
                .collect();
            let _ = writeln!(self.text, "papayachat_{name}{{{}}} {value}", labels.join(","));
        }
    }

    /// One number without labels, if it is known.
    fn number(&mut self, name: &str, kind: &str, help: &str, value: &Value) {
        let samples: Vec<Sample<'_>> = value.as_f64().map(|v| (vec![], v)).into_iter().collect();
        self.metric(name, kind, help, &samples);
    }

    fn service(&mut self, service: &Value) {
        let text = |key: &str| service[key].as_str().unwrap_or_default();
        self.metric("up", "gauge", "Whether the service answers.", &[(vec![], 1.0)]);
        let labels = vec![("version", text("version")), ("level", text("level"))];
        let help = "Version and sandbox level of the service.";
        self.metric("info", "gauge", help, &[(labels, 1.0)]);
        let gauges = [
            ("uptime_seconds", "uptime_seconds", "Time since the service started."),
            ("clients", "clients", "Clients in the room."),
            ("starting", "starting", "Connections that have not shown a token yet."),
            ("tokens", "tokens", "Tokens that can join."),
            ("log_bytes", "log_bytes", "Size of the log."),
        ];
        for (name, key, help) in gauges {
            self.number(name, "gauge", help, &service[key]);
        }
        let open = f64::from(u8::from(text("door") == "open"));
        self.metric("door_open", "gauge", "Whether new clients can connect.", &[(vec![], open)]);
    }

    fn counters(&mut self, counters: &Value) {
        let plain = [
            ("joins_total", "joins", "Tokens that were good."),
            ("penalties_total", "penalties", "Times that a source began to be turned away."),
            (
                "violations_total",
                "violations",
                "Workers that were killed by their filter, crashed, or held a lock for too long.",
            ),
            ("messages_total", "messages", "Messages that were stored."),
        ];
        for (name, key, help) in plain {
            self.number(name, "counter", help, &counters[key]);
        }
        let refusals = counters["refusals"].as_object();
        let samples: Vec<Sample<'_>> = refusals
            .into_iter()
            .flatten()
            .filter_map(|(why, count)| Some((vec![("reason", why.as_str())], count.as_f64()?)))
            .collect();
        let help = "Connections that ended before a token was good.";
        self.metric("refusals_total", "counter", help, &samples);
    }

    fn processes(&mut self, service: &Value) {
        let processes = service["processes"].as_array().map_or(&[][..], Vec::as_slice);
        let of = |key: &str| -> Vec<Sample<'_>> {
            let known =
                processes.iter().filter_map(|p| Some((p["role"].as_str()?, p[key].as_f64()?)));
            known.map(|(role, value)| (vec![("role", role)], value)).collect()
        };
        let help = "Processor time of the processes that the service has once.";
        self.metric("process_cpu_seconds_total", "counter", help, &of("cpu_seconds"));
        let help = "Share of memory (PSS) of the processes that the service has once.";
        self.metric("process_memory_bytes", "gauge", help, &of("memory_bytes"));
    }

    fn clients(&mut self, clients: &[Value]) {
        type Join = fn(f64, f64) -> f64;
        let sum: Join = |a, b| a + b;
        let metrics: [(&str, &str, Join, &str); 8] = [
            (
                "client_idle_seconds",
                "idle_seconds",
                f64::min,
                "Time since the last message of a name, or since it joined.",
            ),
            (
                "client_lag_bytes",
                "lag_bytes",
                f64::max,
                "How much of the log has not been read for a name yet.",
            ),
            (
                "client_offset_bytes",
                "offset",
                f64::min,
                "How far the log has been read for a name.",
            ),
            (
                "client_received_bytes",
                "received_bytes",
                sum,
                "Bytes from the present connections of a name.",
            ),
            ("client_sent_bytes", "sent_bytes", sum, "Bytes to the present connections of a name."),
            (
                "client_cpu_seconds",
                "cpu_seconds",
                sum,
                "Processor time of the present processes of a name.",
            ),
            (
                "client_memory_bytes",
                "memory_bytes",
                sum,
                "Share of memory (PSS) of the processes of a name.",
            ),
            (
                "client_age_seconds",
                "age_seconds",
                f64::max,
                "Age of the oldest connection of a name.",
            ),
        ];
        let mut sessions: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for client in clients {
            *sessions.entry(whose(client)).or_default() += 1.0;
        }
        self.by_name("client_sessions", "Present connections of a name.", &sessions);
        for (name, key, join, help) in metrics {
            let mut values: BTreeMap<(&str, &str), f64> = BTreeMap::new();
            for client in clients {
                let Some(value) = client[key].as_f64() else { continue };
                let entry = values.entry(whose(client));
                entry.and_modify(|known| *known = join(*known, value)).or_insert(value);
            }
            self.by_name(name, help, &values);
        }
    }

    fn by_name(&mut self, name: &str, help: &str, values: &BTreeMap<(&str, &str), f64>) {
        let labels = values
            .iter()
            .map(|((who, role), value)| (vec![("name", *who), ("role", *role)], *value));
        let samples: Vec<Sample<'_>> = labels.collect();
        self.metric(name, "gauge", help, &samples);
    }
}

fn whose(client: &Value) -> (&str, &str) {
    let text = |key: &str| client[key].as_str().unwrap_or_default();
    (text("name"), text("role"))
}

/// A label's value cannot end its quotes or its line, nor drive the terminal that shows it.
fn escape(text: &str) -> String {
    let text = text.split('\n').map(visible).collect::<Vec<_>>().join("\n");
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::daemon::launcher::counters::Counters;

    #[test]
    fn no_name_can_end_its_label_or_its_line() {
        let name = "x\"} 1\npapayachat_evil 1\n# \\";
        let client = serde_json::json!({"name": name, "role": "member", "lag_bytes": 5});
        let service = serde_json::json!({"room": name, "counters": {"refusals": {}}});
        let page = page(&service, &[client]);
        assert!(
            page.lines().all(|l| l.starts_with("papayachat_") || l.starts_with("# ")),
            "{page}"
        );
        assert!(!page.contains("\npapayachat_evil"), "{page}");
        let lag = "name=\"x\\\"} 1\\npapayachat_evil 1\\n# \\\\\",role=\"member\"} 5\n";
        assert!(page.contains(lag), "{page}");
    }

    #[test]
    fn a_name_with_several_sessions_is_one_series() {
        let client = |idle: u64, lag: u64, sent: u64| {
            serde_json::json!({
                "name": "alice", "role": "member",
                "idle_seconds": idle, "lag_bytes": lag, "sent_bytes": sent,
            })
        };
        let page =
            page(&serde_json::json!({"room": "den"}), &[client(5, 10, 100), client(3, 20, 200)]);
        let labels = "{room=\"den\",name=\"alice\",role=\"member\"}";
        for line in ["sessions{} 2", "idle_seconds{} 3", "lag_bytes{} 20", "sent_bytes{} 300"] {
            let line = format!("papayachat_client_{}", line.replace("{}", labels));
            assert!(page.lines().any(|l| l == line), "{line} is not in {page}");
        }
        assert!(!page.contains("client_cpu_seconds"), "what is not known is left out: {page}");
    }

    /// A word that begins as every metric's name does, up to its end.
    fn metrics(text: &str) -> BTreeSet<&str> {
        let name = |c: char| c.is_ascii_lowercase() || c == '_';
        let words = text.split(|c| !name(c));
        words.filter(|word| word.starts_with("papayachat_")).collect()
    }

    #[test]
    fn the_sample_of_alerts_asks_for_what_is_printed() {
        const ALERTS: &str = include_str!("../../../packaging/prometheus/alerts.yml");
        let numbers = |keys: &[&str]| -> Value {
            keys.iter().map(|key| ((*key).to_owned(), Value::from(1))).collect()
        };
        let mut service =
            numbers(&["uptime_seconds", "clients", "starting", "tokens", "log_bytes"]);
        service["counters"] = serde_json::to_value(Counters::default()).unwrap();
        let client = numbers(&["lag_bytes", "idle_seconds", "memory_bytes"]);
        let page = page(&service, &[client]);
        let (asked, printed) = (metrics(ALERTS), metrics(&page));
        assert!(asked.len() > 5, "{asked:?}");
        assert_eq!(asked.difference(&printed).next(), None, "{page}");
        let mut reasons = 0;
        for part in ALERTS.split("reason").skip(1).filter_map(|rest| rest.split('"').nth(1)) {
            for reason in part.split('|') {
                assert!(page.contains(&format!("reason=\"{reason}\"")), "{reason}: {page}");
                reasons += 1;
            }
        }
        assert!(reasons > 2);
    }
}

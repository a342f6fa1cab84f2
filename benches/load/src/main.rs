//! Drives a chat server with many clients from one thread, and checks that each of them receives every
//! message exactly once, intact, and all in the same order. Prints one JSON object.
//!
//! load PROTOCOL ADDRESS TOKEN-FILE CLIENTS MODE RATE SECONDS BYTES [CGROUP]
//!
//! PROTOCOL: papaya, line, tls, irc, irc-tls (RFC 2812; the token's file has the password; a client is not
//! sent its own words, so the order is compared speaker by speaker). MODE: rate (RATE messages a second, whoever's turn it is), window (two
//! speak, each with RATE messages under way), flood (all speak as fast as is taken, RATE under way
//! each), idle (joins, waits for a line on standard input, and leaves). CGROUP: the server's directory
//! below /sys/fs/cgroup/{cpuacct,memory}.

mod cipher;
mod client;
mod measure;

use std::io::BufRead;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::{Client, Joined};
use measure::{Cgroup, Latencies, own_cpu};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use serde_json::json;

/// So many join at once where there are more than a thousand.
const JOINERS: usize = 4;
/// After the last message was sent, the others may take this long to come.
const PATIENCE: Duration = Duration::from_secs(30);

struct Plan {
    mode: String,
    rate: f64,
    seconds: f64,
    padding: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, address, token, clients, mode, rate, seconds, bytes, rest @ ..] = &arguments[..]
    else {
        eprintln!("load: see the head of its source");
        return ExitCode::from(64);
    };
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let count = number(clients) as usize;
    let plan = Plan {
        mode: mode.clone(),
        rate: number(rate),
        seconds: number(seconds),
        padding: "x".repeat((number(bytes) as usize).saturating_sub(10)),
    };
    let group = Cgroup::new(rest.first().map(String::as_str));
    let before = group.cpu();
    let empty = group.memory();
    let began = Instant::now();
    let Joined { client, ticket } = Client::join(protocol, address, token, 0, None);
    let mut clients = Crowd(vec![client]);
    group.settle();
    let first = group.cpu() - before;
    let joiners = if count > 1000 { JOINERS } else { 1 };
    let join = |joiner: usize| {
        let mut joined = Crowd(Vec::new());
        for number in (1 + joiner..count).step_by(joiners) {
            joined.0.push(Client::join(protocol, address, token, number, ticket.as_deref()).client);
        }
        joined
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..joiners).map(|j| scope.spawn(move || join(j))).collect();
        for thread in threads {
            clients.0.append(&mut thread.join().expect("all join").0);
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    group.settle();
    let joined = group.cpu();
    let full = group.memory();
    let mut result = json!({
        "protocol": protocol, "clients": count, "mode": mode, "rate": plan.rate, "bytes": number(bytes),
        "first_join_ms": first / 1e6,
        "join_seconds": seconds,
        "join_ms": (joined - before - first) / 1e6 / (count.max(2) - 1) as f64,
        "memory_kb_per_client": (full - empty) / 1024.0 / count as f64,
    });
    if plan.mode == "idle" {
        println!("{result}");
        let _ = std::io::stdin().lock().lines().next();
        return ExitCode::SUCCESS;
    }
    let Some(run) = talk(&mut clients.0, &plan, &group) else { return ExitCode::FAILURE };
    for (key, value) in run.as_object().expect("an object") {
        result[key] = value.clone();
    }
    println!("{result}");
    ExitCode::SUCCESS
}

/// Clients that leave a few at a time, whatever happens: see docs/admin.md, "Many clients".
struct Crowd(Vec<Client>);

impl Drop for Crowd {
    fn drop(&mut self) {
        while !self.0.is_empty() {
            self.0.truncate(self.0.len().saturating_sub(32));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Sends by the plan and receives; `None` after a message was lost, doubled, changed or out of order.
fn talk(clients: &mut [Client], plan: &Plan, group: &Cgroup) -> Option<serde_json::Value> {
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    for (index, client) in clients.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
        epoll.add(client.as_fd(), event).expect("epoll_ctl");
    }
    let count = clients.len();
    // Who hears a message.
    let hearers = if clients[0].hears_itself() { count } else { count - 1 };
    let speakers = if plan.mode == "window" { count.min(2) } else { count };
    let (mut sent, mut under_way) = (Vec::<Instant>::new(), vec![0usize; count]);
    let mut latencies = Latencies::default();
    let mut events = vec![EpollEvent::empty(); 512];
    let (start, cpu, own) = (Instant::now(), group.cpu(), own_cpu());
    let end = start + Duration::from_secs_f64(plan.seconds);
    let mut last = start;
    loop {
        let now = Instant::now();
        if now < end {
            let say = |clients: &mut [Client], by: usize, sent: &mut Vec<Instant>| {
                clients[by].say(sent.len(), by, &plan.padding);
                sent.push(Instant::now());
            };
            if plan.mode == "rate" {
                let due = ((now - start).as_secs_f64() * plan.rate) as usize;
                while sent.len() < due {
                    let by = sent.len() % speakers;
                    say(clients, by, &mut sent);
                }
            } else {
                for (by, under_way) in under_way.iter_mut().enumerate().take(speakers) {
                    while *under_way < plan.rate as usize {
                        say(clients, by, &mut sent);
                        *under_way += 1;
                    }
                }
            }
        }
        clients.iter_mut().for_each(Client::flush);
        let received: usize = clients.iter().map(Client::received).sum();
        if now >= end && received == sent.len() * hearers {
            break;
        }
        if now >= end.max(last) + PATIENCE {
            eprintln!(
                "load: {} of {} deliveries never came",
                sent.len() * hearers - received,
                sent.len() * hearers
            );
            return None;
        }
        let ready = epoll.wait(&mut events, 1u8).expect("epoll_wait");
        for event in &events[..ready] {
            let index = event.data() as usize;
            let arrived = Instant::now();
            last = arrived;
            let heard = clients[index].hear(&plan.padding, |number, by| {
                // Whoever does not hear itself is told by its neighbour.
                let teller = if hearers == count { by } else { (by + 1) % count };
                if index == teller {
                    under_way[by] = under_way[by].saturating_sub(1);
                }
                // Of a flood only some: the list shall not become the load.
                if plan.mode == "rate" || number % 64 == 0 {
                    latencies.add(arrived - sent[number]);
                }
            });
            if let Err(problem) = heard {
                eprintln!("load: client {index}: {problem}");
                return None;
            }
        }
    }
    let took = start.elapsed().as_secs_f64();
    if let Some(other) = clients.iter().position(|c| c.order() != clients[0].order()) {
        eprintln!("load: client {other} received the messages in another order than client 0");
        return None;
    }
    let deliveries = (sent.len() * hearers) as f64;
    Some(json!({
        "messages": sent.len(), "deliveries": deliveries, "seconds": took,
        "deliveries_per_second": deliveries / took,
        "cpu_us_per_delivery": (group.cpu() - cpu) / 1e3 / deliveries,
        "cpu_percent": (group.cpu() - cpu) / 1e7 / took,
        "load_cpu_percent": (own_cpu() - own) / 1e7 / took,
        "p50_ms": latencies.quantile(0.5), "p99_ms": latencies.quantile(0.99),
        "p999_ms": latencies.quantile(0.999), "max_ms": latencies.quantile(1.0),
    }))
}

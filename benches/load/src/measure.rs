//! What a server's control group used, and how long messages took.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Processor time of the load generator itself, in nanoseconds: near all of a core, it is what is measured.
pub fn own_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 * 1e3
}

/// The server's control groups (version 1: cpuacct and memory).
pub struct Cgroup(Option<String>);

impl Cgroup {
    pub fn new(name: Option<&str>) -> Self {
        Self(name.map(str::to_owned))
    }

    fn read(&self, controller: &str, file: &str) -> f64 {
        let Some(name) = &self.0 else { return 0.0 };
        let path = format!("/sys/fs/cgroup/{controller}/{name}/{file}");
        let text = fs::read_to_string(path).expect("the server's control group");
        text.trim().parse().expect("a number")
    }

    /// Processor time in nanoseconds.
    pub fn cpu(&self) -> f64 {
        self.read("cpuacct", "cpuacct.usage")
    }

    /// Memory in bytes, the kernel's for the group included, what files have in the page cache not; 0 where
    /// that is not accounted for.
    pub fn memory(&self) -> f64 {
        let Some(name) = &self.0 else { return 0.0 };
        let path = format!("/sys/fs/cgroup/memory/{name}/memory.stat");
        let Ok(stat) = fs::read_to_string(path) else { return 0.0 };
        let cache: f64 = stat
            .lines()
            .filter_map(|line| line.strip_prefix("total_cache "))
            .filter_map(|value| value.parse::<f64>().ok())
            .sum();
        self.read("memory", "memory.usage_in_bytes") - cache
    }

    /// Waits until the server has done what it was at: it uses next to nothing for a while.
    pub fn settle(&self) {
        let mut last = self.cpu();
        for _ in 0..100 {
            sleep(Duration::from_millis(200));
            let now = self.cpu();
            if now - last < 4e5 {
                return;
            }
            last = now;
        }
    }
}

/// Times from sending to hearing, in microseconds.
#[derive(Default)]
pub struct Latencies(Vec<u32>, bool);

impl Latencies {
    pub fn add(&mut self, took: Duration) {
        self.0.push(took.as_micros().try_into().unwrap_or(u32::MAX));
        self.1 = false;
    }

    /// In milliseconds.
    pub fn quantile(&mut self, part: f64) -> f64 {
        if !self.1 {
            self.0.sort_unstable();
            self.1 = true;
        }
        let at = ((self.0.len() as f64 * part) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(0.0, |us| f64::from(*us) / 1e3)
    }
}

//! Doctor: what the kernel tells of a process under `/proc`; pure parsers and their reading.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// One process as it is.
#[derive(Debug)]
pub struct Process {
    /// `/proc/PID/status`, by key.
    pub(super) status: HashMap<String, String>,
    /// `/proc/PID/limits`: name, soft and hard limit; `None` is unlimited.
    pub limits: Vec<(String, Option<u64>, Option<u64>)>,
    /// Its parent, process group and session.
    pub family: (i32, i32, i32),
    /// What ps(1) shows.
    pub title: String,
    /// Whose the files in its `/proc` directory are: root's where it cannot be traced.
    pub owner: u32,
    /// Its open descriptors.
    pub descriptors: io::Result<Vec<Open>>,
}

/// An open descriptor.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its number.
    pub number: i32,
    /// What it leads to, in the kernel's words (`socket:[4711]`).
    pub link: String,
    /// How it is open: the flags of open(2).
    pub flags: i32,
    /// Device and inode.
    pub file: Option<(u64, u64)>,
}

impl Process {
    /// Looks at a process.
    pub fn read(pid: i32) -> io::Result<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let text = |name: &str| {
            fs::read(directory.join(name)).map(|t| String::from_utf8_lossy(&t).into_owned())
        };
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "its /proc files are odd");
        Ok(Self {
            status: status(&text("status")?),
            limits: limits(&text("limits")?),
            family: family(&text("stat")?).ok_or_else(odd)?,
            title: text("cmdline")?.trim_end_matches('\0').replace('\0', " "),
            owner: fs::metadata(directory.join("status"))?.uid(),
            descriptors: descriptors(&directory),
        })
    }

    /// A line of its status; empty where this kernel has no such line.
    pub fn status(&self, key: &str) -> &str {
        self.status.get(key).map_or("", String::as_str)
    }

    /// How many seccomp filters it has; `None` where the kernel does not tell.
    pub fn filters(&self) -> Option<usize> {
        self.status("Seccomp_filters").parse().ok()
    }
}

pub(super) fn status(text: &str) -> HashMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// The name may have blanks in it, so it ends where two follow each other.
pub(super) fn limits(text: &str) -> Vec<(String, Option<u64>, Option<u64>)> {
    let line = |line: &str| {
        let (name, rest) = line.split_once("  ")?;
        let mut values = rest.split_ascii_whitespace();
        let (soft, hard) = (values.next()?.parse().ok(), values.next()?.parse().ok());
        Some((name.to_owned(), soft, hard))
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Parent, group and session: behind the command, which may contain anything.
fn family(stat: &str) -> Option<(i32, i32, i32)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(1);
    let mut next = || fields.next()?.parse().ok();
    Some((next()?, next()?, next()?))
}

fn descriptors(directory: &std::path::Path) -> io::Result<Vec<Open>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory.join("fd"))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let info = directory.join(format!("fdinfo/{number}"));
        // One that was closed meanwhile is none.
        let (Ok(link), Ok(info)) = (fs::read_link(entry.path()), fs::read_to_string(info)) else {
            continue;
        };
        let link = link.to_string_lossy().into_owned();
        let file = fs::metadata(entry.path()).ok().map(|found| (found.dev(), found.ino()));
        all.push(Open { number, link, flags: flags(&info).unwrap_or(-1), file });
    }
    all.sort_by_key(|open| open.number);
    Ok(all)
}

fn flags(fdinfo: &str) -> Option<i32> {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(line.trim(), 8).ok()
}

/// Every process with its parent.
pub fn parents() -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok()));
    let with_parent = |pid: i32| {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        family(&String::from_utf8_lossy(&stat)).map(|(parent, ..)| (pid, parent))
    };
    pids.filter_map(with_parent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max core file size        0                    unlimited            bytes     \n\
                    Max processes             5                    6                    processes \n";
        let expected = [
            ("Max core file size".to_owned(), Some(0), None),
            ("Max processes".to_owned(), Some(5), Some(6)),
        ];
        assert_eq!(limits(text), expected);
        assert_eq!(family("7 (a) b) (c) S 1 2 3 0 -1"), Some((1, 2, 3)));
        assert_eq!(family("7 no"), None);
        assert_eq!(status("Uid:\t1\t1\nGroups:\t \n")["Uid"], "1\t1");
        assert_eq!(flags("pos:\t0\nflags:\t02102001\nmnt_id:\t15\n"), Some(0o2_102_001));
    }
}

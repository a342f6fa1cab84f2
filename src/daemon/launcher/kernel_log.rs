//! The launcher's view of the kernel's log, where the kernel says which call a filter killed for.
//!
//! Opened as root and read without it: what was in it before is skipped, and nothing in it is
//! believed beyond the records that [`Violation`] knows. Where it may not be opened (a container,
//! `ProtectKernelLogs=`) or an audit daemon takes the records, the call is not told.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;

use crate::confine::violation::Violation;

const PATH: &str = "/dev/kmsg";
/// The pid namespace that the log's numbers are of: the first one, whose inode is fixed
/// (`PID_NS_INIT_INO` in linux/nsfs.h). In another one a process has another number, and may have
/// that of a stranger.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";
/// More than any record has: the kernel gives one a read, and none to a smaller buffer.
const RECORD_MAX: usize = 16 << 10;
/// Records taken at a time; others wait in the kernel.
const ROUND: usize = 256;

/// The log, from the place where it was opened.
pub struct KernelLog<L = File> {
    log: L,
}

impl KernelLog {
    /// Opens it at its end.
    pub fn open() -> io::Result<Self> {
        if std::fs::read_link("/proc/self/ns/pid")?.as_os_str() != FIRST_NAMESPACE {
            return Err(io::Error::other("process ids are a container's, and not the log's"));
        }
        let mut log = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(PATH)?;
        log.seek(SeekFrom::End(0))?;
        Ok(Self { log })
    }

    /// To wait for more.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.log.as_fd()
    }
}

impl<L: Read> KernelLog<L> {
    /// What came since the last time, as far as one look goes. Never waits.
    pub fn violations(&mut self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut record = vec![0; RECORD_MAX];
        for _ in 0..ROUND {
            match self.log.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    found.extend(Violation::parse(&String::from_utf8_lossy(&record[..length])));
                }
                // Records were overwritten before they were read; the next read gives what is there.
                Err(e) if e.raw_os_error() == Some(Errno::EPIPE as i32) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives each of these as a read's result, then says that there is no more now.
    struct Records(Vec<Result<Vec<u8>, Errno>>);

    impl Read for Records {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(Errno::EAGAIN.into());
            }
            let record = self.0.remove(0)?;
            buffer[..record.len()].copy_from_slice(&record);
            Ok(record.len())
        }
    }

    fn record(pid: u32) -> Result<Vec<u8>, Errno> {
        Ok(format!("5,1,2,-;audit: type=1326 audit(1.0:5): pid={pid} arch=c000003e syscall=41\n")
            .into_bytes())
    }

    fn pids(records: Vec<Result<Vec<u8>, Errno>>) -> Vec<i32> {
        let mut log = KernelLog { log: Records(records) };
        log.violations().iter().map(|violation| violation.pid).collect()
    }

    #[test]
    fn overwritten_foreign_and_hostile_records_are_passed_over() {
        let found = pids(vec![
            record(1),
            Err(Errno::EPIPE),
            Ok(b"6,2,3,-;usb 1-1: new device\n SUBSYSTEM=usb\n".to_vec()),
            Ok(vec![0xff; 300]),
            Ok(b"type=1326 audit(\0 pid=9".to_vec()),
            Err(Errno::EINTR),
            record(2),
        ]);
        assert_eq!(found, [1, 2]);
    }

    #[test]
    fn one_look_is_bounded_whatever_there_is() {
        assert_eq!(pids((0..2000).map(record).collect()).len(), ROUND);
        assert!(pids(vec![Err(Errno::EPIPE); 2000]).is_empty());
    }

    #[test]
    fn a_log_that_cannot_be_read_any_more_tells_nothing() {
        assert!(pids(vec![Err(Errno::EPERM), record(1)]).is_empty());
    }
}

//! The processes of the daemon, one file a process.

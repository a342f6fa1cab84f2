//! The only unsafe code: what the operating system offers and no crate wraps safely.
//!
//! Called by the daemon's roles; every block names the condition it relies on.
#![allow(unsafe_code)]

pub mod allocator;
pub mod append_only;
#[cfg(target_os = "freebsd")]
pub mod confine_freebsd;
#[cfg(target_os = "linux")]
pub mod confine_linux;
#[cfg(target_os = "linux")]
pub mod disarmed;
pub mod fd;
pub mod memory;
pub mod process;
pub mod signal;
pub mod title;

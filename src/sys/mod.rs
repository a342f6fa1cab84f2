//! The only unsafe code: what the operating system offers and no crate wraps.
#![allow(unsafe_code)]

#[cfg(target_os = "freebsd")]
pub mod confine_freebsd;
#[cfg(target_os = "linux")]
pub mod confine_linux;
pub mod memory;

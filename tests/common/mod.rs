//! What several tests need.
#![allow(dead_code, clippy::unwrap_used)] // each test uses its own part

pub mod fake_server;

//! The only unsafe code: what the operating system offers and no crate wraps.
#![allow(unsafe_code)]

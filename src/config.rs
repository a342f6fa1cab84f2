//! The configuration file. Pure.

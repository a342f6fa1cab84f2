//! What a process gives up: one interface, one backend per operating system.

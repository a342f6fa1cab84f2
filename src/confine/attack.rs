//! The list of what a confined process must not be able to do.

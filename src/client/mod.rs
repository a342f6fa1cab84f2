//! The commands of `papaya`, one file a command.

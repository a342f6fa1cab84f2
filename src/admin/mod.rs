//! The commands of `papayad`, one file a command.

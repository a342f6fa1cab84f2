//! The sandbox level of everything that the tests confine: `full`, or what `PAPAYA_TEST_LEVEL` says.
#![allow(dead_code)] // Each test uses its part.

use papayachat::confine::{Context, Level};

/// The level to be reached, no more and no less. Panics where the variable names none, so that a
/// test that passes with such a name confines nothing.
pub fn level() -> Level {
    match std::env::var_os("PAPAYA_TEST_LEVEL") {
        None => Level::Full,
        Some(name) => match name.to_string_lossy().parse() {
            Ok(level) => level,
            Err(error) => panic!("PAPAYA_TEST_LEVEL: {name:?} is {error}"),
        },
    }
}

/// A context for exactly this level.
pub fn exactly(level: Level) -> Context<'static> {
    let mut context = Context::new(level);
    context.ceiling = level;
    context
}

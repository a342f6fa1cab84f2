//! A stand-in for `client::display`, with the same names and less insight: nothing that drives a
//! terminal passes.

use std::borrow::Cow;

/// `text` with control and direction characters escaped.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_treacherous) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| match is_treacherous(c) {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// As [`visible`], but line ends stay, with `indent` blanks behind each.
pub(super) fn visible_lines(text: &str, indent: usize) -> String {
    let lines: Vec<_> = text.split('\n').map(visible).collect();
    lines.join(&format!("\n{:indent$}", ""))
}

/// As [`visible`] for a line of valid JSON, which stays the same value: what is treacherous can
/// only stand in a string.
pub(super) fn visible_json(json: &str) -> String {
    let escape = |c: char| match is_treacherous(c) {
        true => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        false => c.to_string(),
    };
    json.chars().map(escape).collect()
}

fn is_treacherous(c: char) -> bool {
    let direction = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}');
    c.is_control() || direction || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

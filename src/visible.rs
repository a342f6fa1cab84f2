//! The one filter for everything that a terminal, or a log that ends on one, is shown: a message
//! must not move the cursor, set the title, hide text or reverse it. Pure.

use std::borrow::Cow;
use std::fmt::Write;

/// Makes everything visible that a terminal would obey or hide: control characters as `^[`,
/// invisible and direction-changing ones as `\u{202e}`. A tab becomes four spaces.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    let mut previous = ' ';
    for c in text.chars() {
        match c {
            '\t' => shown.push_str("    "),
            '\0'..='\x1f' => shown.extend(['^', char::from(c as u8 + 64)]),
            '\x7f' => shown.push_str("^?"),
            c if is_treacherous(c, previous) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
        previous = c;
    }
    Cow::Owned(shown)
}

/// As [`visible`], but a line feed begins a new line, indented by `indent` spaces, so that the
/// text of a message can never look like the beginning of another one.
pub fn visible_lines(text: &str, indent: usize) -> String {
    let mut shown = String::with_capacity(text.len() + 8);
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            shown.push('\n');
            shown.extend(std::iter::repeat_n(' ', indent));
        }
        shown.push_str(&visible(line.strip_suffix('\r').unwrap_or(line)));
    }
    shown
}

/// As [`visible`] for a line of valid JSON, which stays the same value: what is treacherous can
/// only stand inside a string there, and becomes an escape sequence of JSON.
pub fn visible_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len() + 32);
    for c in json.chars() {
        // Control characters are not valid inside a JSON string, so this one is white space.
        if c < ' ' {
            shown.push(' ');
        } else if c == '\x7f' || is_treacherous(c, 'x') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// C1 controls; characters that change the direction of text, break lines, or show nothing. The
/// two joiners are needed by several scripts and by emoji, so they pass behind such characters.
fn is_treacherous(c: char, previous: char) -> bool {
    match c {
        '\u{200c}' | '\u{200d}' => previous.is_ascii(),
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless(shown: &str) -> bool {
        !shown.chars().any(|c| c.is_control() || is_treacherous(c, 'x'))
    }

    #[test]
    fn attacks_on_a_terminal_are_shown_instead_of_obeyed() {
        for (attack, shown) in [
            ("\x1b[2J\x1b[H", "^[[2J^[[H"),
            ("\x1b]0;title\x07", "^[]0;title^G"),
            ("\x1b]52;c;cm0gLXJm\x1b\\", "^[]52;c;cm0gLXJm^[\\"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{90}q\u{9c}", "\\u{90}q\\u{9c}"),
            ("safe\rEVIL", "safe^MEVIL"),
            ("a\x08\x08b", "a^H^Hb"),
            ("a\0b\x7f", "a^@b^?"),
            ("abc\u{202e}fdp.exe", "abc\\u{202e}fdp.exe"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("a\u{200d}b", "a\\u{200d}b"),
            ("a\u{2028}b\u{2029}c", "a\\u{2028}b\\u{2029}c"),
            ("\u{e0041}", "\\u{e0041}"),
            ("x\ny", "x^Jy"),
            ("\tx", "    x"),
        ] {
            assert_eq!(visible(attack), shown, "{attack:?}");
            assert!(harmless(&visible(attack)));
        }
    }

    #[test]
    fn no_character_at_all_gets_through_that_a_terminal_obeys() {
        for c in '\0'..=char::MAX {
            let shown = visible_lines(&format!("a{c}b"), 6).replace('\n', "");
            assert!(harmless(&shown), "{:?}", c);
        }
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in
            ["plain", "äöü ß", "日本語", "👩\u{200d}💻", "می\u{200c}خواهم", "e\u{301}", "😀"]
        {
            assert_eq!(visible(text), text);
        }
        assert!(matches!(visible("plain ascii"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_line_feed_cannot_forge_another_message() {
        let shown = visible_lines("hi\n22:24 bob: I quit\r\nend", 6);
        assert_eq!(shown, "hi\n      22:24 bob: I quit\n      end");
    }

    #[test]
    fn json_stays_the_same_value() {
        let json = "{\"text\":\"a\u{202e}b\u{7f}\u{9b}\u{e0041} ä\",\t\"n\":1\r}";
        let shown = visible_json(json);
        assert!(harmless(&shown), "{shown}");
        let value = |s: &str| serde_json::from_str::<serde_json::Value>(s).unwrap();
        assert_eq!(value(&shown), value(json));
    }
}

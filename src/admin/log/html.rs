//! The log as one HTML page for a browser: nothing is loaded, nothing is executed, and whatever
//! somebody wrote is text. Readable without its style, and by a screen reader. Pure.

use std::fmt::Write;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::room::offset::Offset;
use crate::room::record::{Kind, Record};
use crate::visible::{visible, visible_lines};

/// Follows the reader's own choice of light or dark, and of a font size.
const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:1em/1.5 system-ui,sans-serif;max-width:50em;margin:auto;padding:1em}
h2{font-size:1em;margin:1.5em 0 .5em}
ul{list-style:none;margin:0;padding:0}
li{white-space:pre-wrap;overflow-wrap:anywhere}
.said{unicode-bidi:isolate}
time{opacity:.75;font-variant-numeric:tabular-nums}
.presence{font-style:italic}
";

/// Spaces before a further line of a text, so that it cannot look like another record.
const INDENT: usize = 4;

/// Turns records into the parts of a page; remembers the day, to say when it changes.
#[derive(Default)]
pub struct Page {
    day: Option<Date>,
}

impl Page {
    /// Everything before the first record.
    pub fn head(room: &str, floor: Offset) -> String {
        let room = escaped(&visible(room));
        let gone = match floor {
            Offset(0) => String::new(),
            floor => format!("<p>What stood before offset {floor} was removed.</p>\n"),
        };
        // Even if a browser found a script here, it was told not to run it.
        format!(
            "<!DOCTYPE html>\n<html lang=\"und\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
             form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <title>{room}: the log</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <h1 lang=\"en\">The log of {room}</h1>\n<p lang=\"en\">Times are in UTC.</p>\n{gone}"
        )
    }

    /// One record, and its day if that is a new one.
    pub fn record(&mut self, record: &Record, at: Offset) -> String {
        let mut html = String::new();
        let zoned = record.ts.to_zoned(TimeZone::UTC);
        let before = self.day.replace(zoned.date());
        if before != Some(zoned.date()) {
            html.push_str(if before.is_some() { "</ul>\n" } else { "" });
            let day = zoned.strftime("%A, %-d %B %Y");
            let _ = writeln!(html, "<h2 lang=\"en\">{day}</h2>\n<ul>");
        }
        let (from, said) = (escaped(&visible(&record.from)), said(record));
        let (class, what) = match &record.kind {
            Kind::Message => ("message", format!("<b>{from}</b>: {said}")),
            Kind::Notice => ("notice", format!("notice from <b>{from}</b>: {said}")),
            Kind::Join => ("presence", format!("<b>{from}</b> joined")),
            Kind::Leave => ("presence", format!("<b>{from}</b> left")),
            Kind::Pruned => ("presence", format!("<b>{from}</b> removed {said}")),
            Kind::Other(kind) => {
                ("other", format!("<b>{from}</b> ({}) {said}", escaped(&visible(kind))))
            }
        };
        let clock = zoned.strftime("%H:%M:%S");
        let ts = record.ts;
        let _ = writeln!(
            html,
            "<li id=\"o{at}\" class=\"{class}\"><time datetime=\"{ts:.3}\">{clock}</time> {what}</li>"
        );
        html
    }

    /// Everything behind the last record.
    pub fn tail(&self) -> String {
        let end = match self.day {
            Some(_) => "</ul>\n",
            None => "<p lang=\"en\">There are no records.</p>\n",
        };
        format!("{end}</main>\n</body>\n</html>\n")
    }
}

fn said(record: &Record) -> String {
    let text = record.text.as_deref().unwrap_or_default();
    format!("<span class=\"said\">{}</span>", escaped(&visible_lines(text, INDENT)))
}

/// Text that cannot become markup, in an element or in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &[&str] = &[
        "</span></li></ul><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "\"><svg/onload=alert(1)>",
        "' onmouseover='alert(1)",
        "]]><!--<style>*{display:none}</style>-->",
        "&lt;script&gt;&#60;script&#62;",
        "</title></style><base href=//evil>",
        "\u{202e}txet\u{2066}\u{9b}31m\u{0}",
    ];

    fn record(ts: &str, from: &str, kind: Kind, text: Option<&str>) -> Record {
        let text = text.map(str::to_owned);
        Record { ts: ts.parse().unwrap(), id: None, from: from.into(), kind, text }
    }

    /// The tags and the text of a page, read as a browser would where nothing is escaped wrongly.
    fn taken_apart(html: &str) -> (Vec<String>, String) {
        let (mut tags, mut text) = (Vec::new(), String::new());
        let mut rest = html;
        while let Some(open) = rest.find('<') {
            text.push_str(&rest[..open]);
            let close = open + rest[open..].find('>').unwrap();
            tags.push(rest[open + 1..close].to_owned());
            rest = &rest[close + 1..];
        }
        text.push_str(rest);
        assert!(!text.contains('>'), "{text}");
        for (escape, meant) in
            [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
        {
            text = text.replace(escape, meant);
        }
        (tags, text)
    }

    #[test]
    fn hostile_text_stays_text_wherever_it_stands() {
        for hostile in HOSTILE {
            for kind in [
                Kind::Message,
                Kind::Notice,
                Kind::Join,
                Kind::Leave,
                Kind::Pruned,
                Kind::Other((*hostile).to_owned()),
            ] {
                let page = |from: &str, text: &str, room: &str| {
                    let mut page = Page::default();
                    let record = record("2026-11-22T22:23:01Z", from, kind.clone(), Some(text));
                    let record = page.record(&record, Offset(7));
                    Page::head(room, Offset(0)) + &record + &page.tail()
                };
                let kind_name = matches!(kind, Kind::Other(_));
                let harmless = page("a", "b", "c");
                let (attacked, shown) = taken_apart(&page(hostile, hostile, hostile));
                if !kind_name {
                    assert_eq!(attacked, taken_apart(&harmless).0, "{hostile:?} became markup");
                }
                assert!(!attacked.iter().any(|tag| tag.contains("alert") || tag.contains("evil")));
                assert!(shown.contains(&*visible(hostile)), "{hostile:?} is not shown: {shown}");
                let hides =
                    |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}".contains(c);
                assert!(!shown.contains(hides), "{shown:?}");
            }
        }
    }

    #[test]
    fn a_page_is_whole_whatever_is_in_it() {
        let mut page = Page::default();
        let mut html = Page::head("lobby", Offset(42));
        for (n, ts) in ["2026-11-21T23:59:59Z", "2026-11-22T00:00:00Z", "2026-11-22T00:00:01.5Z"]
            .iter()
            .enumerate()
        {
            let record = record(ts, "alice", Kind::Message, Some("one\n  two"));
            html += &page.record(&record, Offset(n as u64));
        }
        html += &page.tail();
        let (tags, text) = taken_apart(&html);
        let mut open: Vec<&str> = Vec::new();
        for tag in &tags {
            let name = tag.split(' ').next().unwrap();
            match name.strip_prefix('/') {
                Some(end) => assert_eq!(open.pop(), Some(end), "{html}"),
                None if ["meta", "!DOCTYPE"].contains(&name) => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert_eq!(tags.iter().filter(|tag| tag.starts_with("h2")).count(), 2, "{html}");
        assert!(text.contains("one\n      two"), "{text}");
        assert!(text.contains("Saturday, 21 November 2026"), "{text}");
        assert!(text.contains("before offset 42"), "{text}");
        assert!(html.contains("<time datetime=\"2026-11-22T00:00:01.500Z\">00:00:01</time>"));
        // Nothing is loaded from anywhere.
        assert!(!html.contains("://") && !html.contains("src=") && !html.contains("<script"));
        let (_, text) = taken_apart(&(Page::head("x", Offset(0)) + &Page::default().tail()));
        assert!(text.contains("no records"), "{text}");
    }
}

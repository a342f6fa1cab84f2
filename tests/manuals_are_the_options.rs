//! Promise: manual pages and completions say what the programs do: they are made of the one definition
//! of the options, of the sample configuration, and of docs/PROTOCOL.md. After a change,
//! `PAPAYA_WRITE=1 cargo test --test manuals_are_the_options` makes them anew.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// What stands first in every page; the string is what clap_mangen writes for an apostrophe.
const NOTE: &str = ".\\\" Made by tests/manuals_are_the_options.rs; see there.\n\
                    .ie \\n(.g .ds Aq \\(aq\n\
                    .el .ds Aq '\n\
                    .ad l\n";
/// When the pages were last looked through.
const DATE: &str = "2026-11-27";

fn programs() -> [Command; 2] {
    [papayachat::admin::command(), papayachat::client::command()]
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn source(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// Compares a file with what it should be, or makes it so.
fn is(name: &str, wanted: &str) {
    if std::env::var_os("PAPAYA_WRITE").is_some() {
        fs::write(path(name), wanted).unwrap();
    }
    let found = fs::read_to_string(path(name)).unwrap_or_default();
    let differs = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        found == wanted,
        "{name} is stale from line {} on; make it anew with\n\
         PAPAYA_WRITE=1 cargo test --test manuals_are_the_options",
        differs.map_or(found.lines().count().min(wanted.lines().count()), |at| at) + 1,
    );
}

#[test]
fn the_programs_pages_have_all_their_commands() {
    for (mut program, section) in programs().into_iter().zip(["8", "1"]) {
        program.build();
        let name = program.get_name().to_owned();
        let mut commands = String::new();
        of_command(&program, &mut commands);
        let text = source(&format!("docs/man/{name}.{section}.md"));
        let page = page(&name, section, &text).replace(".\\\" commands\n", &commands);
        assert!(page.contains(&commands) && commands.contains(&format!(".SS {name}")));
        is(&format!("docs/man/{name}.{section}"), &page);
    }
}

#[test]
fn the_configurations_page_is_the_sample() {
    let text = source("docs/man/papayad.toml.5.md");
    let page = page("papayad.toml", "5", &text).replace(".\\\" keys\n", &keys());
    assert!(page.contains(".B clients"));
    is("docs/man/papayad.toml.5", &page);
}

#[test]
fn the_protocols_page_is_the_specification() {
    let text = source("docs/PROTOCOL.md");
    let (_, text) = text.split_once('\n').unwrap();
    let head = "# NAME\n\npapayachat-protocol - what a client and papayad say to each other\n\n\
                # DESCRIPTION\n\n";
    is(
        "docs/man/papayachat-protocol.7",
        &page("papayachat-protocol", "7", &(head.to_owned() + text)),
    );
}

#[test]
fn the_completions_know_every_option() {
    for mut program in programs() {
        let name = program.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program, &name, &mut script);
            let file = match shell {
                Shell::Bash => format!("{name}.bash"),
                Shell::Zsh => format!("_{name}"),
                _ => format!("{name}.fish"),
            };
            is(&format!("packaging/completions/{file}"), &String::from_utf8(script).unwrap());
        }
    }
}

/// A command's synopsis, what it does, and its options; and those of the commands below it.
fn of_command(command: &Command, out: &mut String) {
    for below in command.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
        if below.has_subcommands() {
            of_command(below, out);
            continue;
        }
        // Every command has it.
        let below = below.clone().mut_args(|a| if a.get_id() == "help" { a.hide(true) } else { a });
        let man = Man::new(below.clone());
        let mut text = Vec::new();
        let title = below.get_bin_name().unwrap_or_else(|| below.get_name());
        *out += &format!(".SS {}\n", escaped(title));
        man.render_synopsis_section(&mut text).unwrap();
        text.extend(b".PP\n");
        man.render_description_section(&mut text).unwrap();
        if below.get_arguments().next().is_some() {
            man.render_options_section(&mut text).unwrap();
        }
        let text = String::from_utf8(text).unwrap();
        // Without the headings, and the preamble of each part.
        let drop = |line: &&str| {
            ![".SH", ".ie", ".el"].iter().any(|start| line.starts_with(start)) && !line.is_empty()
        };
        for line in text.lines().filter(drop) {
            if line != ".br" || !out.ends_with(".br\n") {
                *out += &format!("{line}\n");
            }
        }
    }
}

/// The keys of the sample configuration: a heading a section, and what it says of each key.
fn keys() -> String {
    let (mut out, mut said) = (String::new(), String::new());
    for line in source("packaging/papayad.toml").lines() {
        if let Some(section) = line.strip_prefix('[') {
            out += &format!(".SS [{}]\n", escaped(section.trim_end_matches(']')));
            said.clear();
        } else if let Some((key, value)) =
            line.strip_prefix('#').filter(|l| !l.starts_with(' ')).and_then(|l| l.split_once(" = "))
        {
            let (key, value) = (escaped(key), escaped(value));
            out += &format!(".TP\n.B {key}\n{said}Default: {value}\n");
            said.clear();
        } else if let Some(words) = line.strip_prefix("# ") {
            said += &format!("{}\n", line_of(words));
        } else {
            said.clear();
        }
    }
    out
}

/// A page from Markdown: headings, paragraphs, lists, tables, examples.
fn page(name: &str, section: &str, markdown: &str) -> String {
    let title = name.to_uppercase();
    let mut out = format!(
        "{NOTE}.TH {title} {section} {DATE} \"papayachat {}\"\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut words = String::new();
    let (mut head, mut lists) = (Vec::<String>::new(), Vec::<Option<u64>>::new());
    let (mut cells, mut in_head, mut code) = (Vec::<String>::new(), false, false);
    let flush = |words: &mut String, out: &mut String| {
        for line in words.lines() {
            *out += &format!("{}\n", line.trim_start());
        }
        words.clear();
    };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                let depth = level as u8;
                let is_part = depth == 1;
                out += if is_part { ".SH " } else { ".SS " };
            }
            Event::End(TagEnd::Heading(_)) => flush(&mut words, &mut out),
            Event::Start(Tag::Paragraph) if lists.is_empty() => apart(&mut out),
            Event::Start(Tag::Item) => {
                flush(&mut words, &mut out);
                out += ".IP \\(bu 2\n";
            }
            Event::Start(Tag::List(start)) => {
                flush(&mut words, &mut out);
                lists.push(start);
            }
            Event::End(TagEnd::List(_)) => {
                lists.pop();
            }
            Event::End(TagEnd::Paragraph | TagEnd::Item) => flush(&mut words, &mut out),
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented)) => {
                code = true;
                apart(&mut out);
                out += ".RS 4\n.nf\n";
            }
            Event::End(TagEnd::CodeBlock) => {
                code = false;
                out += ".fi\n.RE\n";
            }
            Event::Text(text) if code => {
                text.lines().for_each(|line| out += &format!("{}\n", line_of(line)));
            }
            Event::Text(text) => words += &line_of(&text),
            Event::Code(text) => words += &format!("\\fB{}\\fR", escaped(&text)),
            Event::SoftBreak | Event::HardBreak => words.push('\n'),
            Event::Start(Tag::Emphasis) => words += "\\fI",
            Event::Start(Tag::Strong) => words += "\\fB",
            Event::End(TagEnd::Emphasis | TagEnd::Strong) => words += "\\fR",
            Event::Start(Tag::TableHead) => in_head = true,
            Event::End(TagEnd::TableHead) => {
                (in_head, head) = (false, std::mem::take(&mut cells));
            }
            Event::End(TagEnd::TableCell) => cells.push(std::mem::take(&mut words)),
            // The first cell is a heading, the others follow it with what stands over them.
            Event::End(TagEnd::TableRow) => {
                assert!(!in_head);
                out += &format!(".TP\n{}\n", cells[0]);
                let others = cells.iter().zip(&head).skip(1).filter(|(cell, _)| !cell.is_empty());
                let others = others.map(|(cell, over)| match cells.len() {
                    2 => cell.clone(),
                    _ => format!("{over}: {cell}"),
                });
                let others: Vec<_> = others.collect();
                out += &format!("{}\n", others.join(". "));
                cells.clear();
            }
            Event::Html(text) if text.starts_with("<!-- ") => {
                let name = text.trim().trim_start_matches("<!-- ").trim_end_matches(" -->");
                out += &format!(".\\\" {name}\n");
            }
            _ => {}
        }
    }
    out
}

/// A paragraph begins; after a heading it does by itself.
fn apart(out: &mut String) {
    if !out.lines().next_back().unwrap_or_default().starts_with(".S") {
        *out += ".PP\n";
    }
}

/// Text in roff: no character of it is a request or an escape.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\u{2026}', "...")
}

/// The same for the beginning of a line.
fn line_of(text: &str) -> String {
    let text = escaped(text);
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

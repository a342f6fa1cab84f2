//! `papayad sandbox show` and `test`: the policy of each role, and the attacks on it.
//!
//! Needs no configuration and no running service: what `show` prints stands in `confine::policy`,
//! and is what this program enforces; `test` tries it out in processes of its own.

mod markdown;
mod trial;

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::confine::policy::{self, Descriptor, Limits, Row};
use crate::confine::{Level, Role};
use crate::exit::{Exit, Failure, written};

/// What to do with the policies.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Print the policy: system calls, descriptors, limits, and why
    Show {
        /// This role alone: launcher, keeper, listener, recv, recv-joined or send
        #[arg(long)]
        role: Option<Role>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// All roles as the document docs/confinement.md
        #[arg(long, hide = true, conflicts_with_all = ["role", "json"])]
        markdown: bool,
    },
    /// Attack the policy, in processes confined like the service's; exits 77 unless all is refused
    Test {
        /// This role alone: launcher, keeper, listener, recv, recv-joined or send
        #[arg(long)]
        role: Option<Role>,
        /// Confined no more than this, to see what a weaker kernel leaves open: full, landlock-6,
        /// landlock-2 or seccomp
        #[arg(long, default_value_t = Level::Full)]
        level: Level,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// One attack, in this process
    #[command(hide = true)]
    Attack {
        /// The role to be confined as
        role: Role,
        /// The attack's name
        name: String,
        /// The level to be confined at, which must be reached
        level: Level,
    },
}

/// Runs `papayad sandbox`.
///
/// # Errors
/// The output cannot be written.
pub fn run(action: &Action) -> Result<Exit, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match action {
        Action::Show { role, json, markdown } => {
            let shown = if *markdown {
                markdown::print(&mut out)
            } else {
                roles(*role).try_for_each(|role| show(&mut out, role, *json))
            };
            written(shown.and_then(|()| out.flush()))?;
            Ok(Exit::Ok)
        }
        Action::Test { role, level, json } => trial::run(&mut out, roles(*role), *level, *json),
        Action::Attack { role, name, level } => trial::attack(*role, name, *level),
    }
}

fn roles(only: Option<Role>) -> impl Iterator<Item = Role> {
    Role::ALL.into_iter().filter(move |role| only.is_none_or(|wanted| wanted == *role))
}

fn show(out: &mut dyn Write, role: Role, as_json: bool) -> io::Result<()> {
    let (rows, descriptors, limits) =
        (policy::table(role), policy::descriptors(role), policy::limits(role));
    if as_json {
        return show_json(out, role, &rows, descriptors, limits);
    }
    writeln!(out, "{role}: {}", about(role))?;
    writeln!(
        out,
        "\n  descriptors{}",
        if descriptors.is_empty() { ": it makes them all" } else { "" }
    )?;
    for entry in descriptors {
        writeln!(out, "    {:<8} {:<34} {}", numbers(entry), entry.what, rights(entry))?;
    }
    writeln!(out, "\n  limits")?;
    for (name, value) in named(limits) {
        let value = value.map_or("as it was started".to_owned(), |value| value.to_string());
        writeln!(out, "    {name:<22} {value}")?;
    }
    show_calls(out, &rows)
}

fn show_calls(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    if cfg!(not(target_os = "linux")) {
        return writeln!(out, "\n  capability mode: nothing outside the descriptors is in reach\n");
    }
    writeln!(out, "\n  system calls; any other call, or with other arguments, kills the process")?;
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0).min(48);
    let (file, call) = (width(|row| row.file.len()), width(|row| row.subject.len()));
    let condition = width(|row| row.condition.len());
    for row in rows {
        let Row { file: place, subject, condition: when, answer, why, rare } = row;
        let rare = rare.map(|why| format!("; no test uses it: {why}")).unwrap_or_default();
        writeln!(
            out,
            "    {place:<file$}  {subject:<call$}  {when:<condition$}  {answer:<6}  {why}{rare}"
        )?;
    }
    writeln!(out)
}

fn show_json(
    out: &mut dyn Write,
    role: Role,
    rows: &[Row],
    descriptors: &[Descriptor],
    limits: Limits,
) -> io::Result<()> {
    let mut line = |part: &str, value: Value| writeln!(out, "{}", with(role, part, value));
    for entry in descriptors {
        line("descriptor", json!(entry))?;
    }
    line("limits", json!(limits))?;
    rows.iter().try_for_each(|row| line("rule", json!(row)))
}

/// An object with the role, and which part of its policy it is, in front.
fn with(role: Role, part: &str, value: Value) -> Value {
    let mut object = json!({ "role": role, "part": part });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), value) {
        object.extend(more);
    }
    object
}

/// What a role is, for people.
const fn about(role: Role) -> &'static str {
    match role {
        Role::Launcher => "the supervisor; its filter also holds for all that it starts",
        Role::Keeper => "host key, tokens, and the log's directory",
        Role::Listener => "accepts connections and hands them on",
        Role::Recv => "one client's voice, before its token was accepted",
        Role::RecvJoined => "one client's voice, with the log",
        Role::Send => "one client's ear",
    }
}

fn numbers(entry: &Descriptor) -> String {
    if entry.first == entry.last {
        entry.first.to_string()
    } else {
        format!("{}..={}", entry.first, entry.last)
    }
}

fn rights(entry: &Descriptor) -> String {
    let names = entry.rights.iter().map(|right| format!("{right:?}").to_uppercase());
    names.collect::<Vec<_>>().join(" ")
}

/// The limits with names for people; `None`: as it was started.
fn named(limits: Limits) -> [(&'static str, Option<u64>); 5] {
    [
        ("core file bytes", Some(0)),
        ("descriptors", limits.descriptors),
        ("file bytes", limits.file_bytes),
        ("data bytes", limits.data_bytes),
        ("further processes", (!limits.processes).then_some(0)),
    ]
}

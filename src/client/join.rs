//! `papaya join`: the room in a terminal, line by line in its own scrollback. The line that is
//! being typed stays whole while messages arrive: an input thread owns the line editor, and
//! everything is printed through it. Without a terminal it reads and writes plain lines.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor, ExternalPrinter};

use super::access::{Access, parse_server};
use super::display::Transcript;
use super::outbox::Manner;
use super::output::{Output, UNCERTAIN, colours, pruned_words, stdout_failure};
use super::session::{Happening, Options, Session, Step};
use super::stdin::{Input, Line};
use crate::exit::{Exit, Failure};
use crate::token::Token;
use crate::visible::visible;
use crate::wire::command::Start;

/// How long leaving waits for the last messages to be acknowledged.
const LAST_WORDS: Duration = Duration::from_secs(10);
const HELP: &[&str] = &[
    "type a line to say it; /notice TEXT announces (operators); /quit or Ctrl-D leaves",
    "a line that begins with // is said with one / less",
];

/// The arguments of `join`.
#[derive(Args, Debug)]
pub struct Join {
    /// The profile to use; not needed with --server, or when there is only one
    profile: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    options: JoinOptions,
}

/// How to join.
#[derive(Args, Clone, Debug)]
pub struct JoinOptions {
    /// Show this many messages from before
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub history: u32,
    /// One JSON object a line instead of a conversation: the record, and its offset
    #[arg(long)]
    pub json: bool,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self { history: 20, json: false }
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever ends the session.
pub fn command(join: &Join) -> Result<(), Failure> {
    let (server, token) = join.access.open(join.profile.as_deref())?;
    run(&server.to_string(), token, &join.options)
}

/// Joins the room of `server` (`HOST:PORT`) in this terminal, until the person leaves.
///
/// # Errors
/// Whatever ends the session.
pub fn run(server: &str, token: Token, options: &JoinOptions) -> Result<(), Failure> {
    let start = Start::History(options.history);
    let options_of_session = Options { start, ..Options::default() };
    let session = Session::connect(parse_server(server)?, token, options_of_session)?;
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && !options.json;
    // A terminal that the editor cannot handle (TERM=dumb) gets plain lines, too.
    match terminal.then(Terminal::open).flatten() {
        Some(terminal) => Conversation::new(session, terminal).hold(),
        None => Conversation::new(session, Plain::open(options.json)?).hold(),
    }
}

/// Where a conversation comes from and goes to.
trait Console {
    /// What to wait for, unless the input has ended.
    fn wake(&self) -> Option<BorrowedFd<'_>>;
    /// Takes in what is there; called when `wake` can be read.
    fn fill(&mut self) -> Result<(), Failure>;
    /// The next line, if one is there.
    fn next(&mut self) -> Option<Line>;
    /// Whether the input has ended and every line was given.
    fn ended(&self) -> bool;
    fn show(&mut self, happening: &Happening) -> Result<(), Failure>;
    fn notice(&mut self, text: &str) -> Result<(), Failure>;
    fn flush(&mut self) -> Result<(), Failure>;
}

struct Conversation<C> {
    session: Session,
    console: C,
    leaving: bool,
}

impl<C: Console> Conversation<C> {
    fn new(session: Session, console: C) -> Self {
        Self { session, console, leaving: false }
    }

    fn hold(mut self) -> Result<(), Failure> {
        let talked = self.talk().and_then(|()| self.finish());
        let flushed = self.console.flush();
        let open = self.session.unacknowledged().len();
        for pending in self.session.unacknowledged().iter() {
            let _ = self.console.notice(&format!("not acknowledged: {}", pending.text));
        }
        talked.and(flushed)?;
        let server = self.session.server().clone();
        self.session.leave();
        match open {
            0 => Ok(()),
            n => Err(Failure::new(
                Exit::Unavailable,
                format!("{n} messages were not acknowledged by {server}"),
            )),
        }
    }

    /// Until the person leaves.
    fn talk(&mut self) -> Result<(), Failure> {
        loop {
            while self.session.has_room()
                && !self.leaving
                && let Some(line) = self.console.next()
            {
                self.use_line(line)?;
            }
            if self.leaving || (self.console.ended() && self.session.has_room()) {
                return Ok(());
            }
            if let Some(happening) = self.session.take() {
                self.tell(&happening)?;
                continue;
            }
            self.console.flush()?;
            let wake = self.console.wake().filter(|_| self.session.has_room());
            match self.session.step(wake, None)? {
                Step::Happened(happening) => self.tell(&happening)?,
                Step::Woken => self.console.fill()?,
                Step::TimedOut => {}
            }
        }
    }

    /// Until the last words are in the log (and what was asked for is shown, when the input was
    /// short), or for as long as one may reasonably wait.
    fn finish(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + LAST_WORDS;
        while !self.session.unacknowledged().is_empty() || !self.session.is_caught_up() {
            match self.session.step(None, Some(until))? {
                Step::Happened(happening) => self.tell(&happening)?,
                Step::Woken => {}
                Step::TimedOut => break,
            }
        }
        while let Some(happening) = self.session.take() {
            self.tell(&happening)?;
        }
        Ok(())
    }

    fn use_line(&mut self, line: Line) -> Result<(), Failure> {
        let text = match line {
            Line::Text(text) => text,
            Line::NotUtf8 => return self.console.notice("not sent: this line is not UTF-8"),
            Line::TooLong => return self.console.notice("not sent: this line is too long"),
        };
        let trimmed = text.trim();
        match trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, "")) {
            ("", _) => Ok(()),
            ("/quit", _) => {
                self.leaving = true;
                Ok(())
            }
            ("/help", _) => HELP.iter().try_for_each(|line| self.console.notice(line)),
            ("/notice", text) => self.say(Manner::Notice, text.trim()),
            (word, _) if word.starts_with("//") => self.say(Manner::Say, &trimmed[1..]),
            (word, _) if word.starts_with('/') && word.len() > 1 => {
                let problem = format!("there is no command {word}; /help lists them");
                self.console.notice(&problem)
            }
            _ => self.say(Manner::Say, &text),
        }
    }

    fn say(&mut self, manner: Manner, text: &str) -> Result<(), Failure> {
        match self.session.say(manner, text.to_owned()) {
            Ok(_) => Ok(()),
            Err(error) => self.console.notice(&format!("not sent: {error}")),
        }
    }

    fn tell(&mut self, happening: &Happening) -> Result<(), Failure> {
        match happening {
            Happening::Line { .. } => self.console.show(happening),
            Happening::Joined { again: false } => self.greet(),
            Happening::Joined { again: true } => self.console.notice("connected again"),
            Happening::Lost { why, failed: 0, .. } => self.console.notice(&format!(
                "the connection is lost: {why}; trying again, and what you type is sent then"
            )),
            // A sign of life now and then, but not a line for each attempt of a long night.
            Happening::Lost { why, failed, .. } if *failed >= 4 && failed.is_power_of_two() => {
                self.console.notice(&format!("still no connection: {why}"))
            }
            Happening::Rejected { pending, message, .. } => {
                let text = &pending.text;
                self.console.notice(&format!("not stored: {message}: {text}"))
            }
            Happening::Pruned { from, to } => self.console.notice(&pruned_words(*from, *to)),
            Happening::Uncertain { pending } => {
                self.console.notice(&format!("{UNCERTAIN}: {}", pending.text))
            }
            Happening::Stalled { message } => self.console.notice(&format!(
                "the server cannot store messages now: {message}; it is tried again"
            )),
            _ => Ok(()),
        }
    }

    fn greet(&mut self) -> Result<(), Failure> {
        let welcome = self.session.welcome();
        let (room, name, role) = (&welcome.room, &welcome.name, &welcome.role);
        let greeting = format!("connected to {room} as {name} ({role}); /help lists the commands");
        let motd = welcome.motd.clone();
        self.console.notice(&greeting)?;
        motd.lines().try_for_each(|line| self.console.notice(line))
    }
}

/// Plain lines in both directions.
struct Plain {
    input: Input<File>,
    output: Output,
}

/// The longest plain line that is taken in, in bytes; the room's own limit is checked later.
const PLAIN_LINE: usize = 128 * 1024;

impl Plain {
    fn open(json: bool) -> Result<Self, Failure> {
        let input = Input::stdin(PLAIN_LINE)
            .map_err(|e| Failure::new(Exit::Unavailable, format!("cannot read from stdin: {e}")))?;
        Ok(Self { input, output: Output::new(json) })
    }
}

impl Console for Plain {
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        (!self.input.ended()).then(|| self.input.as_fd())
    }

    fn fill(&mut self) -> Result<(), Failure> {
        self.input
            .fill()
            .map_err(|e| Failure::new(Exit::Unavailable, format!("cannot read from stdin: {e}")))
    }

    fn next(&mut self) -> Option<Line> {
        self.input.next_line()
    }

    fn ended(&self) -> bool {
        self.input.ended()
    }

    fn show(&mut self, happening: &Happening) -> Result<(), Failure> {
        match happening {
            Happening::Line { offset, line, record } => self.output.record(*offset, line, record),
            _ => Ok(()),
        }
    }

    fn notice(&mut self, text: &str) -> Result<(), Failure> {
        self.output.notice(text)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.output.flush()
    }
}

/// The line editor in its own thread, and a printer that leaves the typed line alone.
struct Terminal {
    transcript: Transcript,
    printer: Box<dyn ExternalPrinter + Send>,
    lines: Receiver<Option<String>>,
    wake: UnixStream,
    waiting: Option<String>,
    ended: bool,
    thread: Option<JoinHandle<()>>,
    before: Option<Termios>,
}

impl Terminal {
    fn open() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok();
        // Escape sequences of a paste are understood, so that many lines are one message.
        let config = Config::builder().auto_add_history(true).build();
        let mut editor: Editor<(), MemHistory> =
            Editor::with_history(config, MemHistory::new()).ok()?;
        let printer = editor.create_external_printer().ok()?;
        let (wake, bell) = UnixStream::pair().ok()?;
        wake.set_nonblocking(true).ok()?;
        let (sender, lines) = channel();
        let thread = std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read_lines(editor, &sender, bell))
            .ok()?;
        Some(Self {
            transcript: Transcript::new(colours()),
            printer: Box::new(printer),
            lines,
            wake,
            waiting: None,
            ended: false,
            thread: Some(thread),
            before,
        })
    }

    fn print(&mut self, lines: String) -> Result<(), Failure> {
        // Once the editor is gone, so is its printer.
        if !self.ended && self.printer.print(lines.clone()).is_ok() {
            return Ok(());
        }
        io::stdout().write_all(lines.as_bytes()).map_err(|e| stdout_failure(&e))
    }
}

/// The input thread: lines from the editor, until the person leaves.
fn read_lines(
    mut editor: Editor<(), MemHistory>,
    lines: &Sender<Option<String>>,
    mut bell: UnixStream,
) {
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => Some(line),
            Err(ReadlineError::Signal(_)) => continue,
            Err(_) => None,
        };
        // Stops here instead of prompting once more, so that the terminal is left in peace.
        let last = line.as_deref().is_none_or(is_last);
        if lines.send(line).is_err() || bell.write_all(b"l").is_err() || last {
            return;
        }
    }
}

fn is_last(line: &str) -> bool {
    line.trim() == "/quit"
}

impl Console for Terminal {
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended).then(|| self.wake.as_fd())
    }

    fn fill(&mut self) -> Result<(), Failure> {
        // One byte a line: what is not taken now wakes us again.
        match self.wake.read(&mut [0; 1]) {
            Ok(1) => match self.lines.try_recv() {
                Ok(Some(line)) => {
                    self.ended = is_last(&line);
                    self.waiting = Some(line);
                }
                _ => self.ended = true,
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            _ => self.ended = true,
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Line> {
        self.waiting.take().map(Line::Text)
    }

    fn ended(&self) -> bool {
        self.ended
    }

    fn show(&mut self, happening: &Happening) -> Result<(), Failure> {
        match happening {
            Happening::Line { record, .. } => {
                let lines = self.transcript.lines(record);
                self.print(lines)
            }
            _ => Ok(()),
        }
    }

    fn notice(&mut self, text: &str) -> Result<(), Failure> {
        self.print(format!("-- {}\n", visible(text)))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let left = self.thread.take().is_none_or(|thread| {
            let done = thread.is_finished() || self.ended;
            if done {
                let _ = thread.join();
            }
            done
        });
        if left {
            return;
        }
        // The editor still waits for a line that will never be used: give the terminal back as it
        // was, with bracketed paste off and the prompt gone.
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
        let _ = io::stdout().write_all(b"\x1b[?2004l\r\x1b[K");
        let _ = io::stdout().flush();
    }
}

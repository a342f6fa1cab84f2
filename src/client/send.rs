//! `papaya send`: one message from the command line, or one a line from stdin. It ends with 0 only
//! when every one of them is in the room's log.

use std::fs::File;
use std::time::{Duration, Instant};

use clap::Args;

use super::access::Access;
use super::outbox::Manner;
use super::output::{UNCERTAIN, complain};
use super::session::{Happening, Options, Session, Step};
use super::stdin::{Input, Line};
use crate::exit::{Exit, Failure};

/// No line is longer than this, in bytes, whatever the server says that its room allows.
const LONGEST_LINE: usize = 1024 * 1024;

/// The arguments of `send`.
#[derive(Args, Debug)]
pub struct Send {
    #[command(flatten)]
    access: Access,
    /// Give up when nothing was acknowledged for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Without --server the profile first; then the text, or one message a line from stdin
    #[arg(value_name = "[PROFILE] TEXT")]
    words: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Whatever ends the session, or messages that the room does not take.
pub fn run(send: &Send) -> Result<(), Failure> {
    let (profile, words) = match (&send.access.server, send.words.split_first()) {
        (None, Some((profile, words))) => (Some(profile.as_str()), words),
        _ => (None, send.words.as_slice()),
    };
    let (server, token) = send.access.open(profile)?;
    let session = Session::connect(server, token, Options::default())?;
    let mut sender = Sender {
        patience: Duration::from_secs(send.timeout),
        progress: Instant::now(),
        refused: 0,
        session,
    };
    let result = if words.is_empty() {
        sender.send_stdin()
    } else {
        sender.say("the text", words.join(" "));
        sender.settle(None).map(|_| ())
    };
    sender.conclude(result)
}

struct Sender {
    session: Session,
    patience: Duration,
    /// When something was acknowledged, or there was nothing to wait for.
    progress: Instant,
    refused: u64,
}

impl Sender {
    fn send_stdin(&mut self) -> Result<(), Failure> {
        let unreadable =
            |e| Failure::new(Exit::Unavailable, format!("cannot read from stdin: {e}"));
        let limit = self.session.welcome().message_bytes as usize;
        let mut input = Input::stdin(limit.min(LONGEST_LINE)).map_err(unreadable)?;
        loop {
            while self.session.has_room()
                && let Some(line) = input.next_line()
            {
                self.say_line(input.number(), line);
            }
            if input.ended() && self.session.has_room() {
                return self.settle(None).map(|_| ());
            }
            if self.settle(Some(&input))? {
                input.fill().map_err(unreadable)?;
            }
        }
    }

    fn say_line(&mut self, number: u64, line: Line) {
        let source = format!("line {number}");
        match line {
            Line::Text(text) if text.is_empty() => {}
            Line::Text(text) => self.say(&source, text),
            Line::NotUtf8 => self.refuse(&source, "it is not UTF-8"),
            Line::TooLong => {
                let limit = self.session.welcome().message_bytes;
                self.refuse(&source, &format!("it has more than {limit} bytes"));
            }
        }
    }

    fn say(&mut self, source: &str, text: String) {
        if self.session.unacknowledged().is_empty() {
            self.progress = Instant::now();
        }
        if let Err(error) = self.session.say(Manner::Say, text) {
            self.refuse(source, &error.to_string());
        }
    }

    fn refuse(&mut self, source: &str, why: &str) {
        self.refused += 1;
        complain(&format!("{source} was not sent: {why}"));
    }

    /// Without `input`: until everything is acknowledged. With it: until it can be read, or there
    /// is room again for what was read already. Gives whether the input can be read.
    fn settle(&mut self, input: Option<&Input<File>>) -> Result<bool, Failure> {
        loop {
            let idle = self.session.unacknowledged().is_empty();
            if idle && input.is_none() {
                return Ok(false);
            }
            let room = self.session.has_room();
            let wake = input.filter(|input| room && !input.ended()).map(Input::as_fd);
            let until = (!idle).then(|| self.progress + self.patience);
            match self.session.step(wake, until)? {
                Step::Happened(happening) => self.note(happening),
                Step::Woken => return Ok(true),
                Step::TimedOut => return Err(self.timed_out()),
            }
            if input.is_some() && !room && self.session.has_room() {
                return Ok(false);
            }
        }
    }

    fn note(&mut self, happening: Happening) {
        match happening {
            Happening::Acknowledged { .. } => self.progress = Instant::now(),
            Happening::Rejected { pending, message, .. } => {
                self.progress = Instant::now();
                self.refuse(&format!("{:?}", pending.text), &message);
            }
            Happening::Uncertain { pending } => {
                self.progress = Instant::now();
                self.refuse(&format!("{:?}", pending.text), UNCERTAIN);
            }
            Happening::Stalled { message } => {
                complain(&format!("the server cannot store messages now: {message}; trying again"));
            }
            Happening::Lost { why, failed: 0, .. } => {
                complain(&format!("the connection is lost: {why}; trying again"));
            }
            Happening::Joined { again: true } => complain("connected again"),
            _ => {}
        }
    }

    fn timed_out(&self) -> Failure {
        let (server, seconds) = (self.session.server(), self.patience.as_secs());
        let problem = format!("{server} acknowledged nothing for {seconds} s");
        Failure::new(Exit::Unavailable, problem)
    }

    /// Says which messages have an open fate, and what the whole comes to.
    fn conclude(self, result: Result<(), Failure>) -> Result<(), Failure> {
        let open = self.session.unacknowledged().len();
        if open > 0 {
            complain(&format!("{open} messages were not acknowledged:"));
            for pending in self.session.unacknowledged().iter() {
                complain(&format!("  {}", pending.text));
            }
        }
        result?;
        self.session.leave();
        match self.refused {
            0 => Ok(()),
            n => Err(Failure::new(Exit::BadData, format!("{n} messages were not sent"))),
        }
    }
}

//! RECV before the token: hello, handshake, and the one line that carries the token.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::input::Input;
use super::{End, Recv, read_client, send_client};
use crate::daemon::channel::keeper_recv::{
    FromRecv, IssuedTicket, Proof, ToRecv, VERDICT_PATIENCE,
};
use crate::daemon::channel::{pack48, unpack48};
use crate::room::offset::Offset;
use crate::sys::signal;
use crate::token::{Name, Role};
use crate::wire::cipher::{Opener, Sealer};
use crate::wire::command::{Command, CommandError, Credential, Join, Start, max_line};
use crate::wire::event::{ByeReason, Event, Refusal};
use crate::wire::frame::{HEADER, TAG};
use crate::wire::handshake::{self, HELLO_LEN, HelloError, Status};

/// Where in a hello its version stands.
const VERSION_AT: usize = handshake::MAGIC.len();

/// A client whose token the keeper accepted, and what came with that.
pub(super) struct Guest {
    pub name: Name,
    pub role: Role,
    pub ticket: Box<IssuedTicket>,
    /// Where the log begins.
    pub floor: Offset,
    pub start: Start,
    pub input: Input,
    pub sealer: Sealer,
    /// Log (append), log (read), gate, gate for SEND, log (its last byte).
    pub files: [OwnedFd; 5],
}

impl Guest {
    /// Talks with a client until the keeper accepts its token, or it has to go.
    pub fn receive(recv: &mut Recv, deadline: Instant) -> Result<Self, End> {
        let hello = read_hello(recv, deadline)?;
        let (mut input, mut sealer) = shake(recv, &hello, deadline)?;
        let join = match read_join(recv, &mut input, deadline)? {
            Ok(join) => join,
            Err(problem) => {
                refuse(recv, &mut sealer, Refusal::BadJoin, problem.to_string());
                return Err(End::Garbage("its first line is no join"));
            }
        };
        let start = join.start;
        recv.ask_keeper(&request(&join))?;
        drop(join);
        let verdict_by = Instant::now() + VERDICT_PATIENCE;
        let (admitted, fds) = await_verdict(recv, &mut sealer, verdict_by)?;
        let files = <[OwnedFd; 5]>::try_from(fds).map_err(|_| End::Garbage("no descriptors"))?;
        let Admitted { name, role, ticket, floor } = admitted;
        Ok(Self { name, role, ticket, floor, start, input, sealer, files })
    }
}

fn read_hello(recv: &Recv, deadline: Instant) -> Result<[u8; 48], End> {
    let mut hello = [0u8; HELLO_LEN];
    let mut length = 0;
    while length < HELLO_LEN {
        let ready = recv.wait(Some(deadline))?;
        mind(recv)?;
        if ready.keeper {
            recv.hear_keeper()?; // Nothing is due from it: only its end matters.
        }
        if ready.client {
            length += read_client(&recv.client, &mut hello[length..])?.unwrap_or(0);
            // Another version's hello may be shorter: its number is answered as soon as it is there.
            let foreign = length > VERSION_AT && hello[VERSION_AT] != handshake::VERSION;
            if foreign || !handshake::hello_prefix_ok(&hello[..length]) {
                return Err(wrong_hello(recv, &hello, length));
            }
        }
    }
    handshake::parse_hello(&hello).map_err(|_| wrong_hello(recv, &hello, length))
}

/// Tells a client of another version which one is spoken here; others are not answered.
fn wrong_hello(recv: &Recv, hello: &[u8; HELLO_LEN], length: usize) -> End {
    if length > VERSION_AT && matches!(handshake::parse_hello(hello), Err(HelloError::Version(_))) {
        let _ = send_client(&recv.client, &[Status::Version as u8, handshake::VERSION]);
    }
    End::Garbage("what it sent first is no hello of this protocol")
}

fn shake(recv: &Recv, hello: &[u8; 48], deadline: Instant) -> Result<(Input, Sealer), End> {
    recv.ask_keeper(&FromRecv::Handshake(pack48(hello)))?;
    loop {
        let message = await_keeper(recv, deadline)?;
        match message.0 {
            ToRecv::Shaken { message, keys } => {
                let mut reply = [Status::Ok as u8; 49];
                reply[1..].copy_from_slice(&unpack48(&message));
                send_client(&recv.client, &reply)?;
                let line_max = max_line(recv.settings.message_bytes);
                let input = Input::new(Opener::new(keys.client_to_server), line_max);
                return Ok((input, Sealer::new(keys.server_to_client)));
            }
            ToRecv::NotShaken => {
                send_client(&recv.client, &[Status::Failed as u8])?;
                return Err(End::Garbage("it does not know this server's key"));
            }
            _ => {}
        }
    }
}

/// Reads the client's first line.
fn read_join(
    recv: &Recv,
    input: &mut Input,
    deadline: Instant,
) -> Result<Result<Box<Join>, CommandError>, End> {
    loop {
        while input.unseal().map_err(|_| End::Garbage("a frame is damaged"))? {}
        if let Some(line) = input.line().map_err(|_| End::Garbage("its first line is too long"))? {
            return Ok(match Command::parse(line) {
                Ok(Command::Join(join)) => Ok(Box::new(join)),
                Ok(_) => Err(CommandError::BadJoin("cmd")),
                Err(problem) => Err(problem),
            });
        }
        let ready = recv.wait(Some(deadline))?;
        mind(recv)?;
        if ready.keeper {
            recv.hear_keeper()?;
        }
        if ready.client
            && let Some(length) = read_client(&recv.client, input.space())?
        {
            input.filled(length);
        }
    }
}

fn request(join: &Join) -> FromRecv {
    let proof = match &join.credential {
        Credential::Secret(secret) => Proof::Secret(secret.0),
        Credential::Ticket(ticket) => Proof::Ticket(pack48(&ticket.0)),
    };
    FromRecv::Join { id: join.id.0, proof, session: join.session.0 }
}

struct Admitted {
    name: Name,
    role: Role,
    ticket: Box<IssuedTicket>,
    floor: Offset,
}

fn await_verdict(
    recv: &Recv,
    sealer: &mut Sealer,
    deadline: Instant,
) -> Result<(Admitted, Vec<OwnedFd>), End> {
    loop {
        let (message, fds) = await_keeper(recv, deadline)?;
        match message {
            ToRecv::Admitted { name, role, ticket, floor, .. } => {
                return Ok((Admitted { name, role, ticket, floor }, fds));
            }
            ToRecv::Refused { reason, message } => {
                refuse(recv, sealer, reason, message);
                return Err(End::Refused);
            }
            ToRecv::End { reason } => {
                say(recv, sealer, &bye(reason));
                return Err(End::Told);
            }
            _ => {}
        }
    }
}

/// Waits for the keeper; a client that leaves meanwhile ends it.
fn await_keeper(recv: &Recv, deadline: Instant) -> Result<(ToRecv, Vec<OwnedFd>), End> {
    loop {
        if let Some(got) = recv.hear_keeper()? {
            return Ok((got.message, got.fds));
        }
        recv.wait_keeper(deadline)?;
        mind(recv)?;
    }
}

/// SIGTERM before the token: nothing to tell, the client merely comes again.
fn mind(_recv: &Recv) -> Result<(), End> {
    if signal::take(Signal::SIGTERM) { Err(End::Told) } else { Ok(()) }
}

pub(super) fn refuse(recv: &Recv, sealer: &mut Sealer, reason: Refusal, message: String) {
    say(recv, sealer, &Event::Refused { reason, message });
}

/// Says one last thing; there is nobody else to say it before SEND exists.
fn say(recv: &Recv, sealer: &mut Sealer, event: &Event) {
    let text = event.encode_plaintext();
    let length = text.len();
    let mut frame = vec![0; HEADER + length + TAG];
    frame[HEADER..HEADER + length].copy_from_slice(&text);
    if let Ok(length) = sealer.seal(&mut frame, length) {
        let _ = send_client(&recv.client, &frame[..length]);
    }
}

/// The control line that ends a session for this reason.
pub(super) fn bye(reason: ByeReason) -> Event {
    let (retry, message) = match reason {
        ByeReason::Shutdown => (true, "the server is stopping; come back in a moment"),
        ByeReason::Kicked => (false, "the administrator ended this connection"),
        ByeReason::Revoked => (false, "the token was revoked"),
        ByeReason::Expired => (false, "the token's time is over"),
        ByeReason::Replaced => (false, "this session goes on in another connection"),
        ByeReason::Client => (false, "goodbye"),
        ByeReason::Lock => (true, "the connection held the log for too long"),
        ByeReason::Idle => (true, "nothing came from here for too long"),
        ByeReason::Protocol => (false, "what the client sent is not of this protocol"),
        ByeReason::Other => (true, "the connection is ended"),
    };
    Event::Bye { reason, retry, message: message.to_owned() }
}

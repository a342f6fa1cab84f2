//! The client's own messages between being written and being seen in the log. Pure. An echo with
//! the message's id is the acknowledgement; until then the message is kept, so that it can be sent
//! again on the next connection. Its size is bounded: that is the window of unacknowledged sends.

use std::collections::VecDeque;

use crate::wire::command::{Command, MessageId};

/// At most so many messages wait for their echo.
pub const MAX_MESSAGES: usize = 256;
/// At most so many bytes of text wait for their echo (one message may go beyond).
pub const MAX_BYTES: usize = 64 * 1024;

/// Whether a message is said or announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// An ordinary message.
    Say,
    /// A notice of an operator.
    Notice,
}

/// A message that was not acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub id: MessageId,
    /// Said or announced.
    pub manner: Manner,
    /// Its text.
    pub text: String,
    /// On this connection.
    sent: bool,
    /// On any connection, and no word came that it was not stored.
    tried: bool,
    /// It may be stored where nobody can read any more.
    doubtful: bool,
}

impl Pending {
    /// The command that sends it.
    pub fn command(&self) -> Command {
        let (id, text) = (self.id.clone(), self.text.clone());
        match self.manner {
            Manner::Say => Command::Say { id, text },
            Manner::Notice => Command::Notice { id, text },
        }
    }
}

/// All messages that were not acknowledged yet, oldest first.
#[derive(Debug, Default)]
pub struct Outbox {
    pending: VecDeque<Pending>,
    bytes: usize,
}

impl Outbox {
    /// Whether another message may be pushed now.
    pub fn has_room(&self) -> bool {
        self.pending.len() < MAX_MESSAGES && self.bytes < MAX_BYTES
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes a message over. The caller asks [`Self::has_room`] first.
    pub fn push(&mut self, id: MessageId, manner: Manner, text: String) {
        self.bytes += text.len();
        self.pending.push_back(Pending {
            id,
            manner,
            text,
            sent: false,
            tried: false,
            doubtful: false,
        });
    }

    /// The oldest message that was not sent on this connection; counts as sent from now on.
    pub fn next_to_send(&mut self) -> Option<&Pending> {
        let next = self.pending.iter_mut().find(|p| !p.sent)?;
        next.sent = true;
        next.tried = true;
        Some(next)
    }

    /// Whether messages were sent whose fate is open.
    pub fn is_in_flight(&self) -> bool {
        self.pending.iter().any(|p| p.sent)
    }

    /// The message with this id was seen in the log, or will never be: it waits no more.
    pub fn settle(&mut self, id: &str) -> Option<Pending> {
        let at = self.pending.iter().position(|p| p.id.as_str() == id)?;
        let done = self.pending.remove(at)?;
        self.bytes -= done.text.len();
        Some(done)
    }

    /// The server could not store the message with this id: send it again later. Gives whether
    /// there is one.
    pub fn send_again(&mut self, id: &str) -> bool {
        let found = self.pending.iter_mut().find(|p| p.id.as_str() == id);
        found.map(|p| (p.sent, p.tried, p.doubtful) = (false, false, false)).is_some()
    }

    /// A part of the log was removed unread: an echo may have been in it.
    pub fn part_removed(&mut self) {
        self.pending.iter_mut().for_each(|p| p.doubtful = p.tried);
    }

    /// Everything that was stored before has been read: what is still in doubt will never be
    /// settled. Sending it again could store it twice.
    pub fn take_doubtful(&mut self) -> Vec<Pending> {
        let (doubtful, rest) =
            std::mem::take(&mut self.pending).into_iter().partition(|p| p.doubtful);
        self.pending = rest;
        let doubtful: VecDeque<Pending> = doubtful;
        self.bytes -= doubtful.iter().map(|p| p.text.len()).sum::<usize>();
        doubtful.into()
    }

    /// The connection is gone: whatever will not be echoed has to be sent again.
    pub fn connection_lost(&mut self) {
        self.pending.iter_mut().for_each(|p| p.sent = false);
    }

    /// All waiting messages, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for i in 0..n {
            outbox.push(format!("m{i}").parse().unwrap(), Manner::Say, "text".into());
        }
        outbox
    }

    fn sent(outbox: &mut Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.next_to_send().map(|p| p.id.to_string())).collect()
    }

    #[test]
    fn each_message_is_sent_once_a_connection_and_kept_until_it_is_settled() {
        let mut outbox = filled(3);
        assert_eq!(sent(&mut outbox), ["m0", "m1", "m2"]);
        assert_eq!(sent(&mut outbox), [""; 0]);
        assert_eq!(outbox.settle("m1").unwrap().text, "text");
        assert_eq!(outbox.settle("m1"), None);
        outbox.connection_lost();
        assert!(!outbox.is_in_flight());
        assert_eq!(sent(&mut outbox), ["m0", "m2"]);
        assert!(outbox.is_in_flight());
        assert!(outbox.send_again("m0"));
        assert!(!outbox.send_again("m1"));
        assert_eq!(sent(&mut outbox), ["m0"]);
    }

    #[test]
    fn only_what_was_sent_is_in_doubt_when_a_part_of_the_log_was_removed() {
        let mut outbox = filled(3);
        sent(&mut outbox);
        outbox.push("m3".parse().unwrap(), Manner::Say, "text".into());
        assert!(outbox.send_again("m1"));
        outbox.connection_lost();
        outbox.part_removed();
        assert!(outbox.settle("m0").is_some());
        let doubtful: Vec<_> = outbox.take_doubtful().into_iter().map(|p| p.id).collect();
        assert_eq!(doubtful.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["m2"]);
        assert_eq!(sent(&mut outbox), ["m1", "m3"]);
        assert!(outbox.take_doubtful().is_empty());
    }

    #[test]
    fn the_window_is_bounded_in_messages_and_in_bytes() {
        assert!(filled(MAX_MESSAGES - 1).has_room());
        assert!(!filled(MAX_MESSAGES).has_room());
        let mut outbox = Outbox::default();
        outbox.push("a".parse().unwrap(), Manner::Say, "x".repeat(MAX_BYTES));
        assert!(!outbox.has_room());
        outbox.settle("a");
        assert!(outbox.has_room() && outbox.is_empty());
    }
}

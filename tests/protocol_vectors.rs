//! The test vectors of docs/PROTOCOL.md are what this code does. They are read out of the document
//! itself, so the document cannot go stale; when a vector is wrong, the failure prints the block
//! that belongs there.
#![allow(clippy::unwrap_used)]

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit, Nonce};
use papayachat::room::offset::Offset;
use papayachat::ticket::TicketKey;
use papayachat::token::{Role, Secret, ServerKey, Token, TokenId};
use papayachat::wire::cipher::{Opener, REKEY_EVERY, Sealer};
use papayachat::wire::command::{Command, Credential, Join, SessionId, Start};
use papayachat::wire::event::{Event, Welcome, log_header};
use papayachat::wire::frame::{HEADER, TAG};
use papayachat::wire::handshake::{NkInitiator, NkResponder, Responder, parse_hello, public_of};
use papayachat::wire::hex;

const DOCUMENT: &str = include_str!("../docs/PROTOCOL.md");
const LOG: &str =
    "{\"ts\":\"2026-11-22T22:23:01.123Z\",\"id\":\"m-1\",\"from\":\"alice\",\"text\":\"hello\"}\n";

/// The vectors as the document gives them, in order.
fn documented() -> Vec<(String, String)> {
    let block = DOCUMENT.split("```vectors\n").nth(1).unwrap().split("```").next().unwrap();
    let pair = |line: &str| line.split_once(" = ").map(|(a, b)| (a.to_owned(), b.to_owned()));
    block.lines().filter_map(pair).collect()
}

fn counting(from: u8) -> [u8; 32] {
    std::array::from_fn(|i| from.wrapping_add(i as u8))
}

fn sealed(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER + plaintext.len() + TAG];
    frame[HEADER..HEADER + plaintext.len()].copy_from_slice(plaintext);
    assert_eq!(sealer.seal(&mut frame, plaintext.len()).unwrap(), frame.len());
    frame
}

/// The same vectors as this code makes them.
fn computed() -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let mut add = |name, bytes: &[u8]| all.push((name, hex::encode(bytes).to_string()));

    let server_private = counting(0x20);
    let token = Token {
        server: ServerKey(public_of(&server_private).unwrap()),
        id: TokenId([0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7]),
        secret: Secret(counting(0xc0)),
    };
    add("server_private", &server_private);
    add("server_public", &token.server.0);
    add("token_id", &token.id.0);
    add("token_secret", &token.secret.0);
    add("token_text_ascii", token.encode().as_bytes());

    let (client_ephemeral, server_ephemeral) = (counting(0x40), counting(0x60));
    let (initiator, hello) =
        NkInitiator::start_with_fixed_ephemeral(&token.server, &client_ephemeral).unwrap();
    let responder = NkResponder::with_fixed_ephemeral(&server_private, &server_ephemeral);
    let (message2, keys) = responder.respond(&parse_hello(&hello).unwrap()).unwrap();
    assert_eq!(initiator.finish(&message2).unwrap(), keys);
    add("client_ephemeral_private", &client_ephemeral);
    add("server_ephemeral_private", &server_ephemeral);
    add("client_hello", &hello);
    add("server_reply", &[&[0][..], &message2].concat());
    add("key_client_to_server", &keys.client_to_server);
    add("key_server_to_client", &keys.server_to_client);

    let ticket = TicketKey::derive(&server_private).issue(token.id, "stored hash", 1_800_000_000);
    add("ticket", &ticket.0);

    let join = Command::Join(Join {
        id: token.id,
        credential: Credential::Secret(token.secret.clone()),
        session: SessionId(*b"0123456789abcdef"),
        start: Start::History(20),
        client: Some("papaya/0.1.0".into()),
    });
    let mut to_server = Sealer::new(keys.client_to_server);
    add("c2s_plaintext_0", join.encode().as_bytes());
    add("c2s_frame_0", &sealed(&mut to_server, join.encode().as_bytes()));

    let welcome = Event::Welcome(Box::new(Welcome {
        room: "lobby".into(),
        motd: String::new(),
        name: "alice".parse().unwrap(),
        role: Role::Member,
        from: Offset(0),
        end: Offset(LOG.len() as u64),
        message_bytes: 4096,
        ticket,
        ticket_expires: "2027-01-15T08:00:00Z".parse().unwrap(),
        server: "papayad/0.1.0".into(),
    }));
    let mut to_client = Sealer::new(keys.server_to_client);
    let control = welcome.encode_plaintext();
    add("s2c_plaintext_0", &control);
    add("s2c_frame_0", &sealed(&mut to_client, &control));
    let log = [&log_header(Offset(0))[..], LOG.as_bytes()].concat();
    add("s2c_plaintext_1", &log);
    add("s2c_frame_1", &sealed(&mut to_client, &log));

    for _ in 1..REKEY_EVERY {
        sealed(&mut to_server, b"x");
    }
    add("c2s_key_after_rekey", &rekey(&keys.client_to_server));
    add("c2s_plaintext_65536", b"{\"cmd\":\"bye\"}\n");
    add("c2s_frame_65536", &sealed(&mut to_server, b"{\"cmd\":\"bye\"}\n"));
    all
}

/// Noise's REKEY written out with the bare cipher, not with the code under test.
fn rekey(key: &[u8; 32]) -> [u8; 32] {
    let mut nonce = [0xff; 12];
    nonce[..4].fill(0);
    let mut next = [0; 32];
    let cipher = ChaCha20Poly1305::new(key.into());
    cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), &[], &mut next).unwrap();
    next
}

fn bytes(vectors: &[(String, String)], name: &str) -> Vec<u8> {
    let (_, text) = vectors.iter().find(|(n, _)| n == name).unwrap();
    let mut bytes = vec![0; text.len() / 2];
    hex::decode(text, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_documented_vectors_are_what_this_code_does() {
    let computed = computed();
    let block: Vec<_> = computed.iter().map(|(name, hex)| format!("{name} = {hex}")).collect();
    let block = block.join("\n");
    let documented: Vec<_> =
        documented().iter().map(|(name, hex)| format!("{name} = {hex}")).collect();
    let same = documented.join("\n") == block;
    assert!(same, "docs/PROTOCOL.md should have this block:\n```vectors\n{block}\n```");
}

#[test]
fn a_reader_of_the_document_can_open_its_frames() {
    let vectors = documented();
    let get = |name| bytes(&vectors, name);
    for (key, frame, plaintext) in [
        ("key_client_to_server", "c2s_frame_0", "c2s_plaintext_0"),
        ("key_server_to_client", "s2c_frame_0", "s2c_plaintext_0"),
    ] {
        let mut frame = get(frame);
        let mut opener = Opener::new(get(key).try_into().unwrap());
        let (header, ciphertext) = frame.split_at_mut(HEADER);
        let opened = opener.open([header[0], header[1]], ciphertext).unwrap();
        assert_eq!(opened, get(plaintext));
    }
    // The frame after the rekeying, with the bare cipher, from the document's words alone.
    let frame = get("c2s_frame_65536");
    let cipher = ChaCha20Poly1305::new_from_slice(&get("c2s_key_after_rekey")).unwrap();
    let nonce = [&[0; 4][..], &65536u64.to_le_bytes()].concat();
    let (header, rest) = frame.split_at(2);
    let (ciphertext, tag) = rest.split_at(rest.len() - 16);
    let mut plaintext = ciphertext.to_vec();
    let nonce = Nonce::from_slice(&nonce);
    cipher.decrypt_in_place_detached(nonce, header, &mut plaintext, tag.into()).unwrap();
    assert_eq!(plaintext, get("c2s_plaintext_65536"));
}

#[test]
fn every_word_on_the_wire_is_documented() {
    for word in [
        "join",
        "say",
        "notice",
        "ticket",
        "ping",
        "bye",
        "welcome",
        "refused",
        "rejected",
        "pong",
        "unknown",
        "wrong-secret",
        "expired",
        "revoked",
        "sessions",
        "bad-join",
        "offset",
        "internal",
        "too-long",
        "empty",
        "role",
        "storage",
        "bad-id",
        "bad-text",
        "bad-command",
        "shutdown",
        "kicked",
        "replaced",
        "client",
        "lock",
        "idle",
        "protocol",
        "leave",
    ] {
        assert!(DOCUMENT.contains(&format!("`{word}`")), "{word} is not explained");
    }
}

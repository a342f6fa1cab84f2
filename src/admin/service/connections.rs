//! How many bytes went over each client's connection: the kernel counts them anyway, and tells
//! them by sock_diag(7), as ss(8) asks. So no worker counts, and none can lie about it.
//!
//! Linux only; elsewhere, or where the kernel was built without it, nothing is known.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of one connection, as they are on the wire: encrypted, without TCP's own headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From the client.
    pub received: u64,
    /// To the client, and acknowledged by it.
    pub sent: u64,
}

/// The connections to these local ports, by the other end's address.
pub fn ask(ports: &[u16]) -> HashMap<SocketAddr, Bytes> {
    #[cfg_attr(not(target_os = "linux"), allow(unused_mut))]
    let mut found = HashMap::new();
    #[cfg(target_os = "linux")]
    for family in [libc::AF_INET, libc::AF_INET6] {
        // What the kernel does not tell is missing in the table.
        let _ = linux::dump(family as u8, |message| {
            found.extend(connection(message).filter(|(port, ..)| ports.contains(port)).map(rest));
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (ports, connection, rest);
    found
}

fn rest((_, address, bytes): (u16, SocketAddr, Bytes)) -> (SocketAddr, Bytes) {
    (address, bytes)
}

/// The length of `struct inet_diag_msg` (linux/inet_diag.h).
const FIXED: usize = 72;
/// The attribute with `struct tcp_info` (INET_DIAG_INFO).
const INFO: u16 = 2;
/// Where in it (linux/tcp.h) the numbers are: tcpi_bytes_acked, tcpi_bytes_received.
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;

/// Local port, the other end's address, and the bytes, from one answer.
fn connection(message: &[u8]) -> Option<(u16, SocketAddr, Bytes)> {
    let port = |at: usize| Some(u16::from_be_bytes(bytes(message, at)?));
    let address = match i32::from(*message.first()?) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(bytes::<4>(message, 24)?)),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(bytes::<16>(message, 24)?)),
        _ => return None,
    };
    let info = attribute(message.get(FIXED..)?, INFO)?;
    let number = |at: usize| Some(u64::from_ne_bytes(bytes(info, at)?));
    let bytes = Bytes { received: number(BYTES_RECEIVED)?, sent: number(BYTES_ACKED)? };
    Some((port(4)?, SocketAddr::new(address.to_canonical(), port(6)?), bytes))
}

/// The contents of the first attribute of this kind (rtnetlink(7)).
fn attribute(mut list: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes(list, 0)?));
        let contents = list.get(4..length)?;
        if u16::from_ne_bytes(bytes(list, 2)?) == kind {
            return Some(contents);
        }
        list = list.get(length.next_multiple_of(4)..)?;
    }
}

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::AsRawFd;

    use nix::errno::Errno;
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt,
    };
    use nix::sys::time::TimeVal;

    use super::{INFO, bytes};

    /// The length of `struct nlmsghdr` (netlink(7)).
    const HEADER: usize = 16;
    /// SOCK_DIAG_BY_FAMILY.
    const BY_FAMILY: u16 = 20;
    /// The states in which a client may be served: ESTABLISHED, and half closed.
    const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8;
    /// How long the kernel may take.
    const SECONDS: i64 = 2;

    /// Asks for all TCP connections of a family; gives each answer without its header.
    pub fn dump(family: u8, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(SECONDS, 0))?;
        send(socket.as_raw_fd(), &request(family), MsgFlags::empty())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if !messages(&buffer[..length], &mut each) {
                return Ok(());
            }
        }
    }

    /// A header, and `struct inet_diag_req_v2`.
    fn request(family: u8) -> Vec<u8> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        let info = 1u8 << (INFO - 1);
        let mut request = Vec::with_capacity(72);
        request.extend(72u32.to_ne_bytes());
        request.extend(BY_FAMILY.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        request.extend([0; 8]);
        request.extend([family, libc::IPPROTO_TCP as u8, info, 0]);
        request.extend(STATES.to_ne_bytes());
        request.resize(72, 0);
        request
    }

    /// Splits what one read gave; whether more follows.
    pub fn messages(mut buffer: &[u8], each: &mut impl FnMut(&[u8])) -> bool {
        while let Some(length) = bytes(buffer, 0).map(u32::from_ne_bytes) {
            let kind = bytes(buffer, 4).map(u16::from_ne_bytes);
            let length = length as usize;
            match buffer.get(HEADER..length) {
                Some(message) if kind == Some(BY_FAMILY) => each(message),
                // The end, or an error.
                _ => return false,
            }
            buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        true
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_counts_both_ways_also_on_a_dual_stack_socket() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[2; 300]).unwrap();
        client.read_exact(&mut [0; 300]).unwrap();
        let address = client.local_addr().unwrap();
        // The other end acknowledges within a moment.
        loop {
            let found = ask(&[port]);
            assert_eq!(found.len(), 1, "{found:?}");
            let bytes = found[&address];
            assert_eq!(bytes.received, 1000);
            if bytes.sent == 300 {
                break;
            }
        }
        assert!(!ask(&[port.wrapping_add(1)]).contains_key(&address));
    }

    #[test]
    fn no_answer_makes_it_panic() {
        let mut seed = 1u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        for length in (0..400).cycle().take(20_000) {
            let mut message: Vec<u8> = (0..length).map(|_| random()).collect();
            if let Some(first) = message.first_mut() {
                *first = [libc::AF_INET as u8, libc::AF_INET6 as u8, *first][length % 3];
            }
            if let Some(length) = message.get_mut(72..76) {
                length.copy_from_slice(&[random(), 0, 2, 0]);
            }
            let _ = connection(&message);
            linux::messages(&message, &mut |m| {
                let _ = connection(m);
            });
        }
    }
}

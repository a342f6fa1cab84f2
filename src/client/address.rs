//! Where a server is: `HOST`, `HOST:PORT`, `ADDRESS` or `[ADDRESS]:PORT`. Parsing is pure;
//! [`ServerAddress::resolve`] asks the system's resolver.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// The port of a room, unless another one is named.
pub const DEFAULT_PORT: u16 = 7722;

/// A host name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    host: String,
    port: u16,
}

/// Why a text is not a server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a server: write HOST, HOST:PORT, or [IPv6]:PORT (the port is {DEFAULT_PORT} when it is left out)",
            self.0
        )
    }
}

impl std::error::Error for AddressError {}

impl ServerAddress {
    /// Every socket address the name stands for, in the resolver's order.
    ///
    /// # Errors
    /// What the resolver says, in its words.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if found.is_empty() {
            return Err(std::io::Error::other("the name has no address"));
        }
        Ok(found)
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).ok_or_else(|| AddressError(text.to_owned()))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse(text: &str) -> Option<ServerAddress> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if rest.is_empty() => DEFAULT_PORT,
            None => return None,
        };
        return is_ipv6(host).then(|| ServerAddress { host: host.to_owned(), port });
    }
    if is_ipv6(text) {
        return Some(ServerAddress { host: text.to_owned(), port: DEFAULT_PORT });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (text, DEFAULT_PORT),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_name = !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed);
    is_name.then(|| ServerAddress { host: host.to_owned(), port })
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

/// An IPv6 address, with or without a zone (`fe80::1%eth0`).
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
    let zone_ok = zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    matches!(address.parse(), Ok(IpAddr::V6(_))) && zone_ok && !zone.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_form_is_understood() {
        for (text, shown) in [
            ("chat.example.org", "chat.example.org:7722"),
            ("chat.example.org:80", "chat.example.org:80"),
            ("192.0.2.1", "192.0.2.1:7722"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("::1", "[::1]:7722"),
            ("[::1]", "[::1]:7722"),
            ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
            ("[fe80::1%eth0]:7722", "[fe80::1%eth0]:7722"),
        ] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            ":7722",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "a b",
            "a/b",
            "[::1",
            "[::1]x",
            "[host]:1",
            "::1:x",
            "höst",
            "host:1:2",
            "\u{1b}[2J",
            "[::1%]:1",
        ] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text:?}");
        }
    }
}

//! Lower-case hexadecimal for keys, ids and tickets inside JSON. Decoding allows either case and
//! goes straight into the caller's array, so that a secret is not copied on the way.

use zeroize::Zeroizing;

/// `bytes` as hexadecimal digits; wiped when dropped, because it may be a secret.
pub fn encode(bytes: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Fills `into` from exactly twice as many hexadecimal digits; `None` (and `into` partly written)
/// when `text` is anything else.
pub fn decode(text: &str, into: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != 2 * into.len() {
        return None;
    }
    for (slot, pair) in into.iter_mut().zip(digits.chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_survives_and_nothing_else_is_taken_for_it() {
        let mut back = [0; 4];
        assert_eq!(encode(&[0, 0x9a, 0xff, 7]).as_str(), "009aff07");
        assert_eq!(decode("009aFF07", &mut back), Some(()));
        assert_eq!(back, [0, 0x9a, 0xff, 7]);
        for bad in ["", "009aff0", "009aff070", "+09aff07", "0x9aff07", "äaff07", "009aff0g"] {
            assert_eq!(decode(bad, &mut back), None, "{bad:?}");
        }
    }
}

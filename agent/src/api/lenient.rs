//! What Go's server takes in a request's first line and hyper refuses: quotes in a query, as curl sends them of
//! `filters={"name":["web"]}`. Called by [`super::wire`] with what comes first, where it comes in one piece: who writes such lines
//! makes a connection for each. Pure.

/// What was read, with the first line's quotes, angle brackets and letters beyond ASCII escaped; `None` where there is nothing to escape.
pub(super) fn escaped(read: &[u8]) -> Option<Vec<u8>> {
    let is_odd = |byte: u8| matches!(byte, b'"' | b'<' | b'>') || byte >= 0x7f;
    let end = read.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let (line, rest) = read.split_at(end);
    if !line.iter().any(|byte| is_odd(*byte)) {
        return None;
    }
    let mut whole = Vec::with_capacity(read.len() + 64);
    for &byte in line {
        match is_odd(byte) {
            true => whole.extend(format!("%{byte:02X}").bytes()),
            false => whole.push(byte),
        }
    }
    whole.extend(rest);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_left_alone() {
        for text in ["GET / HTTP/1.1\r\nX: \"y\"\r\n", "GET /x?\"", ""] {
            assert_eq!(escaped(text.as_bytes()), None, "{text}");
        }
    }
}

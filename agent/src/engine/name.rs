//! Names and ids that nobody has chosen.

use crate::error::{Error, Kind, Result};
use crate::random;

const QUALITIES: [&str; 48] = [
    "able", "amber", "ample", "brave", "brisk", "broad", "calm", "candid", "cheery", "civil", "clear",
    "clever", "copper", "crisp", "daring", "deft", "eager", "early", "even", "fair", "fleet", "fond",
    "frank", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "jolly", "keen", "kind",
    "lively", "loyal", "lucky", "mellow", "mild", "noble", "patient", "polite", "proud", "quick", "quiet",
    "steady", "sunny", "tidy", "warm",
];
const BOATS: [&str; 48] = [
    "anchor", "barge", "bark", "beacon", "bow", "brig", "buoy", "canoe", "capstan", "cargo", "clipper",
    "coble", "coracle", "cutter", "dhow", "dinghy", "dory", "ferry", "frigate", "galley", "gig", "harbour",
    "helm", "hull", "jib", "junk", "kayak", "keel", "ketch", "knarr", "launch", "lugger", "mast", "oar",
    "packet", "pilot", "pinnace", "prow", "punt", "raft", "rudder", "sail", "schooner", "skiff", "sloop",
    "tender", "tiller", "yawl",
];

/// A name like `quiet_ketch`; `take` says whether it is free.
///
/// # Errors
/// No randomness, or no free name.
pub fn random_name(mut take: impl FnMut(&str) -> bool) -> Result<String> {
    for round in 0..100 {
        let mut bytes = [0; 3];
        random::fill(&mut bytes)?;
        let quality = QUALITIES[usize::from(bytes[0]) % QUALITIES.len()];
        let boat = BOATS[usize::from(bytes[1]) % BOATS.len()];
        let mut name = format!("{quality}_{boat}");
        if round > 2 {
            name.push_str(&format!("{round}{}", bytes[2]));
        }
        if take(&name) {
            return Ok(name);
        }
    }
    Err(Error::new(Kind::Internal, "no free name was found for the container"))
}

/// Whether somebody may choose it: two characters at least, a letter or a digit first. It is one step of a path, and none that
/// leads up or is hidden.
#[must_use]
pub fn fits(name: &str) -> bool {
    let fits = |(index, byte): (usize, u8)| {
        byte.is_ascii_alphanumeric() || (index > 0 && matches!(byte, b'_' | b'.' | b'-'))
    };
    name.len() >= 2 && name.bytes().enumerate().all(fits)
}

/// A container's name of what a client says, which may begin with a slash, as names are shown.
///
/// # Errors
/// It can't be one: dockerd's text, of what the client said.
pub fn check(name: &str) -> Result<&str> {
    let own = name.strip_prefix('/').unwrap_or(name);
    if fits(own) {
        return Ok(own);
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(check(&random_name(|_| true).unwrap()).is_ok());
        assert!(random_name(|_| false).is_err());
        for bad in ["", "a", "-a", "a b", "ä1", "a/b"] {
            assert!(check(bad).unwrap_err().message.starts_with("Invalid container name"), "{bad}");
        }
        assert_eq!(
            check("/a").unwrap_err().message,
            "Invalid container name (/a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
        assert_eq!((check("a.b_c-1").unwrap(), check("/ab").unwrap()), ("a.b_c-1", "ab"));
    }
}

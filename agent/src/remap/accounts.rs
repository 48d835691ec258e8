//! `--userns-remap`: whom it names, and which subordinate ids they have, by the host's /etc/passwd, group, subuid and subgid
//! (subuid(5)). Nothing is executed and nothing is written: the host's users are its admin's.

use tracing::{info, warn};

use super::Ids;

/// What `default` means.
const DEFAULT: &str = "dockremap";
/// What useradd(8) gives a user, and from where on.
const FIRST: u64 = 100_000;
const LENGTH: u64 = 65536;

/// The texts of the four files; a file that is not there is empty.
#[derive(Debug, Default)]
struct Files {
    passwd: String,
    group: String,
    subuid: String,
    subgid: String,
}

/// The ids that containers have by `--userns-remap`; with an empty text, and for root, their own.
///
/// # Errors
/// Nobody of the name, nothing that they could give, or what can't be meant: dockerd's words where it has some.
pub(crate) fn ids_of(text: &str) -> Result<Ids, String> {
    if text.is_empty() {
        return Ok(Ids::default());
    }
    let read = |path: &str| match std::fs::read_to_string(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("reading {path}: {error}")),
        read => Ok(read.unwrap_or_default()),
    };
    let files = Files {
        passwd: read("/etc/passwd")?,
        group: read("/etc/group")?,
        subuid: read("/etc/subuid")?,
        subgid: read("/etc/subgid")?,
    };
    files.ids_of(text)
}

/// Whose subordinate ids are to be used.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    name: String,
    /// One that lends its name to lines of ranges only needs no number.
    uid: Option<u32>,
}

impl Files {
    fn ids_of(&self, text: &str) -> Result<Ids, String> {
        let account = self.account(text)?;
        if account.name == "root" {
            warn!("User namespaces: root cannot be remapped with itself; user namespaces are OFF");
            return Ok(Ids::default());
        }
        let failed = |why: String| format!("Can't create ID mappings: {why}");
        let users = self.ranges(&account, "subuid", &self.subuid).map_err(failed)?;
        let groups = self.ranges(&account, "subgid", &self.subgid).map_err(failed)?;
        let ids = Ids::new(&users, &groups).map_err(failed)?;
        info!("User namespaces: ID ranges will be mapped to subuid/subgid ranges of: {}", account.name);
        for (kind, ranges) in [("user", &users), ("group", &groups)] {
            let count: u64 = ranges.iter().map(|(_, length)| u64::from(*length)).sum();
            if count < LENGTH {
                warn!("containers have {count} {kind} ids: images whose files have higher ones are refused");
            }
        }
        Ok(ids)
    }

    fn account(&self, text: &str) -> Result<Account, String> {
        let (name, group) = match text.split(':').collect::<Vec<_>>()[..] {
            [name] => (name, None),
            [name, group] => (name, Some(group)),
            _ => return Err(format!("Invalid user/group specification in --userns-remap: {text:?}")),
        };
        let group_of = |group: &str, failed: &dyn Fn(&str) -> String| match number(group) {
            Some(gid) if by_number(&self.group, gid).is_some() => Ok(()),
            Some(gid) => Err(format!("Gid {gid} has no entry in /etc/group")),
            None if by_name(&self.group, group).is_some() => Ok(()),
            None => Err(failed(group)),
        };
        let account = if let Some(uid) = number(name) {
            let found = by_number(&self.passwd, uid);
            let entry = found.ok_or_else(|| format!("Uid {uid} has no entry in /etc/passwd"))?;
            Account { name: entry[0].to_owned(), uid: Some(uid) }
        } else if name == "default" {
            // What it is for are the ranges of its name: the account itself does nothing.
            let uid = by_name(&self.passwd, DEFAULT).and_then(|entry| number(entry[2]));
            let account = Account { name: DEFAULT.to_owned(), uid };
            let has = |text: &str| of(text, &account).next().is_some();
            if !(has(&self.subuid) && has(&self.subgid)) {
                return Err(format!(
                    "Error during {DEFAULT:?} user creation: ketchd makes no users; add the line \"{}\" to /etc/subuid and to \
                     /etc/subgid, where it has none",
                    self.line_for(DEFAULT)
                ));
            }
            account
        } else {
            let lookup = format!("Error during uid lookup for {name:?}");
            let entry = by_name(&self.passwd, name);
            let entry = entry.ok_or_else(|| format!("{lookup}: no matching entries in /etc/passwd"))?;
            Account { name: name.to_owned(), uid: number(entry[2]) }
        };
        match group {
            Some(group) => group_of(group, &|group| {
                format!("Error during groupname lookup for {group:?}: no matching entries in /etc/group")
            })?,
            None if name == "default" => {}
            None => group_of(name, &|name| {
                format!("Error during gid lookup for {name:?}: no matching entries in /etc/group")
            })?,
        }
        Ok(account)
    }

    /// First ids and lengths, in the file's order.
    fn ranges(&self, account: &Account, file: &str, text: &str) -> Result<Vec<(u32, u32)>, String> {
        let mut all = Vec::new();
        for line in of(text, account) {
            let range = match line.split(':').collect::<Vec<_>>()[..] {
                [_, first, length] => number(first).zip(number(length)),
                _ => None,
            };
            all.push(
                range.ok_or_else(|| {
                    format!("/etc/{file}: {line:?} is not <name>:<first id>:<number of ids>")
                })?,
            );
        }
        if all.is_empty() {
            let (name, line) = (&account.name, self.line_for(&account.name));
            return Err(format!(
                "no {file} ranges found for user {name:?}: a line for /etc/{file} is \"{line}\""
            ));
        }
        Ok(all)
    }

    /// A line with ids that no other has.
    fn line_for(&self, name: &str) -> String {
        let range = |line: &str| {
            let mut fields = line.split(':').skip(1).map(|field| number(field.trim()).map(u64::from));
            Some((fields.next()??, fields.next()??))
        };
        let mut taken: Vec<(u64, u64)> =
            self.subuid.lines().chain(self.subgid.lines()).filter_map(range).collect();
        taken.sort_unstable();
        let mut start = FIRST;
        for (first, length) in taken {
            if first < start + LENGTH && start < first + length {
                start = first + length;
            }
        }
        format!("{name}:{start}:{LENGTH}")
    }
}

/// The lines of an account's, by its name or its number.
fn of<'a>(text: &'a str, account: &'a Account) -> impl Iterator<Item = &'a str> {
    text.lines().map(str::trim).filter(|line| {
        let owner = line.split(':').next().unwrap_or_default();
        owner == account.name || account.uid.is_some() && number(owner) == account.uid
    })
}

/// An entry's fields, of which there are three at least.
fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.trim().split(':').collect()).filter(|fields: &Vec<&str>| fields.len() > 2)
}

fn by_name<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    entries(text).find(|fields| fields[0] == name)
}

fn by_number(text: &str, id: u32) -> Option<Vec<&str>> {
    entries(text).find(|fields| number(fields[2]) == Some(id))
}

/// A sign is no digit here, and is to `parse`.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files {
            passwd:
                "root:x:0:0:root:/root:/bin/sh\nbox:x:1200:1300::/:/bin/false\nlone:x:1201:1::/:/bin/false\n"
                    .into(),
            group: "root:x:0:\nbox:x:1300:\nothers:x:1200:\n".into(),
            subuid: "dockremap:100000:65536\nbox:200000:1000\n1200:400000:10\nlone:7:x\n".into(),
            subgid: "dockremap:100000:65536\nbox:300000:1000\nlone:1:1\n".into(),
        }
    }

    fn refused(text: &str) -> String {
        files().ids_of(text).unwrap_err()
    }

    #[test]
    fn whose_ids() {
        for text in ["box", "1200", "box:others", "1200:1300", "box:1300"] {
            let ids = files().ids_of(text).unwrap();
            assert_eq!(ids.root(), (200_000, 300_000), "{text}");
            // The number's range follows the name's.
            assert_eq!(ids.to_host((1009, 999)).unwrap(), (400_009, 300_999));
        }
        assert_eq!(files().ids_of("default").unwrap().root(), (100_000, 100_000));
        assert!(
            !files().ids_of("root").unwrap().are_mapped() && !files().ids_of("0:0").unwrap().are_mapped()
        );
    }

    #[test]
    fn who_is_not_there() {
        assert_eq!(refused("a:b:c"), "Invalid user/group specification in --userns-remap: \"a:b:c\"");
        assert_eq!(
            refused("nobody"),
            "Error during uid lookup for \"nobody\": no matching entries in /etc/passwd"
        );
        assert_eq!(
            refused("lone"),
            "Error during gid lookup for \"lone\": no matching entries in /etc/group"
        );
        assert_eq!(
            refused("box:no"),
            "Error during groupname lookup for \"no\": no matching entries in /etc/group"
        );
        assert_eq!(refused("77"), "Uid 77 has no entry in /etc/passwd");
        assert_eq!(refused("box:77"), "Gid 77 has no entry in /etc/group");
        assert_eq!(refused("1201"), "Gid 1201 has no entry in /etc/group");
        assert!(refused(":").starts_with("Error during uid lookup for \"\""));
    }

    #[test]
    fn what_they_can_not_give() {
        assert_eq!(
            refused("lone:box"),
            "Can't create ID mappings: /etc/subuid: \"lone:7:x\" is not <name>:<first id>:<number of ids>"
        );
        let mut files = files();
        files.subgid = "other:100000:65536\nother:165536:65536\nother:300000:9\n".into();
        assert_eq!(
            files.ids_of("box").unwrap_err(),
            "Can't create ID mappings: no subgid ranges found for user \"box\": a line for /etc/subgid is \"box:231072:65536\""
        );
        let text = files.ids_of("default").unwrap_err();
        assert!(text.contains("add the line \"dockremap:231072:65536\" to /etc/subuid"), "{text}");
        files.subgid = "box:500:100\nbox:550:10\n".into();
        assert!(files.ids_of("box").unwrap_err().contains("have ids in common"));
    }
}

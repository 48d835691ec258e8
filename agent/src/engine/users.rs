//! Whom a container's processes are: `USER` against the image's own /etc/passwd and /etc/group. Pure: the files' texts are
//! given.

use crate::error::{Error, Result};

/// A process's user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// More groups.
    pub groups: Vec<u32>,
    /// Its home; empty where nobody knows.
    pub home: String,
}

/// Whom `text` names: nothing, `user`, `user:group`, each a name or a number.
///
/// # Errors
/// A name that the image does not have: dockerd's text.
pub fn find(text: &str, passwd: &str, group: &str, added: &[String]) -> Result<User> {
    let (name, group_name) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let number = id(name)?;
    let entry = passwd.lines().map(fields).find(|entry| {
        entry.first() == Some(&name)
            || number.is_some_and(|number| entry.get(2).and_then(|field| field.parse().ok()) == Some(number))
    });
    let mut user = match (&entry, number) {
        (Some(entry), _) => User {
            uid: entry.get(2).and_then(|field| field.parse().ok()).unwrap_or(0),
            gid: entry.get(3).and_then(|field| field.parse().ok()).unwrap_or(0),
            groups: Vec::new(),
            home: entry.get(5).map_or_else(String::new, |home| (*home).to_owned()),
        },
        (None, Some(number)) => User { uid: number, ..User::default() },
        (None, None) => return Err(missing("user", name, "passwd")),
    };
    match group_name.filter(|name| !name.is_empty()) {
        Some(name) => user.gid = group_id(name, group)?,
        None => {
            if let Some(member) = entry.as_ref().and_then(|entry| entry.first()) {
                let of_member = group.lines().map(fields).filter(|entry| {
                    entry.get(3).is_some_and(|members| members.split(',').any(|one| one == *member))
                });
                user.groups.extend(of_member.filter_map(|entry| entry.get(2)?.parse::<u32>().ok()));
            }
        }
    }
    for name in added {
        user.groups.push(group_id(name, group)?);
    }
    // As Docker: the first group is among the others, too.
    if !user.groups.contains(&user.gid) {
        user.groups.insert(0, user.gid);
    }
    Ok(user)
}

/// The number of a name in the lines of a passwd or group file.
#[must_use]
pub fn number(entries: &str, name: &str) -> Option<u32> {
    let entry = entries.lines().map(fields).find(|entry| entry.first() == Some(&name))?;
    entry.get(2)?.parse().ok()
}

/// Whom files are that a client copies to a container of this user, which is not empty.
///
/// # Errors
/// A name that the container does not have: dockerd's text.
pub fn owner(text: &str, passwd: &str, group: &str) -> Result<(u32, u32)> {
    let (name, group_name) = text.split_once(':').unwrap_or((text, ""));
    let failed = |kind: &str, name: &str, file: &str| {
        Error::invalid(format!(
            "failed to look up {kind} \"{name}\" in container: no matching entries in {file} file"
        ))
    };
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id <= i32::MAX.cast_unsigned());
    let (mut uid, mut gid) = (0, 0);
    if !name.is_empty() {
        let id = number(name);
        let entry = passwd.lines().map(fields).find(|entry| match id {
            Some(id) => entry.get(2).and_then(|field| field.parse().ok()) == Some(id),
            None => entry.first() == Some(&name),
        });
        let field = |at: usize| entry.as_ref().and_then(|entry| entry.get(at)?.parse().ok());
        uid = id.or_else(|| field(2)).ok_or_else(|| failed("user", name, "passwd"))?;
        gid = field(3).unwrap_or(0);
    }
    if !group_name.is_empty() {
        let entry = group.lines().map(fields).find(|entry| entry.first() == Some(&group_name));
        let named = || entry.and_then(|entry| entry.get(2)?.parse().ok());
        gid = number(group_name).or_else(named).ok_or_else(|| failed("group", group_name, "group"))?;
    }
    Ok((uid, gid))
}

fn fields(line: &str) -> Vec<&str> {
    line.trim().split(':').collect()
}

fn id(text: &str) -> Result<Option<u32>> {
    // A number below zero is none that could be, and no name.
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse::<u32>().ok().filter(|&number| number <= i32::MAX.cast_unsigned());
    number.map(Some).ok_or_else(|| Error::invalid("uids and gids must be in range 0-2147483647"))
}

fn group_id(name: &str, group: &str) -> Result<u32> {
    let entry = group.lines().map(fields).find(|entry| entry.first() == Some(&name));
    match (entry.and_then(|entry| entry.get(2)?.parse().ok()), id(name)?) {
        (Some(id), _) | (None, Some(id)) => Ok(id),
        (None, None) => Err(missing("group", name, "group")),
    }
}

fn missing(kind: &str, name: &str, file: &str) -> Error {
    Error::invalid(format!("unable to find {kind} {name}: no matching entries in {file} file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\naudio:x:29:web,root\n";

    #[test]
    fn users() {
        let found = |text: &str| find(text, PASSWD, GROUP, &[]).unwrap();
        assert_eq!(found(""), User { uid: 0, gid: 0, groups: vec![0, 29], home: "/root".into() });
        assert_eq!(found("web").groups, [33, 29]);
        assert_eq!(found("33").home, "/srv");
        assert_eq!(found("web:audio"), User { uid: 33, gid: 29, groups: vec![29], home: "/srv".into() });
        assert_eq!(found("1000:7"), User { uid: 1000, gid: 7, groups: vec![7], home: String::new() });
        assert_eq!(find("web", PASSWD, GROUP, &["5".into()]).unwrap().groups, [33, 29, 5]);
        let text = find("nobody", PASSWD, GROUP, &[]).unwrap_err().message;
        assert_eq!(text, "unable to find user nobody: no matching entries in passwd file");
        let text = find("web:nope", PASSWD, GROUP, &[]).unwrap_err().message;
        assert_eq!(text, "unable to find group nope: no matching entries in group file");
        assert!(find("4294967295", PASSWD, GROUP, &[]).is_err());
    }

    #[test]
    fn owners_of_what_is_copied() {
        let found = |text: &str| owner(text, PASSWD, GROUP).unwrap();
        assert_eq!((found("web"), found("33"), found("7")), ((33, 33), (33, 33), (7, 0)));
        assert_eq!((found(":audio"), found("web:"), found("web:5")), ((0, 29), (33, 33), (33, 5)));
        let text = owner("nobody", PASSWD, GROUP).unwrap_err().message;
        assert_eq!(
            text,
            "failed to look up user \"nobody\" in container: no matching entries in passwd file"
        );
    }
}

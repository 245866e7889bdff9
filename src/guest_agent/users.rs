//! Users of the guest, from its own files: no name service is asked.

use std::io;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The home directory and the name, where `/etc/passwd` knows them.
    pub home: Option<(String, String)>,
}

/// The user `NAME`, `UID` or `UID:GID`.
///
/// # Errors
/// A message when there is no such user, or `/etc/passwd` can't be read.
pub fn find(text: &str) -> Result<User, io::Error> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
    look_up(text, &passwd, &group).ok_or_else(|| io::Error::other("no such user in `/etc/passwd`"))
}

fn look_up(text: &str, passwd: &str, group: &str) -> Option<User> {
    if let Some((uid, gid)) = text.split_once(':') {
        return Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, groups: Vec::new(), home: None });
    }
    let number: Option<u32> = text.parse().ok();
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { continue };
        let (Ok(uid), Ok(gid)) = (uid.parse::<u32>(), gid.parse::<u32>()) else { continue };
        if name == text || number == Some(uid) {
            let home = Some((home.to_owned(), name.to_owned()));
            return Some(User { uid, gid, groups: groups_of(name, gid, group), home });
        }
    }
    number.map(|uid| User { uid, gid: uid, groups: Vec::new(), home: None })
}

fn groups_of(name: &str, gid: u32, group: &str) -> Vec<u32> {
    let mut groups = vec![gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, number, members] = fields[..] else { continue };
        if let Ok(number) = number.parse()
            && members.split(',').any(|member| member == name)
            && !groups.contains(&number)
        {
            groups.push(number);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1001::/home/ann:/bin/sh\n";
        let group = "root:x:0:\nstaff:x:50:bob,ann\nann:x:1001:\n";
        let ann = look_up("ann", passwd, group).unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups.clone()), (1000, 1001, vec![1001, 50]));
        assert_eq!(look_up("1000", passwd, group), Some(ann));
        assert_eq!(look_up("5:6", passwd, group).map(|user| (user.uid, user.gid)), Some((5, 6)));
        assert_eq!(look_up("7", passwd, group).map(|user| (user.uid, user.gid)), Some((7, 7)));
        assert_eq!(look_up("bob", passwd, group), None);
    }
}

//! Path resolution inside the untouched part of the image: the same walk as src/fs/path.ts, which
//! stays the truth. Whatever the image alone does not decide is `Ask`: a covered inode (mounted over,
//! moved, removed, other mode or owner), a name that a changed directory might have, a device.

use super::overridden::{self, COVERED, NAMES};
use crate::erofs::{self, Inode};
use crate::errno::{EACCES, ENOENT, ENOTDIR, Errno};
use crate::process::Creds;

/// Links followed before the daemon is asked, which says ELOOP at Linux's limit.
const LINKS: usize = 32;
const NAME_MAX: usize = 255;

pub enum No {
    /// What the daemon would say, too.
    Error(Errno),
    /// Only the daemon knows.
    Ask,
}

/// What a path names.
#[derive(Clone, Copy)]
pub struct Found {
    pub inode: Inode<'static>,
    /// Directory that holds it, and its name there; empty for what was reached otherwise.
    pub dir: u64,
    pub name: &'static [u8],
}

fn inode(nid: u64) -> Result<Inode<'static>, No> {
    if overridden::is(nid, COVERED) {
        return Err(No::Ask);
    }
    erofs::inode(super::get().erofs, nid).ok_or(No::Ask)
}

/// Permission bits of `i` for the file-system ids, or the real ones (path.ts, `may`).
pub fn may(i: &Inode, want: u32, c: &Creds, real: bool) -> bool {
    let id = |ids: &[u32; 3], fs: Option<u32>| if real { ids[0] } else { fs.unwrap_or(ids[1]) };
    let (uid, gid) = (id(&c.uid, c.fs[0]), id(&c.gid, c.fs[1]));
    if uid == 0 {
        return want & libc::X_OK as u32 == 0 || i.is_dir() || i.mode & 0o111 != 0;
    }
    let bits = if i.uid == uid {
        i.mode >> 6
    } else if i.gid == gid || c.groups.contains(&i.gid) {
        i.mode >> 3
    } else {
        i.mode
    };
    bits & want == want
}

fn trimmed(mut path: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}

/// The first name of `path`, which does not end in a slash, and what follows it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let start = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
    let path = &path[start..];
    let end = path.iter().position(|b| *b == b'/').unwrap_or(path.len());
    (&path[..end], &path[end..])
}

/// Walks `path`, which is not empty, from directory `start`; 0: from nowhere, so it must be absolute.
pub fn walk(start: u64, path: &[u8], follow: bool, c: &Creds) -> Result<Found, No> {
    let root = erofs::root(super::get().erofs).ok_or(No::Ask)?;
    let mut dir = inode(match (path.first(), start) {
        (Some(b'/'), _) => root,
        (_, 0) => return Err(No::Ask),
        (_, nid) => nid,
    })?;
    // Rests of paths still to be walked, the innermost last; none is empty.
    let mut rests: [&[u8]; LINKS + 1] = [&[]; LINKS + 1];
    let mut depth = 0;
    let mut links = 0;
    let mut slash = path.ends_with(b"/");
    rests[0] = trimmed(path);
    if rests[0].is_empty() {
        return Ok(Found { inode: dir, dir: 0, name: &[] });
    }
    loop {
        let (name, rest) = split(rests[depth]);
        rests[depth] = rest;
        while depth > 0 && rests[depth].is_empty() {
            depth -= 1;
        }
        let last = rests[depth].is_empty();
        if !dir.is_dir() {
            return Err(No::Error(ENOTDIR));
        }
        if !may(&dir, libc::X_OK as u32, c, false) {
            return Err(No::Error(EACCES));
        }
        if name.len() > NAME_MAX {
            return Err(No::Ask);
        }
        if name == b"." || name == b".." {
            if name == b".." {
                dir = inode(dir.lookup(name).flatten().ok_or(No::Ask)?.nid)?;
            }
            if last {
                return Ok(Found { inode: dir, dir: 0, name: &[] });
            }
            continue;
        }
        let Some(entry) = dir.lookup(name).ok_or(No::Ask)? else {
            return Err(if overridden::is(dir.nid, NAMES) { No::Ask } else { No::Error(ENOENT) });
        };
        let node = inode(entry.nid)?;
        if node.kind() == libc::S_IFLNK && (!last || follow || slash) {
            let target = node.target().ok_or(No::Ask)?;
            links += 1;
            if links > LINKS || target.is_empty() {
                return Err(No::Ask);
            }
            if target[0] == b'/' {
                dir = inode(root)?;
            }
            slash |= last && target.ends_with(b"/");
            let target = trimmed(target);
            if !target.is_empty() {
                if !last {
                    depth += 1;
                }
                rests[depth] = target;
            } else if last {
                return Ok(Found { inode: dir, dir: 0, name: &[] });
            }
            continue;
        }
        if last {
            if slash && !node.is_dir() {
                return Err(No::Error(ENOTDIR));
            }
            return Ok(Found { inode: node, dir: dir.nid, name: entry.name });
        }
        dir = node;
    }
}

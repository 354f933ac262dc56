//! The shape of the generated system call table (`generated/table.rs`).

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Local,
    Direct,
    Image,
    Mediated,
    Refused,
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    In,
    Out,
    InOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Len {
    Fixed(u32),
    /// Value of argument `index` times `scale`.
    Arg {
        index: u8,
        scale: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    Int,
    Fd,
    DirFd,
    Path,
    Str,
    Ptr { dir: Dir, len: Len },
    Iov { count: u8 },
}

#[derive(Clone, Copy, Debug)]
pub struct Syscall {
    pub nr: u32,
    pub name: &'static str,
    pub class: Class,
    pub args: &'static [Arg],
    /// Restarted after a signal handler with SA_RESTART.
    pub restart: bool,
    /// The result is a new descriptor.
    pub new_fd: bool,
    /// Its file in src/syscalls/table: fd, file, mm, net, …
    pub group: &'static str,
}

/// The row of a number.
pub fn find(nr: u64) -> Option<&'static Syscall> {
    let table = crate::generated::table::TABLE;
    let at = table.binary_search_by_key(&nr, |s| u64::from(s.nr)).ok()?;
    Some(&table[at])
}

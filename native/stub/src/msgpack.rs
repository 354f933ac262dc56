//! The part of msgpack that the control protocol uses: maps of strings, byte strings, integers, lists.

use crate::Strings;

/// Writes into a fixed buffer; what does not fit is remembered, not written.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    at: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    pub fn new(buffer: &'a mut [u8], at: usize) -> Self {
        Self { buffer, at, full: false }
    }

    fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.at..self.at + bytes.len()) {
            Some(to) => {
                to.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            None => self.full = true,
        }
    }

    fn sized(&mut self, tag: u8, len: usize) {
        self.put(&[tag]);
        self.put(&(len as u32).to_be_bytes());
    }

    /// A map of `count` (below 16) keys and values follows.
    pub fn map(&mut self, count: u8) {
        self.put(&[0x80 | count]);
    }

    pub fn key(&mut self, text: &[u8]) {
        self.sized(0xdb, text.len());
        self.put(text);
    }

    /// A key with a text.
    pub fn field(&mut self, key: &[u8], text: &[u8]) {
        self.key(key);
        self.key(text);
    }

    /// A key with a list of byte strings: arguments need not be UTF-8.
    pub fn list(&mut self, key: &[u8], strings: Strings) {
        self.key(key);
        self.sized(0xdd, strings.count());
        for s in strings {
            self.sized(0xc6, s.len());
            self.put(s);
        }
    }

    pub fn integer(&mut self, v: u32) {
        self.sized(0xce, v as usize);
    }

    pub fn boolean(&mut self, v: bool) {
        self.put(&[0xc2 | u8::from(v)]);
    }

    /// All that was written, the bytes before the start included; None when it did not fit.
    pub fn finish(self) -> Option<&'a mut [u8]> {
        if self.full { None } else { self.buffer.get_mut(..self.at) }
    }
}

pub enum Value<'a> {
    Bytes(&'a [u8]),
    Integer(i64),
    Other,
}

/// Reads what another end wrote: every length is checked.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// A big-endian number of `len` (at most 8) bytes.
    fn number(&mut self, len: usize) -> Option<u64> {
        Some(self.take(len)?.iter().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    /// Keys of the map that comes next.
    pub fn map(&mut self) -> Option<u64> {
        match self.take(1)?[0] {
            tag @ 0x80..=0x8f => Some(u64::from(tag & 15)),
            0xde => self.number(2),
            0xdf => self.number(4),
            _ => None,
        }
    }

    pub fn string(&mut self) -> Option<&'a [u8]> {
        match self.value()? {
            Value::Bytes(b) => Some(b),
            _ => None,
        }
    }

    pub fn value(&mut self) -> Option<Value<'a>> {
        self.nested(8)
    }

    fn nested(&mut self, depth: u32) -> Option<Value<'a>> {
        let signed = |v: u64, bits: u32| ((v << (64 - bits)) as i64) >> (64 - bits);
        Some(match self.take(1)?[0] {
            v @ 0x00..=0x7f => Value::Integer(i64::from(v)),
            v @ 0xe0..=0xff => Value::Integer(i64::from(v as i8)),
            tag @ 0xa0..=0xbf => Value::Bytes(self.take(usize::from(tag & 31))?),
            tag @ 0xc4..=0xc6 => self.bytes(1 << (tag - 0xc4))?,
            tag @ 0xd9..=0xdb => self.bytes(1 << (tag - 0xd9))?,
            tag @ 0xcc..=0xcf => Value::Integer(self.number(1 << (tag - 0xcc))? as i64),
            tag @ 0xd0..=0xd3 => Value::Integer(signed(self.number(1 << (tag - 0xd0))?, 8 << (tag - 0xd0))),
            0xca => self.skip(4)?,
            0xcb => self.skip(8)?,
            0xc0 | 0xc2 | 0xc3 => Value::Other,
            tag @ 0x90..=0x9f => self.items(u64::from(tag & 15), depth)?,
            tag @ 0x80..=0x8f => self.items(2 * u64::from(tag & 15), depth)?,
            tag @ (0xdc | 0xdd) => {
                let n = self.number(if tag == 0xdc { 2 } else { 4 })?;
                self.items(n, depth)?
            }
            tag @ (0xde | 0xdf) => {
                let n = self.number(if tag == 0xde { 2 } else { 4 })?;
                self.items(2 * n, depth)?
            }
            _ => return None,
        })
    }

    fn bytes(&mut self, prefix: usize) -> Option<Value<'a>> {
        let len = self.number(prefix)? as usize;
        Some(Value::Bytes(self.take(len)?))
    }

    fn skip(&mut self, len: usize) -> Option<Value<'a>> {
        self.take(len)?;
        Some(Value::Other)
    }

    fn items(&mut self, count: u64, depth: u32) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        for _ in 0..count {
            self.nested(depth)?;
        }
        Some(Value::Other)
    }
}

//! Writes the megabinary: index, inode table, dispatch maps, native code (vkernel_abi::megabinary).

use crate::cache::Translation;
use std::os::unix::fs::FileExt;
use vkernel_abi::megabinary::{ABI_VERSION, Entry, Header, MAGIC, Nid, PAGE};
use vkernel_abi::wasm::{MAP_BLOCK, map_word};

/// One translated ELF.
pub struct Artifact {
    pub entry: Entry,
    /// Inodes of image.erofs that hold it.
    pub nids: Vec<u64>,
    /// None: nothing was translated.
    pub translation: Option<Translation>,
}

impl Artifact {
    /// Bytes of native code.
    fn code(&self) -> u64 {
        self.translation.as_ref().map_or(0, |t| t.code)
    }
}

fn pad(v: u64) -> u64 {
    (v + PAGE - 1) & !(PAGE - 1)
}

fn bytes_of<T>(v: &[T]) -> &[u8] {
    // SAFETY: the format's structs are plain integers without padding (their sizes are asserted).
    unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), size_of_val(v)) }
}

/// Writes `out`. `artifacts` are sorted by SHA-256 and get their slots and offsets here.
pub fn write(out: &std::path::Path, artifacts: &mut [Artifact]) -> std::io::Result<()> {
    artifacts.sort_by_key(|a| a.entry.sha256);
    let mut slots = 1u64;
    for a in artifacts.iter_mut() {
        a.entry.slot_base = slots as u32;
        slots += u64::from(a.entry.slot_count);
    }
    let mut nids: Vec<Nid> = Vec::new();
    for (n, a) in artifacts.iter().enumerate() {
        nids.extend(a.nids.iter().map(|&nid| Nid { nid, entry: n as u32, reserved: 0 }));
    }
    nids.sort_by_key(|n| n.nid);
    let mut h = Header {
        magic: MAGIC,
        abi_version: ABI_VERSION,
        count: artifacts.len() as u32,
        index_off: PAGE,
        nid_count: nids.len() as u64,
        slots,
        ..Header::default()
    };
    h.nids_off = h.index_off + pad(size_of_val(&*artifacts.iter().map(|a| a.entry).collect::<Vec<_>>()) as u64);
    h.maps_off = h.nids_off + pad(size_of_val(&*nids) as u64);
    let mut at = h.maps_off;
    for a in artifacts.iter_mut().filter(|a| a.code() > 0) {
        a.entry.map_off = at;
        at += a.entry.text_end - a.entry.text_start;
    }
    h.maps_len = at - h.maps_off;
    h.code_off = at;
    for a in artifacts.iter_mut().filter(|a| a.code() > 0) {
        a.entry.code_off = at;
        a.entry.code_len = a.code();
        at += pad(a.code());
    }
    h.code_len = at - h.code_off;

    let f = std::fs::File::create(out)?;
    f.write_all_at(bytes_of(&[h]), 0)?;
    f.write_all_at(bytes_of(&artifacts.iter().map(|a| a.entry).collect::<Vec<_>>()), h.index_off)?;
    f.write_all_at(bytes_of(&nids), h.nids_off)?;
    for a in artifacts.iter().filter(|a| a.code() > 0) {
        // One translation is in memory at a time.
        let contents = a.translation.as_ref().expect("it has code").contents()?;
        let mut section = vec![0u8; (a.entry.text_end - a.entry.text_start) as usize];
        // Slots count from 1 in a translation: table slot = payload - 1 + slot_base.
        for &(off, payload) in &contents.map {
            let payload = if payload & MAP_BLOCK != 0 { payload } else { payload - 1 + a.entry.slot_base };
            // text_start is a page's start, so that the offset has the address's low bits.
            let at = (off & !3) as usize;
            section[at..at + 4].copy_from_slice(&map_word(off, payload).to_le_bytes());
        }
        f.write_all_at(&section, a.entry.map_off)?;
        f.write_all_at(contents.code(), a.entry.code_off)?;
    }
    f.set_len(pad(at))
}

//! Writes the megabinary: index, inode table, dispatch maps, native code (vkernel_abi::megabinary).

use std::io::{BufWriter, Seek, SeekFrom, Write};
use vkernel_abi::megabinary::{ABI_VERSION, Entry, Header, MAGIC, Nid, PAGE};
use vkernel_abi::wasm::{MAP_BLOCK, map_word};

/// One translated ELF.
pub struct Artifact {
    pub entry: Entry,
    /// Inodes of image.erofs that hold it.
    pub nids: Vec<u64>,
    /// The dispatch map with slots counted from 1 (table slot = payload - 1 + slot_base); empty when
    /// nothing was translated.
    pub map: Vec<(u32, u32)>,
    pub code: Vec<u8>,
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
    for a in artifacts.iter_mut().filter(|a| !a.code.is_empty()) {
        a.entry.map_off = at;
        at += a.entry.text_end - a.entry.text_start;
    }
    h.maps_len = at - h.maps_off;
    h.code_off = at;
    for a in artifacts.iter_mut().filter(|a| !a.code.is_empty()) {
        a.entry.code_off = at;
        a.entry.code_len = a.code.len() as u64;
        at += pad(a.code.len() as u64);
    }
    h.code_len = at - h.code_off;

    let mut f = BufWriter::new(std::fs::File::create(out)?);
    f.write_all(bytes_of(&[h]))?;
    f.seek(SeekFrom::Start(h.index_off))?;
    f.write_all(bytes_of(&artifacts.iter().map(|a| a.entry).collect::<Vec<_>>()))?;
    f.seek(SeekFrom::Start(h.nids_off))?;
    f.write_all(bytes_of(&nids))?;
    for a in artifacts.iter().filter(|a| !a.code.is_empty()) {
        let mut section = vec![0u8; (a.entry.text_end - a.entry.text_start) as usize];
        for &(off, payload) in &a.map {
            let payload = if payload & MAP_BLOCK != 0 { payload } else { payload - 1 + a.entry.slot_base };
            // text_start is a page's start, so that the offset has the address's low bits.
            let at = (off & !3) as usize;
            section[at..at + 4].copy_from_slice(&map_word(off, payload).to_le_bytes());
        }
        f.seek(SeekFrom::Start(a.entry.map_off))?;
        f.write_all(&section)?;
    }
    for a in artifacts.iter().filter(|a| !a.code.is_empty()) {
        f.seek(SeekFrom::Start(a.entry.code_off))?;
        f.write_all(&a.code)?;
    }
    f.flush()?;
    let file = f.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.set_len(pad(at))
}

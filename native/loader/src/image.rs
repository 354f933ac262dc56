//! What a zygote holds of one image: the mapped image.erofs, the megabinary's code and dispatch
//! maps, the engine and the deserialised modules. Built once, inherited by every guest process.

pub mod calls;
pub mod overridden;
mod walk;

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use vkernel_abi::megabinary::{self as mega, Entry, Header, Nid};
use vkernel_abi::wasm::{MAP_PAGES, REGION_PAGES, STATE_PAGES};
use wasmtime::{CustomCodeMemory, Engine, LinearMemory, MemoryCreator, MemoryType, Module};

pub struct Elf {
    pub entry: Entry,
    /// None: nothing was translated.
    pub module: Option<Module>,
}

pub struct Image {
    pub engine: Engine,
    pub elfs: Vec<Elf>,
    pub by_nid: HashMap<u64, u32>,
    /// Shared read-only mapping of all dispatch-map sections.
    maps: *mut u8,
    maps_off: u64,
    /// Whole image.erofs, read only; empty without one.
    pub erofs: &'static [u8],
    pub erofs_fd: i32,
}

// SAFETY: the pointers are to read-only mappings that live as long as the process.
unsafe impl Sync for Image {}
// SAFETY: as above.
unsafe impl Send for Image {}

static IMAGE: OnceLock<Image> = OnceLock::new();
/// Host address of the dispatch map, wasm memory 2.
static MAP: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    /// The state page that this thread's next instantiation gets as memory 1.
    static STATE_PAGE: AtomicPtr<u8> = const { AtomicPtr::new(std::ptr::null_mut()) };
}

const MIB: usize = 1 << 20;
const GIB4: usize = 4 << 30;

pub fn get() -> &'static Image {
    IMAGE.get().expect("set at boot")
}

pub fn set_state_page(p: *mut u8) {
    STATE_PAGE.with(|s| s.store(p, Ordering::Relaxed));
}

/// The dispatch map's word for a guest address.
pub fn map_payload(pc: u32) -> u32 {
    let base = MAP.load(Ordering::Relaxed) as *const u8;
    // SAFETY: the reservation covers 4 GiB and a guard, all readable.
    let word = unsafe { base.add((pc & !3) as usize).cast::<u32>().read() };
    vkernel_abi::wasm::map_payload(pc, word)
}

fn map(at: usize, len: usize, prot: i32, flags: i32, fd: i32, off: u64) -> Result<*mut u8, String> {
    // SAFETY: a fresh mapping, or MAP_FIXED inside our own reservation.
    let p = unsafe { libc::mmap(at as *mut _, len, prot, flags, fd, off as i64) };
    if p == libc::MAP_FAILED {
        return Err(format!("cannot map {len} bytes: {}", std::io::Error::last_os_error()));
    }
    Ok(p.cast())
}

struct Memory(usize, usize);
// SAFETY: the base and size never change and cover the memory and its guard.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.1
    }
    fn byte_capacity(&self) -> usize {
        self.1
    }
    fn grow_to(&mut self, _: usize) -> wasmtime::Result<()> {
        Err(wasmtime::format_err!("the guest's memories have a fixed size"))
    }
    fn as_ptr(&self) -> *mut u8 {
        self.0 as *mut u8
    }
}

struct Creator;
// SAFETY: hands out mappings that satisfy the reservation and guard of the configuration; see the
// constants in vkernel_abi::wasm.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        ty: MemoryType,
        min: usize,
        _max: Option<usize>,
        _reserved: Option<usize>,
        _guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let base = match ty.minimum() {
            REGION_PAGES => crate::guest::base() as usize,
            STATE_PAGES => STATE_PAGE.with(|s| s.load(Ordering::Relaxed)) as usize,
            MAP_PAGES => MAP.load(Ordering::Relaxed),
            n => return Err(format!("no memory has {n} pages")),
        };
        Ok(Box::new(Memory(base, min)))
    }
}

/// The code is mapped R-X before the engine sees it and never changes protection.
struct Published;
impl CustomCodeMemory for Published {
    fn required_alignment(&self) -> usize {
        4096
    }
    fn publish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
        Ok(())
    }
    fn unpublish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// Reserves the region and the dispatch map, and builds the engine.
fn engine() -> Result<Engine, String> {
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let region = map(0, GIB4 + 2 * MIB, libc::PROT_NONE, private, -1, 0)?;
    crate::guest::set_base(region);
    let map_base = map(0, GIB4 + 2 * MIB, libc::PROT_READ, private, -1, 0)?;
    MAP.store(map_base as usize, Ordering::Relaxed);
    let mut config = vkernel_engine::config();
    config.with_host_memory(Arc::new(Creator));
    config.with_custom_code_memory(Some(Arc::new(Published)));
    Engine::new(&config).map_err(|e| format!("engine: {e:#}"))
}

fn table<T: Copy>(bytes: &[u8], off: u64, count: u64) -> Result<Vec<T>, String> {
    let size = size_of::<T>() as u64;
    let end = count.checked_mul(size).and_then(|n| n.checked_add(off));
    if end.is_none_or(|end| end > bytes.len() as u64) {
        return Err("megabinary: a table lies outside the file".into());
    }
    // SAFETY: in bounds; T is one of the format's plain structs; reads are unaligned.
    Ok((0..count)
        .map(|n| unsafe { bytes.as_ptr().add((off + n * size) as usize).cast::<T>().read_unaligned() })
        .collect())
}

/// Maps the megabinary (already verified, if the caller verifies) and the image, and closes `mega_fd`.
pub fn load(mega_fd: Option<i32>, erofs_fd: Option<i32>) -> Result<&'static Image, String> {
    let engine = engine()?;
    let mut image = Image {
        engine,
        elfs: Vec::new(),
        by_nid: HashMap::new(),
        maps: std::ptr::null_mut(),
        maps_off: 0,
        erofs: &[],
        erofs_fd: -1,
    };
    if let Some(fd) = erofs_fd {
        let len = file_size(fd)?;
        let p = map(0, len as usize, libc::PROT_READ, libc::MAP_SHARED, fd, 0)?;
        // SAFETY: a mapping of `len` bytes that is never unmapped.
        image.erofs = unsafe { std::slice::from_raw_parts(p, len as usize) };
        image.erofs_fd = fd;
    }
    if let Some(fd) = mega_fd {
        load_megabinary(&mut image, fd)?;
    }
    IMAGE.set(image).map_err(|_| "an image is already loaded".to_string())?;
    Ok(get())
}

pub fn file_size(fd: i32) -> Result<u64, String> {
    // SAFETY: fstat fills the struct.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &mut st) != 0 {
            return Err(format!("fstat: {}", std::io::Error::last_os_error()));
        }
        Ok(st.st_size as u64)
    }
}

fn load_megabinary(image: &mut Image, fd: i32) -> Result<(), String> {
    let len = file_size(fd)?;
    if len < mega::PAGE {
        return Err("megabinary: shorter than its header".into());
    }
    let p = map(0, len as usize, libc::PROT_READ, libc::MAP_SHARED, fd, 0)?;
    // SAFETY: a mapping of `len` bytes, unmapped at the end of this function.
    let bytes = unsafe { std::slice::from_raw_parts(p, len as usize) };
    let h: Header = table(bytes, 0, 1)?[0];
    if h.magic != mega::MAGIC || h.abi_version != mega::ABI_VERSION {
        return Err(format!("megabinary: version {} is not {}: rebuild the image", h.abi_version, mega::ABI_VERSION));
    }
    let inside = |off: u64, n: u64| off.is_multiple_of(mega::PAGE) && off.checked_add(n).is_some_and(|e| e <= len);
    if !inside(h.code_off, h.code_len) || !inside(h.maps_off, h.maps_len) {
        return Err("megabinary: a section lies outside the file".into());
    }
    let entries: Vec<Entry> = table(bytes, h.index_off, u64::from(h.count))?;
    for nid in table::<Nid>(bytes, h.nids_off, h.nid_count)? {
        if u64::from(nid.entry) < u64::from(h.count) {
            image.by_nid.insert(nid.nid, nid.entry);
        }
    }
    if h.maps_len > 0 {
        image.maps = map(0, h.maps_len as usize, libc::PROT_READ, libc::MAP_SHARED, fd, h.maps_off)?;
        image.maps_off = h.maps_off;
    }
    let code = if h.code_len > 0 {
        let rx = libc::PROT_READ | libc::PROT_EXEC;
        let code = map(0, h.code_len as usize, rx, libc::MAP_PRIVATE, fd, h.code_off)?;
        crate::profile::code_at(code, h.code_len as usize);
        code
    } else {
        std::ptr::null_mut()
    };
    for entry in entries {
        let module = if entry.code_len == 0 {
            None
        } else {
            let from = entry.code_off.wrapping_sub(h.code_off);
            if from.checked_add(entry.code_len).is_none_or(|end| end > h.code_len) {
                return Err("megabinary: code lies outside its section".into());
            }
            let part = NonNull::new(code.wrapping_add(from as usize)).ok_or("megabinary: no code")?;
            let part = NonNull::slice_from_raw_parts(part, entry.code_len as usize);
            // SAFETY: the bytes are a signed artefact of our compiler, mapped for good.
            let m = unsafe { Module::deserialize_raw(&image.engine, part) };
            Some(m.map_err(|e| format!("megabinary: native code: {e:#}"))?)
        };
        image.elfs.push(Elf { entry, module });
    }
    // SAFETY: the read-only view of the whole file is not used any more.
    unsafe { libc::munmap(p.cast(), len as usize) };
    Ok(())
}

impl Image {
    /// Shows (or hides) an ELF's functions in the dispatch map.
    pub fn install_map(&self, elf: u32) -> Result<(), String> {
        let e = &self.elfs[elf as usize].entry;
        let len = (e.text_end - e.text_start) as usize;
        if len == 0 || self.elfs[elf as usize].module.is_none() {
            return Ok(());
        }
        let from = self.maps.wrapping_add((e.map_off - self.maps_off) as usize);
        let to = MAP.load(Ordering::Relaxed) + e.text_start as usize;
        // SAFETY: an old size of zero duplicates a shared mapping (mremap(2)); the target lies in
        // our reservation.
        let p = unsafe {
            libc::mremap(from.cast(), 0, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to as *mut libc::c_void)
        };
        if p == libc::MAP_FAILED {
            return Err(format!("dispatch map: {}", std::io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Makes the map empty for a range of guest addresses.
    pub fn clear_map(&self, start: u64, end: u64) -> Result<(), String> {
        let at = MAP.load(Ordering::Relaxed) + start as usize;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        map(at, (end - start) as usize, libc::PROT_READ, flags, -1, 0).map(|_| ())
    }
}

//! ELF files that are wrong on purpose: each is refused with a reason, or translated to a module that is
//! valid, within time and memory. Seeds are printed; `FUZZ_SEED` repeats one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use vkernel_recompiler::{elf::Elf, module, place::Placer};

/// For one input. The slowest takes a hundredth of it.
const LIMIT: Duration = Duration::from_secs(20);
const MEMORY_KIB: u64 = 1 << 20;

struct Rng(u64);

impl Rng {
    /// splitmix64
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// Numbers that break arithmetic.
    fn odd(&mut self) -> u64 {
        match self.below(6) {
            0 => u64::MAX - self.next() % 9,
            1 => 1 << self.below(64),
            2 => (1u64 << self.below(64)) - 1,
            3 => self.next() % 0x3000,
            4 => u64::from(u32::MAX) - self.next() % 0x2000,
            _ => self.next(),
        }
    }
}

fn put(b: &mut [u8], at: usize, v: u64, len: usize) {
    if let Some(to) = b.get_mut(at..at + len) {
        to.copy_from_slice(&v.to_le_bytes()[..len]);
    }
}

/// An ELF of one page of text, taken from real code, and one of data with words that point into it.
fn small(r: &mut Rng, real: &[u8]) -> Vec<u8> {
    const TEXT: usize = 0x1000;
    let size = 64 + r.below(700);
    let mut b = vec![0u8; TEXT + size];
    b[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put(&mut b, 16, [2, 3][r.below(2)], 2);
    put(&mut b, 18, 62, 2);
    put(&mut b, 20, 1, 4);
    let base = 0x40_0000u64;
    put(&mut b, 24, base + TEXT as u64 + r.next() % 16, 8);
    put(&mut b, 32, 64, 8);
    put(&mut b, 52, 64, 2);
    put(&mut b, 54, 56, 2);
    put(&mut b, 56, 2, 2);
    for (n, (flags, off, len)) in [(5, TEXT, size), (4, 0x200, 0x400)].into_iter().enumerate() {
        let at = 64 + 56 * n;
        let vaddr = base + if n == 0 { TEXT } else { 0x10_0200 } as u64;
        for (k, v) in [(8, off as u64), (16, vaddr), (24, vaddr), (32, len as u64), (40, len as u64), (48, 0x1000)] {
            put(&mut b, at + k, v, 8);
        }
        put(&mut b, at, 1, 4);
        put(&mut b, at + 4, flags, 4);
    }
    for n in 0..r.below(64) {
        put(&mut b, 0x200 + 8 * n, base + TEXT as u64 + r.next() % size as u64, 8);
    }
    let from = r.below(real.len() - size);
    b[TEXT..].copy_from_slice(&real[from..from + size]);
    for _ in 0..r.below(40) {
        let at = TEXT + r.below(size);
        b[at] = r.next() as u8;
    }
    b
}

/// A file with some of its bytes, header fields or its end changed.
fn broken(r: &mut Rng, whole: &[u8]) -> Vec<u8> {
    let mut b = whole.to_vec();
    for _ in 0..1 + r.below(6) {
        let v = r.odd();
        match r.below(5) {
            0 => put(&mut b, 16 + r.below(48), v, 1 << r.below(4)),
            1 => put(&mut b, 64 + 8 * r.below(91), v, 8),
            2 => {
                let at = r.below(b.len());
                b[at] = v as u8;
            }
            3 => {
                let at = r.below(b.len()) & !7;
                put(&mut b, at, v, 8);
            }
            _ => b.truncate(r.below(whole.len())),
        }
        if b.len() < 8 {
            break;
        }
    }
    b
}

/// Whether it was translated. Err: to a module that is not valid.
fn attempt(bytes: &[u8]) -> Result<bool, String> {
    let Ok(elf) = Elf::parse(bytes) else { return Ok(false) };
    let Ok(base) = Placer::default().place(&elf, &[7; 32]) else { return Ok(false) };
    let Some(wasm) = module::translate(&elf, base, &module::Options::default()) else { return Ok(false) };
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all())
        .validate_all(&wasm.bytes)
        .map(|_| true)
        .map_err(|e| format!("not valid: {e}"))
}

fn input(seed: u64, whole: &[u8]) -> Vec<u8> {
    let mut r = Rng(seed);
    if r.below(20) == 0 {
        broken(&mut r, whole)
    } else {
        let mut b = small(&mut r, &whole[whole.len() / 8..]);
        if r.below(2) == 0 {
            b = broken(&mut r, &b);
        }
        b
    }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}

fn run(count: u64) {
    let whole = std::fs::read("/bin/true").expect("every Linux has it");
    let first = match std::env::var("FUZZ_SEED") {
        Ok(s) => s.parse().expect("FUZZ_SEED is a number"),
        Err(_) => std::process::id() as u64 * 1_000_003,
    };
    println!("seeds {first} to {}", first + count - 1);
    let (to, from) = channel();
    std::thread::spawn(move || {
        for seed in first..first + count {
            let b = input(seed, &whole);
            let outcome = catch_unwind(AssertUnwindSafe(|| attempt(&b))).unwrap_or_else(|_| Err("panicked".into()));
            if to.send((seed, outcome)).is_err() {
                return;
            }
        }
    });
    let (mut next, mut translated) = (first, 0);
    loop {
        match from.recv_timeout(LIMIT) {
            Ok((seed, outcome)) => {
                match outcome {
                    Ok(t) => translated += u64::from(t),
                    Err(e) => panic!("{e}: FUZZ_SEED={seed}"),
                }
                next = seed + 1;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("no end within {LIMIT:?}: FUZZ_SEED={next}"),
        }
    }
    println!("{translated} of {count} were translated");
    assert!(translated > count / 4, "the inputs test the reader only");
    assert!(peak_kib() < MEMORY_KIB, "used {} KiB", peak_kib());
}

#[test]
fn mutated_files() {
    run(3000);
}

#[test]
#[ignore = "npm run test:long"]
fn a_million_mutated_files() {
    run(1_000_000);
}

/// What is refused says why.
#[test]
fn reasons() {
    let whole = std::fs::read("/bin/true").expect("every Linux has it");
    let with = |at: usize, v: u64, len: usize| {
        let mut b = whole.clone();
        put(&mut b, at, v, len);
        Elf::parse(&b).err().unwrap_or_default()
    };
    assert!(with(18, 3, 2).contains("machine 3"));
    assert!(!with(4, 1, 1).is_empty());
    assert!(Elf::parse(&whole[..100]).is_err());
    let mut r = Rng(1);
    let file = small(&mut r, &whole);
    let second = 64 + 56;
    let parsed = |at: usize, v: u64| {
        let mut b = file.clone();
        put(&mut b, at, v, 8);
        Elf::parse(&b).err().unwrap_or_default()
    };
    assert_eq!(parsed(second + 16, 0x40_1000), "two segments overlap");
    assert_eq!(parsed(second + 40, 1), "a segment has more bytes in the file than in memory");
    assert_eq!(parsed(second + 40, u64::MAX - 7), "a segment lies outside the 4 GiB of a guest's memory");
    assert_eq!(parsed(second + 8, 1 << 40), "a segment lies outside the file");
}

//! Random control-flow graphs: forward and backward branches on every condition, loops into the
//! middle of loops, jump tables, computed jumps and calls, around random instructions. Every backward
//! edge costs fuel (rcx), so every program ends.

use crate::area::{SCRATCH, SCRATCH_LEN, TEXT};
use crate::batch::Layout;
use crate::dump;
use crate::generate::Generator;
use crate::program::{Program, Setup, accept_anywhere};
use vkernel_abi::state::{RBX, RCX, RSP};

const MIDDLE: u64 = SCRATCH + SCRATCH_LEN as u64 / 2;

/// Code with jumps to labels.
struct Assembler {
    at: u64,
    code: Vec<u8>,
    labels: Vec<Option<u64>>,
    /// Offset of a 32-bit distance, and its label.
    fixups: Vec<(usize, usize)>,
}

impl Assembler {
    fn pc(&self) -> u64 {
        self.at + self.code.len() as u64
    }
    fn bytes(&mut self, b: &[u8]) {
        self.code.extend(b);
    }
    /// An opcode followed by the distance to a label.
    fn to(&mut self, opcode: &[u8], label: usize) {
        self.bytes(opcode);
        self.fixups.push((self.code.len(), label));
        self.bytes(&[0; 4]);
    }
    fn resolve(&mut self) {
        for (off, label) in std::mem::take(&mut self.fixups) {
            let next = self.at + off as u64 + 4;
            let to = self.labels[label].expect("every label is placed");
            self.code[off..off + 4].copy_from_slice(&(to.wrapping_sub(next) as u32).to_le_bytes());
        }
    }
}

/// A few random instructions, then one that defines all flags when some are not.
fn body(g: &mut Generator, a: &mut Assembler, s: &mut Setup, called: bool) {
    s.define_flags();
    for _ in 0..g.rng.below(5) {
        for _ in 0..200 {
            let mut e = g.next(a.pc());
            if accept_anywhere(&mut e, s, &mut g.rng, called) {
                a.bytes(&e.bytes);
                break;
            }
        }
    }
    if s.has_undefined_flags() {
        a.bytes(&[0x39, 0xc0 | g.rng.byte() & 0x3f]); // cmp r32, r32
    }
    s.define_flags();
}

/// rcx -= 1, and out when it is 0; no flag changes.
fn burn(a: &mut Assembler) {
    a.bytes(&[0x48, 0x8d, 0x49, 0xff, 0xe3, 0x02, 0xeb, 0x05]);
    let at = a.at;
    dump::jump(&mut a.code, at, TEXT);
}

/// A jump table under construction: offset of its LEA's displacement, targets, whether absolute.
type Tables = Vec<(usize, Vec<usize>, bool)>;

/// A computed jump to one of four blocks, as compilers make them for switch, or for labels as values.
fn switch(g: &mut Generator, a: &mut Assembler, tables: &mut Tables, landings: &[usize], absolute: bool) {
    let targets = (0..4).map(|_| g.rng.pick(landings)).collect();
    // mov eax, r32; and eax, 3; lea rdx, [rip + table]
    a.bytes(&[0x89, 0xc0 | (g.rng.byte() & 7) << 3, 0x83, 0xe0, 0x03, 0x48, 0x8d, 0x15]);
    tables.push((a.code.len(), targets, absolute));
    a.bytes(&[0; 4]);
    if absolute {
        // jmp [rdx + rax*8]
        a.bytes(&[0xff, 0x24, 0xc2]);
    } else {
        // movsxd rax, [rdx + rax*4]; add rax, rdx; jmp rax
        a.bytes(&[0x48, 0x63, 0x04, 0x82, 0x48, 0x01, 0xd0, 0xff, 0xe0]);
    }
}

/// cmp eax, ebx: no code counts on flags across a call, a return or a computed jump.
const COMPARE: &[u8] = &[0x39, 0xd8];

/// Adds a program to the layout.
pub fn random(g: &mut Generator, layout: &mut Layout) -> Program {
    let mut s = Setup::default();
    for (r, v) in
        [(RBX, MIDDLE), (12, MIDDLE + 128), (13, MIDDLE + 261), (14, g.rng.below(9)), (RCX, 1 + g.rng.below(24))]
    {
        s.fixed[r] = Some(v);
    }
    let blocks = 2 + g.rng.below(10) as usize;
    let helpers = g.rng.below(3) as usize;
    let mut a =
        Assembler { at: layout.next(), code: Vec::new(), labels: vec![None; blocks + helpers], fixups: Vec::new() };
    let pc = a.at;
    // Where computed jumps may go; never to the entry, which is behind no label.
    let landings: Vec<usize> = (1..blocks).filter(|n| *n == 1 || g.rng.one_in(3)).collect();
    let mut tables = Tables::new();
    for n in 0..blocks {
        a.labels[n] = Some(a.pc());
        if landings.contains(&n) {
            a.bytes(COMPARE);
        }
        burn(&mut a);
        body(g, &mut a, &mut s, false);
        let any = |g: &mut Generator| g.rng.below(blocks as u64) as usize;
        match g.rng.below(12) {
            0 => {
                let t = any(g);
                a.to(&[0xe9], t);
            }
            1 => switch(g, &mut a, &mut tables, &landings, false),
            2 if helpers > 0 => {
                a.to(&[0xe8], blocks + g.rng.below(helpers as u64) as usize);
                a.bytes(COMPARE);
            }
            3 => switch(g, &mut a, &mut tables, &landings, true),
            4 => {}
            _ => {
                let t = any(g);
                let condition = g.rng.byte() & 15;
                a.to(&[0x0f, 0x80 | condition], t);
            }
        }
    }
    let at = a.at;
    dump::jump(&mut a.code, at, TEXT);
    for h in 0..helpers {
        while !a.pc().is_multiple_of(16) {
            a.code.push(0xcc);
        }
        a.labels[blocks + h] = Some(a.pc());
        a.bytes(COMPARE);
        body(g, &mut a, &mut s, true);
        // js over; neg edx; over: ret
        a.bytes(&[0x78, 0x02, 0xf7, 0xda]);
        body(g, &mut a, &mut s, true);
        a.bytes(&[0xc3]);
    }
    a.resolve();
    let inner: Vec<u64> = a.labels[blocks..].iter().flatten().copied().collect();
    let at = layout.add_parts(&a.code, &inner);
    // For reports: all of it.
    let p = iced_x86::Decoder::with_ip(64, &a.code, at, vkernel_semantics::decode::OPTIONS).into_iter().collect();
    for (off, targets, absolute) in tables {
        let targets = targets.iter().map(|t| a.labels[*t].expect("placed")).collect();
        layout.table(at + off as u64, targets, absolute);
    }
    // Only now: nothing above may use it for an address, return addresses are there.
    s.fixed[RSP] = Some(MIDDLE + 1024);
    Program { pc, instructions: p, setup: s, single: false }
}

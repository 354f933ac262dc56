//! Wasm locals of a function: four parameters, the guest's registers and flags, and temporaries that
//! are reused from block to block.

use vkernel_abi::state::{RDI, RDX, RSI, RSP};
use wasm_encoder::ValType;

const GPR: u32 = 4;
const FLAG: u32 = GPR + 16;
const XMM: u32 = FLAG + 7;
const TEMPS: u32 = XMM + 16;

#[derive(Default)]
pub struct Locals {
    temps: Vec<ValType>,
    free: [Vec<u32>; 5],
    used: [Vec<u32>; 5],
}

impl Locals {
    /// Parameters are (rsp, rdi, rsi, rdx).
    pub fn gpr(&self, r: usize) -> u32 {
        match r {
            RSP => 0,
            RDI => 1,
            RSI => 2,
            RDX => 3,
            _ => GPR + r as u32,
        }
    }
    pub fn flag(&self, f: usize) -> u32 {
        FLAG + f as u32
    }
    pub fn xmm(&self, r: usize) -> u32 {
        XMM + r as u32
    }

    fn temp(&mut self, kind: usize, ty: ValType) -> u32 {
        let l = self.free[kind].pop().unwrap_or_else(|| {
            self.temps.push(ty);
            TEMPS + self.temps.len() as u32 - 1
        });
        self.used[kind].push(l);
        l
    }
    pub fn temp32(&mut self) -> u32 {
        self.temp(0, ValType::I32)
    }
    pub fn temp64(&mut self) -> u32 {
        self.temp(1, ValType::I64)
    }
    pub fn temp128(&mut self) -> u32 {
        self.temp(2, ValType::V128)
    }
    /// For a float of 4 or 8 bytes.
    pub fn temp_float(&mut self, single: bool) -> u32 {
        if single { self.temp(3, ValType::F32) } else { self.temp(4, ValType::F64) }
    }
    /// A local that no block reuses.
    pub fn kept(&mut self, ty: ValType) -> u32 {
        self.temps.push(ty);
        TEMPS + self.temps.len() as u32 - 1
    }
    /// At the end of a block: its temporaries may be used again.
    pub fn release(&mut self) {
        for kind in 0..self.used.len() {
            let used = std::mem::take(&mut self.used[kind]);
            self.free[kind].extend(used);
        }
    }

    /// Types of everything behind the parameters.
    pub fn types(&self) -> Vec<ValType> {
        let mut t = vec![ValType::I64; 16];
        t.extend([ValType::I32; 7]);
        t.extend([ValType::V128; 16]);
        t.extend(&self.temps);
        t
    }
}

//! The host CPU as the oracle for instruction semantics: random instruction instances with random
//! states run natively, and a backend must leave the same registers, flags and memory.
//! Test code only; nothing that ships depends on it.

pub mod cases;
pub mod host;

use vkernel_abi::state::CpuState;

/// Scratch memory that operands point into, in the low 4 GiB so that guest addresses are host
/// addresses (the region's base is 0 in these tests).
pub const SCRATCH: usize = 0x1000_0000;
pub const SCRATCH_LEN: usize = 8192;

/// A state as the comparison sees it.
#[derive(Clone, PartialEq)]
pub struct Snapshot {
    pub gpr: [u64; 16],
    pub rflags: u64,
    pub mxcsr: u32,
    pub xmm: [u128; 16],
    /// x87: control, status, tag, and the eight registers without FOP, FIP, FDP.
    pub x87: Vec<u8>,
    pub memory: Vec<u8>,
    /// Signal that a native run got, or that the backend's trap stands for; 0: none.
    pub signal: i32,
}

impl Snapshot {
    pub fn of(state: &CpuState, memory: &[u8], signal: i32) -> Self {
        let mut x87 = state.fx[0..5].to_vec();
        for n in 0..8 {
            x87.extend_from_slice(&state.fx[32 + n * 16..][..10]);
        }
        Self {
            gpr: state.gpr,
            rflags: state.rflags() & 0xcd5,
            mxcsr: state.mxcsr & 0xffff,
            xmm: state.xmm,
            x87,
            memory: memory.to_vec(),
            signal,
        }
    }

    /// Differences, one a line; flags outside `flags` do not count.
    pub fn diff(&self, other: &Self, flags: u64) -> Vec<String> {
        let mut d = Vec::new();
        if self.signal != other.signal {
            return vec![format!("signal {} != {}", self.signal, other.signal)];
        }
        // After a fault only the registers matter, and they must be unchanged on both sides.
        for n in 0..16 {
            if self.gpr[n] != other.gpr[n] {
                d.push(format!("gpr{n} {:#x} != {:#x}", self.gpr[n], other.gpr[n]));
            }
            if self.xmm[n] != other.xmm[n] {
                d.push(format!("xmm{n} {:#034x} != {:#034x}", self.xmm[n], other.xmm[n]));
            }
        }
        if (self.rflags ^ other.rflags) & flags != 0 {
            d.push(format!("rflags {:#x} != {:#x} (mask {flags:#x})", self.rflags, other.rflags));
        }
        if self.mxcsr != other.mxcsr {
            d.push(format!("mxcsr {:#x} != {:#x}", self.mxcsr, other.mxcsr));
        }
        if self.x87 != other.x87 {
            d.push(format!("x87\n  {:02x?}\n  {:02x?}", self.x87, other.x87));
        }
        for (n, (a, b)) in self.memory.iter().zip(&other.memory).enumerate() {
            if a != b {
                d.push(format!("memory+{n:#x} {a:#x} != {b:#x}"));
                if d.len() > 12 {
                    break;
                }
            }
        }
        d
    }
}

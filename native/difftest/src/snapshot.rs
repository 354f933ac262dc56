//! A state as the comparison sees it.

use vkernel_abi::state::CpuState;

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
    /// Where the signal happened; 0: none did.
    pub pc: u64,
}

/// What counts in a comparison.
#[derive(Clone, Copy)]
pub struct Mask {
    pub flags: u64,
    pub mxcsr: u32,
    /// After a signal: registers and memory too.
    pub after_signal: bool,
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
            pc: if signal == 0 { 0 } else { state.rip },
        }
    }

    /// Differences, one a line.
    pub fn diff(&self, other: &Self, mask: Mask) -> Vec<String> {
        let mut d = Vec::new();
        if self.signal != other.signal {
            return vec![format!("signal {} != {}", self.signal, other.signal)];
        }
        if self.pc != other.pc {
            d.push(format!("fault at {:#x} != {:#x}", self.pc, other.pc));
        }
        if self.signal != 0 && !mask.after_signal {
            return d;
        }
        for n in 0..16 {
            if self.gpr[n] != other.gpr[n] {
                d.push(format!("gpr{n} {:#x} != {:#x}", self.gpr[n], other.gpr[n]));
            }
            if self.xmm[n] != other.xmm[n] {
                d.push(format!("xmm{n} {:#034x} != {:#034x}", self.xmm[n], other.xmm[n]));
            }
        }
        if (self.rflags ^ other.rflags) & mask.flags != 0 {
            d.push(format!("rflags {:#x} != {:#x} (mask {:#x})", self.rflags, other.rflags, mask.flags));
        }
        if (self.mxcsr ^ other.mxcsr) & mask.mxcsr != 0 {
            d.push(format!("mxcsr {:#x} != {:#x} (mask {:#x})", self.mxcsr, other.mxcsr, mask.mxcsr));
        }
        if self.x87 != other.x87 {
            d.push(format!("x87\n  {:02x?}\n  {:02x?}", self.x87, other.x87));
        }
        if self.memory != other.memory {
            let pairs = self.memory.iter().zip(&other.memory).enumerate();
            let different = pairs.filter(|(_, (a, b))| a != b).take(4);
            d.extend(different.map(|(n, (a, b))| format!("memory+{n:#x} {a:#x} != {b:#x}")));
        }
        d
    }
}

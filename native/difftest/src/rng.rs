//! Random numbers with the shapes that find mistakes: boundaries, every class of float.

/// xorshift64*: the same cases on every run of one seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }
    #[allow(clippy::should_implement_trait, reason = "a generator's next number, without an end")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    pub fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
    /// A 64-bit value, often one at a boundary.
    pub fn value(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(4),
            1 => (1u64 << self.below(64)).wrapping_sub(self.below(3)),
            2 => i64::from(self.byte() as i8) as u64,
            3 => self.next() & 0xffff_ffff,
            _ => self.next(),
        }
    }
    /// Bits of a 32- or 64-bit float of every class.
    pub fn float(&mut self, wide: bool) -> u64 {
        let special32 = [0u32, 1, 0x7f_ffff, 0x80_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0001, 0x7f80_0001];
        let special64 = [
            0u64,
            1,
            0xf_ffff_ffff_ffff,
            0x10_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0x7ff8_0000_0000_0001,
            0x7ff0_0000_0000_0001,
        ];
        let pick = self.below(8) as usize;
        let sign = self.below(2);
        match (wide, self.below(4)) {
            (true, 0) => special64[pick] | sign << 63,
            (true, 1) => ((self.below(2000) as f64 - 1000.0) / 8.0).to_bits(),
            (true, 2) => ((self.next() as i64 >> self.below(64)) as f64 / 4.0).to_bits(),
            (true, _) => self.next(),
            (false, 0) => u64::from(special32[pick]) | sign << 31,
            (false, 1) => u64::from(((self.below(2000) as f32 - 1000.0) / 8.0).to_bits()),
            (false, 2) => u64::from(((self.next() as i64 >> self.below(64)) as f32 / 4.0).to_bits()),
            (false, _) => self.next() & 0xffff_ffff,
        }
    }
    pub fn lanes(&mut self) -> u128 {
        match self.below(3) {
            0 => u128::from(self.float(true)) | u128::from(self.float(true)) << 64,
            1 => (0..4).fold(0, |v, n| v | u128::from(self.float(false)) << (32 * n)),
            _ => u128::from(self.next()) << 64 | u128::from(self.next()),
        }
    }
}

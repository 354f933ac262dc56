/**
 * What the guest's CPU says it is (docs/quirks.md): CPUID, /proc/cpuinfo and AT_HWCAP come from this.
 * `npm run gen` writes the words of CPUID to native/abi/src/generated/cpu.rs.
 *
 * A feature is here where programs gain by it; the semantics (native/semantics) know more.
 */

/** Intel's, of a kind for which C libraries choose plain unaligned copies: others they make through jumps into tables. */
export const CPU = { vendor: 'GenuineIntel', family: 6, model: 0x1a, stepping: 5, name: 'vkernel x86-64 CPU', level: 4 } as const

export type Word = 'leaf1Edx' | 'extendedEdx' | 'leaf1Ecx' | 'extendedEcx' | 'leaf7Ebx'
export interface Feature { readonly name: string; readonly word: Word; readonly bit: number }

/** Names and order are those of /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h); `leaf7Ebx` needs `level` 7. */
export const FEATURES: readonly Feature[] = [
  { name: 'fpu', word: 'leaf1Edx', bit: 0 },
  { name: 'tsc', word: 'leaf1Edx', bit: 4 },
  { name: 'cx8', word: 'leaf1Edx', bit: 8 },
  { name: 'cmov', word: 'leaf1Edx', bit: 15 },
  { name: 'clflush', word: 'leaf1Edx', bit: 19 },
  { name: 'mmx', word: 'leaf1Edx', bit: 23 },
  { name: 'fxsr', word: 'leaf1Edx', bit: 24 },
  { name: 'sse', word: 'leaf1Edx', bit: 25 },
  { name: 'sse2', word: 'leaf1Edx', bit: 26 },
  { name: 'syscall', word: 'extendedEdx', bit: 11 },
  { name: 'nx', word: 'extendedEdx', bit: 20 },
  { name: 'lm', word: 'extendedEdx', bit: 29 },
  { name: 'pni', word: 'leaf1Ecx', bit: 0 },
  { name: 'pclmulqdq', word: 'leaf1Ecx', bit: 1 },
  { name: 'ssse3', word: 'leaf1Ecx', bit: 9 },
  { name: 'sse4_1', word: 'leaf1Ecx', bit: 19 },
  { name: 'popcnt', word: 'leaf1Ecx', bit: 23 },
  { name: 'lahf_lm', word: 'extendedEcx', bit: 0 },
]

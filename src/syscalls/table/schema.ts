/**
 * The vocabulary of the system call table. An entry states one x86-64 call; the generator derives
 * the loader's dispatch, the seccomp list, docs/syscalls.md and the policy groups from it.
 * Entries never import handlers, so the generator runs without the daemon.
 */

/** Who answers (DESIGN: call classes); `absent`: nobody yet, ENOSYS and one audit record a program. */
export type Class = 'local' | 'direct' | 'image' | 'mediated' | 'refused' | 'absent'

export type Arg =
  /** Any integer, passed on as it is. */
  | { readonly kind: 'int' }
  /** A set of bits of which unknown ones are EINVAL on Linux (conformance/probes.ts asks). */
  | { readonly kind: 'flags' }
  /** An address that the loader itself looks at; null may be allowed. */
  | { readonly kind: 'pointer' }
  /** An open descriptor. */
  | { readonly kind: 'fd' }
  /** A directory descriptor or AT_FDCWD, for the path behind it. */
  | { readonly kind: 'dirfd' }
  /** A NUL-terminated path. */
  | { readonly kind: 'path' }
  /** Memory of `size` bytes, or of as many bytes as argument number `lenArg` says × `scale`. */
  | { readonly kind: 'ptr'; readonly dir: 'in' | 'out' | 'inout'; readonly size: number; readonly lenArg: number; readonly scale: number }
  /** A NUL-terminated name that is no path (an attribute's). */
  | { readonly kind: 'cstr' }
  /** An iovec array whose length is argument `countArg`. */
  | { readonly kind: 'iov'; readonly countArg: number }

export const int: Arg = { kind: 'int' }
export const flags: Arg = { kind: 'flags' }
export const pointer: Arg = { kind: 'pointer' }
export const fd: Arg = { kind: 'fd' }
export const dirfd: Arg = { kind: 'dirfd' }
export const path: Arg = { kind: 'path' }
export const cstr: Arg = { kind: 'cstr' }

type Names<A> = keyof A & string

/** Sized by a sibling argument, or fixed. Resolved to an argument index by `syscall`. */
interface Sized { readonly kind: 'sized'; readonly dir: 'in' | 'out' | 'inout'; readonly of: string | number; readonly scale: number }
interface Vector { readonly kind: 'vector'; readonly of: string }
export type ArgSpec = Arg | Sized | Vector

const sized = (dir: Sized['dir']) => (of: string | number, scale = 1): Sized => ({ kind: 'sized', dir, of, scale })
/** Memory the call reads. */
export const input = sized('in')
/** Memory the call writes. */
export const output = sized('out')
export const inout = sized('inout')
export const iov = (of: string): Vector => ({ kind: 'vector', of })

export interface About {
  readonly class: Class
  /** Policy group that grants the call. */
  readonly policy: 'fd' | 'file' | 'mm' | 'process' | 'signal' | 'time' | 'net' | 'poll' | 'system' | 'ipc'
  /** One sentence, imperative. */
  readonly doc: string
  /** What vkernel answers besides the kernel's own errors. */
  readonly errno?: readonly string[]
  /** Restarted after a handler with SA_RESTART (signal(7)). */
  readonly restart?: boolean
  /** Returns a new descriptor. */
  readonly newFd?: boolean
  /** Where the behaviour differs from Linux: a row of docs/quirks.md. */
  readonly quirk?: string
}

export interface Entry extends About {
  readonly nr: number
  readonly name: string
  readonly args: readonly { readonly name: string; readonly arg: Arg }[]
}

export function syscall<const A extends Record<string, ArgSpec>>(nr: number, name: string, args: A, about: About): Entry {
  const names = Object.keys(args) as Names<A>[]
  const index = (of: string): number => {
    const n = names.indexOf(of)
    if (n < 0) throw new Error(`${name}: no argument ${of}`)
    return n
  }
  const resolve = (spec: ArgSpec): Arg => {
    if (spec.kind === 'vector') return { kind: 'iov', countArg: index(spec.of) }
    if (spec.kind !== 'sized') return spec
    return typeof spec.of === 'number'
      ? { kind: 'ptr', dir: spec.dir, size: spec.of, lenArg: 255, scale: 1 }
      : { kind: 'ptr', dir: spec.dir, size: 0, lenArg: index(spec.of), scale: spec.scale }
  }
  return Object.freeze({ nr, name, args: names.map((n) => ({ name: n, arg: resolve(args[n]!) })), ...about })
}

/** Rows for calls that nobody answers yet. */
export function absent(policy: About['policy'], why: string, calls: Record<string, number>): Entry[] {
  return Object.entries(calls).map(([name, nr]) =>
    Object.freeze({ nr, name, args: [], class: 'absent' as const, policy, doc: 'Not implemented.', errno: ['ENOSYS'], quirk: why }))
}

/** Rows for calls that are known and always denied. */
export function refused(policy: About['policy'], why: string, calls: Record<string, number>): Entry[] {
  return Object.entries(calls).map(([name, nr]) =>
    Object.freeze({ nr, name, args: [], class: 'refused' as const, policy, doc: 'Refused.', errno: ['EPERM'], quirk: why }))
}

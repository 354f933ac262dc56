/**
 * A hint file: addresses that shall be functions of an ELF file as well, found by profiles
 * (`recompiler analyze --profile … --hints FILE`) and taken by `recompiler build --hints FILE`.
 *
 *   {"hints":1,"elfs":{"SHA-256 of the file":["0x1234", …]}}        addresses as in the file
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { BuildError } from './tree.ts'

/** Addresses by SHA-256, ascending. */
export type Hints = ReadonlyMap<string, readonly number[]>

/** More for one file are a mistake. */
const MOST = 100_000

export function readHints(file: string): Hints {
  const wrong = (what: string): BuildError => new BuildError(`${file} is no hint file: ${what}; \`recompiler analyze --profile FILE --hints OUT\` writes one`)
  let v: unknown
  try {
    v = JSON.parse(readFileSync(file, 'utf8'))
  } catch (e) {
    throw wrong((e as Error).message)
  }
  const { hints, elfs } = (v ?? {}) as { hints?: unknown; elfs?: unknown }
  if (hints !== 1 || typeof elfs !== 'object' || elfs === null) throw wrong('it has no "hints": 1 and "elfs"')
  return new Map(Object.entries(elfs).map(([sha256, list]: [string, unknown]) => {
    if (!/^[0-9a-f]{64}$/.test(sha256) || !Array.isArray(list) || list.length > MOST) throw wrong(`"${sha256.slice(0, 80)}" is no SHA-256 with a list of addresses`)
    const addresses = list.map((a: unknown) => (typeof a === 'string' && /^0x[0-9a-f]{1,12}$/.test(a) ? Number(a) : NaN))
    if (addresses.some(Number.isNaN)) throw wrong(`an address of ${sha256.slice(0, 12)} is not of the form "0x1234"`)
    return [sha256, [...new Set(addresses)].sort((a, b) => a - b)]
  }))
}

export function writeHints(file: string, hints: Hints): void {
  const elfs = Object.fromEntries([...hints].sort().map(([sha256, list]) => [sha256, list.map((a) => `0x${a.toString(16)}`)]))
  writeFileSync(file, `${JSON.stringify({ hints: 1, elfs })}\n`)
}

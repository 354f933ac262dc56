/** All entries, sorted by number. */
import type { Entry } from './schema.ts'
import { entries as fd } from './fd.ts'
import { entries as file } from './file.ts'
import { entries as mm } from './mm.ts'
import { entries as net } from './net.ts'
import { entries as poll } from './poll.ts'
import { entries as process } from './process.ts'
import { entries as signal } from './signal.ts'
import { entries as system } from './system.ts'
import { entries as time } from './time.ts'

export const table: readonly Entry[] = Object.freeze(
  [...fd, ...file, ...mm, ...process, ...signal, ...time, ...net, ...poll, ...system].sort((a, b) => a.nr - b.nr))

const byNr = new Map(table.map((e) => [e.nr, e]))
const byName = new Map(table.map((e) => [e.name, e]))

export const entryOf = (nr: number): Entry | undefined => byNr.get(nr)

/** Number of a call by name; throws for a name that is no row. */
export function nrOf(name: string): number {
  const entry = byName.get(name)
  if (!entry) throw new Error(`no system call is named ${name}`)
  return entry.nr
}

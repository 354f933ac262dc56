/** What the verbs share: results as text or as one JSON value on stdout, arguments, exit statuses. */
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { BuildError } from '../image/tree.ts'

/** Our own failures (docker's exit status for them). */
export const FAILED = 125

/** Prints `value` with --json, otherwise the lines. */
export function print(json: boolean | undefined, value: unknown, lines: () => readonly string[]): void {
  process.stdout.write(json ? `${JSON.stringify(value)}\n` : lines().map((l) => `${l}\n`).join(''))
}

/** Columns as wide as their widest cell. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, n) => Math.max(...rows.map((r) => r[n]!.length))) ?? []
  return rows.map((r) => r.map((cell, n) => cell.padEnd(widths[n]!)).join('  ').trimEnd())
}

export function bytes(n: number): string {
  const unit = ['B', 'kB', 'MB', 'GB', 'TB']
  let at = 0
  for (; n >= 1024 && at < unit.length - 1; at++) n /= 1024
  return `${at === 0 ? n : n.toFixed(1)} ${unit[at]}`
}

/** parseArgs whose complaints say what to type. */
export function args<T extends ParseArgsConfig>(verb: string, config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config)
  } catch (e) {
    throw new BuildError(`${verb}: ${(e as Error).message.split('. To specify')[0]}; see \`recompiler help\``)
  }
}

/** The one positional argument of a verb. */
export function one(verb: string, positionals: readonly string[], what: string): string {
  if (positionals.length !== 1) throw new BuildError(`${verb}: ${positionals.length ? 'too many arguments' : `which ${what}?`} usage: recompiler ${verb} ${what.toUpperCase()}; see \`recompiler help\``)
  return positionals[0]!
}

/** What a bench prints and keeps: one row a measurement, the ratio last, with the machine's facts. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'

export interface Row { readonly name: string; readonly native: number; readonly ours: number; readonly unit: string; readonly note?: string }

export const geomean = (values: readonly number[]): number => Math.exp(values.reduce((s, v) => s + Math.log(v), 0) / values.length)

const shown = (v: number, unit: string): string =>
  unit === 'ns' ? (v >= 1e6 ? `${(v / 1e6).toFixed(2)} ms` : v >= 1e3 ? `${(v / 1e3).toFixed(2)} µs` : `${v.toFixed(0)} ns`) : `${v.toPrecision(3)} ${unit}`

/** Prints a result and writes it to bench/results/NAME.md with the machine's facts and the command that makes it. */
export function save(name: string, lines: readonly string[]): void {
  const facts = [
    `- CPU: ${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores; ${(totalmem() / 2 ** 30).toFixed(0)} GiB; Linux ${release()}`,
    `- Debian ${readFileSync('/etc/debian_version', 'utf8').trim()}, ${new Date().toISOString().slice(0, 10)}`,
    `- Command: \`npm run bench -- ${name}\``,
  ]
  const text = `# ${name}\n\n${facts.join('\n')}\n\n${lines.join('\n')}\n`
  console.log(text)
  const dir = join(import.meta.dirname, 'results')
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, `${name}.md`), text)
}

/** The rows as a table, with their geometric mean. */
export function report(name: string, rows: readonly Row[]): void {
  const table = rows.map((r) => `| ${r.name} | ${shown(r.native, r.unit)} | ${shown(r.ours, r.unit)} | ${(r.ours / r.native).toFixed(2)} | ${r.note ?? ''} |`)
  const mean = `Geometric mean of the ratios: ${geomean(rows.map((r) => r.ours / r.native)).toFixed(2)} (${rows.length} rows).`
  save(name, ['| what | peer | ours | ratio | |', '|---|---|---|---|---|', ...table, '', mean])
}

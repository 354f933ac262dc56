/** The system call table against Linux's own list, and what is derived from it against the table. */
import test from 'ava'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { table } from '../src/syscalls/table/index.ts'
import { root } from './stamp.ts'

/** `nr name` lines: Linux's numbers without x32's own (512 and up), which are no part of this ABI. */
const linux = new Map(readFileSync(join(root, 'src/abi/syscall_64.tbl'), 'utf8').split('\n')
  .map((l) => /^(\d+) (\w+)$/.exec(l)).filter((m) => m !== null)
  .map((m) => [Number(m[1]), m[2]!]))

test('Linux\'s list is read whole', (t) => {
  t.true(linux.size > 350)
  t.is(linux.get(0), 'read')
  t.is(linux.get(231), 'exit_group')
})

test('every x86-64 number has a row of the same name', (t) => {
  const rows = new Map(table.map((e) => [e.nr, e.name]))
  t.deepEqual([...linux].filter(([nr, name]) => rows.get(nr) !== name), [])
})

test('no row is of a number that Linux does not have', (t) => {
  t.deepEqual(table.filter((e) => !linux.has(e.nr)).map((e) => e.name), [])
})

test('rows are sorted by number, each once', (t) => {
  const numbers = table.map((e) => e.nr)
  t.deepEqual(numbers, [...new Set(numbers)].sort((a, b) => a - b))
})

test('a length argument names a sibling', (t) => {
  const wrong = table.filter((e) => e.args.some(({ arg }) => arg.kind === 'ptr' && arg.lenArg !== 255 && arg.lenArg >= e.args.length))
  t.deepEqual(wrong.map((e) => e.name), [])
})

test('what is not answered says so: a quirk, and ENOSYS or EPERM', (t) => {
  const wrong = table.filter((e) => (e.class === 'absent' || e.class === 'refused')
    && (!e.quirk || !e.errno?.includes(e.class === 'absent' ? 'ENOSYS' : 'EPERM')))
  t.deepEqual(wrong.map((e) => e.name), [])
})

test('docs/syscalls.md has each row once', (t) => {
  const numbers = [...readFileSync(join(root, 'docs/syscalls.md'), 'utf8').matchAll(/^\| (\d+) \|/gm)].map((m) => Number(m[1]))
  t.deepEqual(numbers, table.map((e) => e.nr))
})

test('the Rust table has each row once, of the same class', (t) => {
  const rows = [...readFileSync(join(root, 'native/abi/src/generated/table.rs'), 'utf8').matchAll(/nr: (\d+), name: "(\w+)", class: Class::(\w+)/g)]
  t.deepEqual(rows.map((m) => [Number(m[1]), m[2], m[3]!.toLowerCase()]), table.map((e) => [e.nr, e.name, e.class]))
})

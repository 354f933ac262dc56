import test from 'ava'
import { readFileSync } from 'node:fs'
import { analyzeFiles, analyzeTree } from './analyze.ts'
import { tinyElf } from './elf.fixture.ts'
import { foreign, isX86Elf, parseElf, visibleSyscalls } from './elf.ts'
import { fromHost } from './from-host.ts'

test('a program of this host: loader, libraries, imports', (t) => {
  const e = parseElf(readFileSync('/bin/true'))
  t.true(e.x86_64)
  t.is(e.interp, '/lib64/ld-linux-x86-64.so.2')
  t.deepEqual(e.needed, ['libc.so.6'])
  t.true(e.imports.includes('exit') || e.imports.includes('_exit'))
  t.is(e.unsupported, undefined)
})

test('what cannot be translated says why', (t) => {
  t.regex(foreign(tinyElf({ machine: 183 }))!, /^built for ARM64; rebuild it for x86-64$/)
  t.regex(foreign(tinyElf({ machine: 3, class: 1 }))!, /32-bit x86/)
  t.regex(foreign(tinyElf({ class: 1 }))!, /x32/)
  t.is(foreign(tinyElf({ type: 1 })), undefined, 'an object file is no program')
  t.false(isX86Elf(tinyElf({ type: 4 })))
  t.regex(parseElf(tinyElf({ dynamic: [[30, 4]] })).unsupported!, /DT_TEXTREL/)
  t.regex(parseElf(tinyElf({ flags: 7 })).unsupported!, /writable and executable/)
})

test('any damage of a header is a finding, never an exception', (t) => {
  const elf = tinyElf({ type: 3, dynamic: [[5, 0x400000], [6, 0x400000], [1, 5]] })
  for (let at = 0; at < 64 + 112; at++) {
    for (const value of [0, 0x7f, 0xff]) {
      const changed = Buffer.from(elf)
      changed[at] = value
      t.notThrows(() => parseElf(changed), `byte ${at} = ${value}`)
    }
  }
  for (let len = 0; len < elf.length; len += 7) t.notThrows(() => parseElf(elf.subarray(0, len)))
})

test('system calls that are plainly visible', (t) => {
  const e = tinyElf()
  t.deepEqual([...visibleSyscalls(e, parseElf(e).text)].sort((a, b) => a - b), [1, 231])
})

test('an image\'s libraries, their closure, and what stands against it', (t) => {
  const a = analyzeTree(fromHost(['/bin/true']))
  const program = a.elfs.find((e) => e.paths.some((p) => p.endsWith('/true')))!
  t.deepEqual(program.needed.map((l) => l.name), ['libc.so.6'])
  t.regex(program.needed[0]!.path!, /\/libc\.so\.6$/)
  t.deepEqual(program.closure.map((p) => p.replace(/.*\//, '')), ['ld-linux-x86-64.so.2', 'libc.so.6'])
  t.deepEqual(a.unsupported, [])
  const root = fromHost(['/bin/true'])
  const libc = program.needed[0]!.path!.split('/').filter(Boolean)
  libc.slice(0, -1).reduce((dir, name) => dir.children!.get(name)!, root).children!.delete(libc.at(-1)!)
  t.regex(analyzeTree(root).unsupported[0]!.why, /the image has no libc\.so\.6/)
})

test('files that are no programs', (t) => {
  t.deepEqual(analyzeFiles([{ path: '/etc/passwd', size: readFileSync('/etc/passwd').length }]).unsupported, [{ path: '/etc/passwd', why: 'no ELF file' }])
})

import test from 'ava'
import { Packr } from 'msgpackr'
import { decode, frame, listOf } from './frames.ts'

const packr = new Packr({ useRecords: false })
const hex = (s: string): Buffer => Buffer.from(s.replaceAll(' ', ''), 'hex')

test('a message comes back as it was', (t) => {
  const m = { type: 'run', argv: ['a', Buffer.from([255])], env: [], n: -3, big: 5_000_000_000, yes: true, nothing: null, deep: { a: [{ b: 1 }] }, text: 'x'.repeat(70_000) }
  const f = frame(m)
  t.is(f.readUInt32LE(0), f.length - 4)
  t.deepEqual({ ...decode(f.subarray(4)) } as unknown, { ...m })
})

for (const [what, bytes] of [
  ['nothing', ''], ['no map', '93 01 02 03'], ['a number', '01'], ['text', 'a161'], ['an unfinished map', '82 a161 01'],
  ['bytes after the end', '81 a161 01 00'], ['an array of 4 billion', '81 a161 dd ffffffff'], ['a map of 4 billion', 'df ffffffff'],
  ['a string longer than the frame', '81 a161 db ffffffff 61'], ['an extension', '81 a161 d4 01 00'], ['an extension of 2^32 bytes', '81 a161 c9 ffffffff 01'],
  ['a name that is an array', '81 91a161 01'], ['a name that is a number', '81 01 01'], ['a name that is a map', 'de0001 80 01'],
  ['the unused type', '81 a161 c1'], ['a float without its bytes', '81 a161 cb 00'],
] as const) test(`not a message: ${what}`, (t) => { t.is(decode(hex(bytes)), undefined) })

test('a million nested arrays are refused in no time', (t) => {
  t.is(decode(Buffer.concat([hex('81 a161'), Buffer.alloc(1 << 20, 0x91)])), undefined)
})

test('10,000 random bodies are decoded or refused', (t) => {
  let seed = 1
  const next = (): number => (seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff) >> 8
  const good = packr.pack({ type: 'run', image: 'x', argv: ['a', 'b'], mounts: [{ host: '/a', guest: '/b' }], tty: false })
  for (let n = 0; n < 10_000; n++) {
    const b = n % 2 ? Buffer.from(good) : Buffer.from(Array.from({ length: next() % 200 }, () => next() & 0xff))
    if (n % 2) for (let k = 0; k < 4; k++) b[next() % b.length] = next() & 0xff
    t.notThrows(() => decode(b))
  }
})

test('lists are of strings and bytes without NUL', (t) => {
  t.deepEqual(listOf(['a', Buffer.from('b')]), [Buffer.from('a'), Buffer.from('b')])
  t.deepEqual(listOf(undefined), [])
  for (const wrong of ['a', 5, {}, [1], [null], [['a']], ['a\0b'], [Buffer.from([0])]]) t.is(listOf(wrong), undefined)
})

import test from 'ava'
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { digestOf, isDone, markDone, markUndone, root, type Work } from './stamp.ts'

function workspace(): { dir: string; work: () => Work; done: () => void } {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-stamp-'))
  mkdirSync(join(dir, 'in/sub'), { recursive: true })
  writeFileSync(join(dir, 'in/a'), 'a')
  writeFileSync(join(dir, 'in/sub/b'), 'b')
  writeFileSync(join(dir, 'out'), 'product')
  const name = `test-${relative(tmpdir(), dir)}`
  const work = (): Work => ({ name, inputs: digestOf([join(dir, 'in')], ['fact']), products: [relative(root, join(dir, 'out'))] })
  return { dir, work, done: () => { markUndone(work()); rmSync(dir, { recursive: true }) } }
}

const after = test.macro({
  exec: (t, _what: string, change: (dir: string) => void, expected: boolean) => {
    const w = workspace()
    t.teardown(w.done)
    t.false(isDone(w.work()), 'nothing is done at first')
    markDone(w.work())
    t.true(isDone(w.work()))
    change(w.dir)
    t.is(isDone(w.work()), expected)
  },
  title: (_, what: string, _change, expected: boolean) => `${what}: ${expected ? 'still done' : 'to be done again'}`,
})
test(after, 'nothing has changed', () => {}, true)
test(after, 'an input was written with the same bytes', (d) => writeFileSync(join(d, 'in/a'), 'a'), true)
test(after, 'an input has other bytes', (d) => writeFileSync(join(d, 'in/sub/b'), 'c'), false)
test(after, 'an input is new', (d) => writeFileSync(join(d, 'in/c'), ''), false)
test(after, 'an input is gone', (d) => rmSync(join(d, 'in/sub/b')), false)
test(after, 'the product is gone', (d) => rmSync(join(d, 'out')), false)
test(after, 'the product was replaced', (d) => utimesSync(join(d, 'out'), 1, 1), false)

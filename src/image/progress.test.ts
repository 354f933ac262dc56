import test from 'ava'
import { Progress } from './progress.ts'

function record(isTTY: boolean): { progress: Progress; out: () => string } {
  let text = ''
  return { progress: new Progress({ isTTY, columns: 60, write: (s) => { text += s } }), out: () => text }
}

const wait = (ms: number): Promise<void> => new Promise((done) => { setTimeout(done, ms) })

test('without a terminal: JSON lines at the start, once a second, at the end', async (t) => {
  const { progress, out } = record(false)
  progress.stage('hash', 3)
  for (let n = 0; n < 3; n++) progress.step()
  progress.stage('translate', 0, 'bytes')
  progress.expect(5000)
  await wait(1010)
  progress.step(2000)
  progress.step(3000)
  progress.end()
  const lines = out().trimEnd().split('\n').map((l) => JSON.parse(l) as Record<string, unknown>)
  t.deepEqual(lines.map(({ ms: _, ...l }) => l), [
    { stage: 'hash', done: 0, total: 3, unit: 'items' },
    { stage: 'hash', done: 3, total: 3, unit: 'items', ended: true },
    { stage: 'translate', done: 0, total: 0, unit: 'bytes' },
    { stage: 'translate', done: 0, total: 5000, unit: 'bytes' },
    { stage: 'translate', done: 2000, total: 5000, unit: 'bytes' },
    { stage: 'translate', done: 5000, total: 5000, unit: 'bytes', ended: true },
  ])
  t.true((lines[4]!['ms'] as number) >= 1000)
})

test('on a terminal: a bar that fills, one line a stage', async (t) => {
  const { progress, out } = record(true)
  progress.stage('translate', 4 << 20, 'bytes')
  await wait(90)
  progress.step(1 << 20)
  await wait(90)
  progress.step(3 << 20)
  progress.end()
  const drawn = out().split('\r\x1b[K')
  t.deepEqual(drawn.slice(1, 4), [
    `translate [${'.'.repeat(30)}] 0 kB/4.0 MB`, `translate [${'#'.repeat(7)}${'.'.repeat(23)}] 1.0 MB/4.0 MB`, `translate [${'#'.repeat(30)}] 4.0 MB/4.0 MB`])
  t.regex(drawn[4]!, /^translate: 4\.0 MB in \d+\.\d s\n$/)
})

test('a bar never passes its end nor the width of the terminal', (t) => {
  const { progress, out } = record(true)
  progress.stage('a stage with a name that is much too long for this terminal', 1)
  progress.expect(1)
  t.true(out().split('\r\x1b[K').every((l) => l.length < 60))
})

test('a stage that fails leaves its bar on a line of its own', (t) => {
  const { progress, out } = record(true)
  progress.stage('layers', 2)
  progress.abort()
  progress.end()
  t.true(out().endsWith(']  0/2\n'.replace('  ', ' ')))
  const json = record(false)
  json.progress.stage('layers', 2)
  json.progress.abort()
  json.progress.end()
  t.is(json.out().trimEnd().split('\n').length, 1, 'no line says that it ended')
})

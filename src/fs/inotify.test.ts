/** inotify with real watchers; conformance/programs/inotify_init1.c has its rules. */
import test from 'ava'
import { appendFileSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { TestDaemon, childrenOf, outcomeOf, testImage, until } from '../daemon/testing.ts'

const image = await testImage()
const d = await TestDaemon.start()
test.after.always(() => d.remove())

// On a tmpfs: tail takes an overlay for a remote file system and polls it.
test.serial('tail -f of a file of the container, and of one that the host writes; it does not poll', async (t) => {
  const host = join(d.dir, 'mounted')
  mkdirSync(host)
  writeFileSync(join(host, 'log'), 'first\n')
  const p = d.spawn(['run', '-v', `${host}:/m`, image, 'bash', '-c', 'echo one > /dev/shm/f; tail -s 1000 -n 9 -f /dev/shm/f & tail -s 1000 -n 9 -F /m/log & until [ -e /m/go ]; do sleep 0.1; done; echo two >> /dev/shm/f; sleep 1000'])
  let out = ''
  p.stdout!.on('data', (b: Buffer) => { out += b.toString() })
  p.stdin!.on('error', () => {})
  t.true(await until(() => out.includes('one\n') && out.includes('first\n')), out)
  // Both have looked at their files; what comes is told by events alone.
  await new Promise((r) => setTimeout(r, 300))
  appendFileSync(join(host, 'log'), 'second\n')
  t.true(await until(() => out.includes('second\n')), out)
  writeFileSync(join(host, 'go'), '')
  t.true(await until(() => out.includes('two\n')), out)
  // A rotated log: another file gets the name.
  renameSync(join(host, 'log'), join(host, 'log.1'))
  writeFileSync(join(host, 'log'), 'third\n')
  t.true(await until(() => out.includes('third\n')), out)
  p.kill('SIGKILL')
  await outcomeOf(p)
})

test.serial('instances and watches end with their processes', async (t) => {
  const before = d.fds()
  await d.sh(image, 'for n in 1 2 3 4 5; do echo x > /dev/shm/$n; tail -s 1000 -f /dev/shm/$n & done; sleep 0.3; kill %1 %2 %3 %4 %5; wait')
  t.true(await until(() => d.fds() <= before + 4), `${before} descriptors before, ${d.fds()} after, zygotes ${childrenOf(d.pid).length}`)
})

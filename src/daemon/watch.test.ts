/** `recompiler trace`, `stats` and `ps --wait`, with real programs. */
import test from 'ava'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { TestDaemon, outcomeOf, testImage, until } from './testing.ts'

const image = await testImage()
const d = await TestDaemon.start()
test.after.always(() => d.remove())

test('a trace has every class of calls and leaves the program\'s output alone', async (t) => {
  const out = join(d.dir, 'trace')
  const r = await d.command(['trace', '-o', out, '-i', image, 'bash', '-c', 'read x; echo "$x" > /tmp/f; cat /tmp/f /etc/group > /dev/null; mkdir /tmp/f; exit 7'], 'word\n')
  t.deepEqual(r, { status: 7, stdout: '', stderr: 'mkdir: cannot create directory \'/tmp/f\': File exists\n' })
  const text = readFileSync(out, 'latin1')
  for (const line of [
    /^\[pid 1\] execve\("\/(usr\/)?bin\/bash", \["bash", "-c", .*\) += 0$/m, // local, and the first program
    /^\[pid 1\] read\(0, "w", 1\) += 1$/m, // direct
    /^\[pid \d+\] openat\(AT_FDCWD, "\/etc\/group", O_RDONLY\) += \d+$/m, // image
    /^\[pid \d+\] openat\(AT_FDCWD, "\/tmp\/f", O_WRONLY\|O_CREAT\|O_TRUNC, 0666\) += 3$/m, // mediated
    /^\[pid \d+\] write\(1, "word\\n", 5\) += 5$/m,
    /^\[pid \d+\] mkdir\("\/tmp\/f", 0777\) += -1 EEXIST \(File exists\)$/m,
    /^\[pid 1\] wait4\(-1, \[\{WIFEXITED\(s\) && WEXITSTATUS\(s\) == 1\}\], .*\) += \d+$/m,
    /^\[pid 1\] exit_group\(7\) += \?$/m,
  ]) t.regex(text, line)
  // Not one line of it is torn.
  t.deepEqual(text.split('\n').filter((l) => l !== '' && !/^\[pid \d+\] \w+\(.*\) += .+$/.test(l)), [])
})

test('filters: names, groups, all but these, failures, errors', async (t) => {
  const calls = async (...options: string[]): Promise<string[]> => {
    const r = await d.command(['trace', ...options, image, 'cat', '/etc/group', '/missing'])
    return [...new Set(r.stderr.split('\n').flatMap((l) => /^\[pid \d+\] (\w+)/.exec(l)?.[1] ?? []))].sort()
  }
  t.deepEqual(await calls('-e', 'write,exit_group'), ['exit_group', 'write'])
  t.true((await calls('-e', '%file')).includes('openat'))
  t.false((await calls('-e', '%file')).includes('write'))
  t.false((await calls('-e', '!%file,write')).some((c) => ['openat', 'write'].includes(c)))
  t.true((await calls('-Z')).includes('openat'))
  t.deepEqual(await calls('--errno', 'ENOENT', '-e', 'openat'), ['openat'])
  t.deepEqual(await calls('--errno', 'EPERM', '-e', 'openat'), [])
  t.regex((await d.command(['trace', '-e', 'nonsense', image, 'true'])).stderr, /no system call or group is named so/)
  t.is((await d.command(['trace', '-p', 'no-such-container'])).status, 125)
})

test('a running container is traced until ^C, and goes on', async (t) => {
  const started = await d.command(['run', '-d', image, 'bash', '-c', 'while sleep 0.05; do :; done'])
  const id = started.stdout.trim()
  const tracer = d.spawn(['trace', '-e', 'wait4,execve', '-p', id])
  let seen = ''
  tracer.stderr!.on('data', (b: Buffer) => { seen += b.toString() })
  t.true(await until(() => /execve\("[^"]*sleep", \["sleep", "0.05"\], \/\* \d+ vars \*\/\) += 0/.test(seen) && /wait4/.test(seen)), seen)
  tracer.kill('SIGINT')
  t.is((await outcomeOf(tracer)).status, 0)
  const stats = await d.command(['stats', '-t', '0.5', id])
  t.regex(stats.stdout, /^ *\d+\.\d\d +\d+\.\d+ +\d+ +\d+ .*  wait4$/m)
  t.regex(stats.stdout, /^ *\d+\.\d\d +\d+\.\d+ +\d+ +\d+ .*  clock_nanosleep$/m)
  // Nobody watches: nothing is counted.
  const counts = (text: string): string[] => text.split('\n').filter((l) => /  \w+$/.test(l) && !/total|call$/.test(l))
  t.true(counts((await d.command(['stats', '-t', '0', id])).stdout).length <= 2)
  t.is((await d.command(['stop', '-t', '0', id])).status, 0)
})

test('a table of a whole run', async (t) => {
  const r = await d.command(['trace', '-c', image, 'cat', '/etc/group', '/missing'])
  t.is(r.status, 1)
  t.regex(r.stderr, /^ *\d+\.\d\d +\d+\.\d+ +[1-9]\d* +[1-9]\d* .*  openat$/m)
  t.regex(r.stderr, /^ *100\.00 .*  total$/m)
})

test('ps --wait: pipes, children, locks and time', async (t) => {
  const id = (await d.command(['run', '-d', image, 'bash', '-c', 'mkfifo /tmp/p; exec 9<> /tmp/p; cat /tmp/p & sleep 100 & wait $!'])).stdout.trim()
  const lines = [
    /^\w{12} +1 +1 S \S*bash +wait4\(.*\): its children: \d+ \(\S*cat\), \d+ \(\S*sleep\)$/m,
    /S \S*cat +read\(\d+, 0x[0-9a-f]+, \d+\): descriptor \d+/,
    /S \S*sleep +clock_nanosleep\(CLOCK_REALTIME, .*\): time$/m,
  ]
  let text = ''
  for (let n = 0; n < 100 && !lines.every((l) => l.test(text)); n++) text = (await d.command(['ps', '--wait', id])).stdout
  for (const line of lines) t.regex(text, line)
  await d.command(['stop', '-t', '0', id])
})

test('ps --wait: who has the lock', async (t) => {
  const id = (await d.command(['run', '-d', image, 'probe', 'deadlock'])).stdout.trim()
  let text = ''
  for (let n = 0; n < 50 && !/holds/.test(text); n++) text = (await d.command(['ps', '--wait', id])).stdout
  t.regex(text, /^\w{12} +1 +2 S \S*probe +futex\(.*FUTEX_WAIT.*\): futex at 0x[0-9a-f]+: a lock that thread 1 of process 1 holds$/m)
  await d.command(['stop', '-t', '0', id])
})

test('audit verify: whole, changed, cut', async (t) => {
  await d.command(['run', image, 'bash', '-c', 'cp /bin/true /tmp/x; /tmp/x'])
  // The other tests go on writing to the log itself.
  const whole = readFileSync(d.audit, 'utf8')
  const copy = join(d.dir, 'copy.jsonl')
  writeFileSync(copy, whole)
  const good = await d.command(['audit', 'verify', copy])
  t.is(good.status, 0, good.stdout)
  const checkpoint = /checkpoint (\d+:[0-9a-f]{64})/.exec(good.stdout)![1]!
  t.is((await d.command(['audit', 'verify', copy, '--checkpoint', checkpoint])).status, 0)
  const lines = whole.split('\n')
  writeFileSync(copy, lines.map((l, n) => (n === 0 ? l.replace('allowed', 'denied ') : l)).join('\n'))
  t.like(await d.command(['audit', 'verify', copy]), { status: 1 })
  writeFileSync(copy, lines.slice(0, -2).join('\n') + '\n')
  t.is((await d.command(['audit', 'verify', copy])).status, 0)
  t.regex((await d.command(['audit', 'verify', copy, '--checkpoint', checkpoint])).stdout, /FAIL .* the log ends at record/)
})

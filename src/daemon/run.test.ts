/** What `recompiler run` and its kin do, with real daemons, clients and programs. */
import test from 'ava'
import { mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { TestDaemon, testImage, until } from './testing.ts'

const image = await testImage()
const d = await TestDaemon.start()
test.after.always(() => d.remove())

const sh = (text: string, ...options: string[]) => d.sh(image, text, options)

test('streams, arguments and status pass through', async (t) => {
  const r = await d.command(['run', '-i', image, '/bin/bash', '-c', 'cat; echo "$0 $1" >&2; exit 42', 'a b', 'c'], 'input\n')
  t.deepEqual(r, { status: 42, stdout: 'input\n', stderr: 'a b c\n' })
})

test('arguments need not be UTF-8', async (t) => {
  const { spawnSync } = await import('node:child_process')
  const { client } = await import('./testing.ts')
  const r = spawnSync('/bin/sh', ['-c', `exec ${client} run ${image} printf '%s|' "$(printf '\\377\\300')"`], { env: { ...process.env, VKERNEL_SOCKET: d.socket }, encoding: 'latin1' })
  // printf is a shell builtin elsewhere; in the image it is not there.
  t.is(r.status, 127)
  const b = spawnSync('/bin/sh', ['-c', `exec ${client} run ${image} bash -c 'printf %s "$1"' x "$(printf '\\377\\300')"`], { env: { ...process.env, VKERNEL_SOCKET: d.socket }, encoding: 'latin1' })
  t.is(b.stdout, '\xff\xc0')
})

test('a bare name is looked up in the container\'s PATH', async (t) => {
  t.is((await d.command(['run', image, 'true'])).status, 0)
  t.like(await d.command(['run', image, 'no-such-program']), { status: 127, stdout: '' })
  t.is((await d.command(['run', '-e', 'PATH=/nowhere', image, 'true'])).status, 127)
})

test('not there is 127, not executable is 126', async (t) => {
  t.like(await d.command(['run', image, '/no/such']), { status: 127, stderr: 'vkernel: /no/such: No such file or directory\n' })
  t.like(await d.command(['run', image, '/not-executable']), { status: 126, stderr: 'vkernel: /not-executable: Permission denied\n' })
  t.is((await d.command(['run', image, '/etc'])).status, 126)
})

test('failures of our own are 125 and say what to do', async (t) => {
  for (const args of [['/no/image', 'true'], ['--name', 'a/b', image, 'true'], ['-v', '/no/such/dir:/x', image, 'true'], ['-v', `${image}:relative`, image, 'true'], [image]]) {
    const r = await d.command(['run', ...args])
    t.is(r.status, 125, args.join(' '))
    t.regex(r.stderr, /^recompiler: .+/)
  }
})

for (const [user, want] of [
  ['root', 'uid=0(root) gid=0(root) groups=0(root)'],
  ['guest', 'uid=1000(guest) gid=1001(guest) groups=1001(guest),8(mail),2000(extra)'],
  ['1000', 'uid=1000(guest) gid=1001(guest) groups=1001(guest),8(mail),2000(extra)'],
  ['guest:tty', 'uid=1000(guest) gid=5(tty) groups=5(tty)'],
  ['4321', 'uid=4321 gid=0(root) groups=0(root)'],
  ['4321:99', 'uid=4321 gid=99 groups=99'],
] as const) test(`-u ${user}`, async (t) => { t.is((await d.command(['run', '-u', user, image, 'id'])).stdout, want + '\n') })

for (const user of ['nobody-here', 'guest:no-group', '99999999999', '-1', 'guest:']) {
  test(`no user ${user}`, async (t) => {
    const r = await d.command(['run', '-u', user, image, 'id'])
    t.is(r.status, 125)
    t.regex(r.stderr, /in the image's \/etc\/(passwd|group)/)
  })
}

test('an ordinary user owns what it makes, and no more', async (t) => {
  const r = await sh('echo $HOME; cd; touch mine && stat -c %u:%g mine; touch /etc/x /root/y', '-u', 'guest')
  t.is(r.stdout, '/home/guest\n1000:1001\n')
  t.is((r.stderr.match(/Permission denied/g) ?? []).length, 2)
})

test('-w makes the directory', async (t) => {
  t.is((await d.command(['run', '-w', '/a/b c/d', image, 'pwd'])).stdout, '/a/b c/d\n')
  t.like(await d.command(['run', '-w', '/etc/passwd', image, 'pwd']), { status: 125 })
  t.like(await d.command(['run', '-w', '/etc/passwd/x', image, 'pwd']), { status: 125 })
})

test('the image\'s configuration is the default', async (t) => {
  const configured = await testImage({}, { env: ['A=image', 'B=image'], cwd: '/tmp', user: 'guest', entrypoint: ['bash', '-c'], cmd: ['echo $A $B $PWD $HOME; id -un'] })
  t.is((await d.command(['run', configured])).stdout, 'image image /tmp /home/guest\nguest\n')
  t.is((await d.command(['run', '-e', 'B=mine', '-w', '/', '-u', 'root', configured])).stdout, 'image mine / /root\nroot\n')
  t.is((await d.command(['run', configured, 'pwd'])).stdout, '/tmp\n')
})

test('a mount shows the host\'s directory and writes reach it', async (t) => {
  const host = join(d.dir, 'shared')
  mkdirSync(join(host, 'sub'), { recursive: true })
  writeFileSync(join(host, 'f'), 'one\n')
  const r = await sh('cd /mnt/x; cat f; echo two >> f; mkdir new; mv f new/g; ln new/g new/h; ln -s g new/s; readlink new/s; chmod 640 new/g; echo x > sub/y; rm sub/y; rmdir sub; ls; stat -c %h:%a new/g; touch -d @5 new/g', '-v', `${host}:/mnt/x`)
  t.deepEqual(r, { status: 0, stdout: 'one\ng\nnew\n2:640\n', stderr: '' })
  t.is(readFileSync(join(host, 'new/g'), 'utf8'), 'one\ntwo\n')
  t.is(statSync(join(host, 'new/g')).mtimeMs, 5000)
})

test('a read-only mount is EROFS for every change', async (t) => {
  const host = join(d.dir, 'ro')
  mkdirSync(join(host, 'd'), { recursive: true })
  writeFileSync(join(host, 'f'), 'one\n')
  const changes = ['echo x >> f', 'echo x > new', 'rm f', 'mkdir e', 'rmdir d', 'mv f g', 'mv /tmp/t f', 'ln f g', 'ln -s f g', 'chmod 600 f', 'touch f', 'mkfifo p', ': > f']
  const r = await sh(`cd /mnt/x; touch /tmp/t; ${changes.map((c) => `(${c}) 2>&1 | head -1`).join('; ')}; cat f; test -w f || echo unwritable`, '-v', `${host}:/mnt/x:ro`)
  const lines = r.stdout.trimEnd().split('\n')
  t.deepEqual(lines.splice(-2), ['one', 'unwritable'])
  t.is(lines.length, changes.length)
  for (const [n, line] of lines.entries()) t.regex(line, changes[n] === 'mv /tmp/t f' ? /Read-only file system|cross-device/ : /Read-only file system/, changes[n])
  t.is(readFileSync(join(host, 'f'), 'utf8'), 'one\n')
})

test('nothing in a mount leads out of it', async (t) => {
  const host = join(d.dir, 'jail')
  mkdirSync(join(host, 'a/b'), { recursive: true })
  writeFileSync(join(d.dir, 'secret'), 'secret\n')
  symlinkSync('../secret', join(host, 'up'))
  symlinkSync(join(d.dir, 'secret'), join(host, 'absolute'))
  symlinkSync('..', join(host, 'a/parent'))
  symlinkSync('/etc', join(host, 'etc'))
  const r = await sh('cd /mnt/x; cat up absolute ../secret a/b/../../../secret 2>&1 | grep -v secret || cat up absolute ../secret 2>/dev/null; ls a/parent; head -1 etc/passwd', '-v', `${host}:/mnt/x`)
  t.notRegex(r.stdout, /^secret$/m)
  t.regex(r.stdout, /root:x:0:0/)
})

test('a directory that is swapped for a link while it is used leads nowhere', async (t) => {
  const host = join(d.dir, 'race')
  mkdirSync(join(host, 'd'), { recursive: true })
  writeFileSync(join(host, 'd/f'), 'inside\n')
  mkdirSync(join(d.dir, 'outside'))
  writeFileSync(join(d.dir, 'outside/f'), 'OUTSIDE\n')
  const running = sh('for ((n = 0; n < 500; n++)); do read -r x < /mnt/x/d/f && echo $x; done 2>/dev/null | sort | { while read -r x; do [ "$x" = "$y" ] || echo "$x"; y=$x; done; }', '-v', `${host}:/mnt/x`)
  let over = false
  void running.then(() => { over = true })
  while (!over) {
    rmSync(join(host, 'd'), { recursive: true })
    symlinkSync(join(d.dir, 'outside'), join(host, 'd'))
    rmSync(join(host, 'd'))
    mkdirSync(join(host, 'd'))
    writeFileSync(join(host, 'd/f'), 'inside\n')
    await new Promise((r) => setImmediate(r))
  }
  t.is((await running).stdout, 'inside\n')
})

test('a file of the host can be mounted on a file', async (t) => {
  const host = join(d.dir, 'file')
  writeFileSync(host, 'content\n')
  const r = await sh('cat /etc/new/one; echo more >> /etc/new/one; rm /etc/new/one; mv /etc/new/one /etc/x', '-v', `${host}:/etc/new/one`)
  t.is(r.stdout, 'content\n')
  t.is((r.stderr.match(/Device or resource busy/g) ?? []).length, 2)
  t.is(readFileSync(host, 'utf8'), 'content\nmore\n')
})

test('--tmpfs is an empty directory of its own', async (t) => {
  const r = await sh('ls -A /etc; echo x > /etc/y; cat /etc/y; stat -f -c %T /etc; stat -c %a /etc', '--tmpfs', '/etc')
  t.deepEqual(r, { status: 0, stdout: 'x\ntmpfs\n1777\n', stderr: '' })
})

test('a detached container has a name, a log, a status', async (t) => {
  const r = await d.command(['run', '-d', '--name', 'det', image, 'bash', '-c', 'echo out; echo err >&2; until [ -s /tmp/go ]; do sleep 0.05; done; while [ -e /proc/$(cat /tmp/go) ]; do sleep 0.05; done; exit 7'])
  t.regex(r.stdout, /^[0-9a-f]{12}\n$/)
  t.regex((await d.command(['ps'])).stdout, /det .* running/)
  t.is((await d.command(['run', '--name', 'det', image, 'true'])).status, 125)
  t.is((await d.command(['rm', 'det'])).status, 125)
  const waiting = d.command(['wait', 'det'])
  // The container's end would be that of a process in it, too: it waits for this one's.
  t.is((await d.command(['exec', 'det', 'bash', '-c', 'echo $$ > /tmp/go'])).status, 0)
  t.is((await waiting).stdout, '7\n')
  t.is((await d.command(['logs', 'det'])).stdout, 'out\nerr\n')
  t.regex((await d.command(['ps', '-a'])).stdout, /det .* exited \(7\)/)
  t.is((await d.command(['rm', 'det'])).status, 0)
  t.is((await d.command(['logs', 'det'])).status, 125)
  t.is((await d.command(['run', '--name', 'det', image, 'true'])).status, 0)
})

test('stop asks, then kills', async (t) => {
  await d.command(['run', '-d', '--name', 'asks', image, 'bash', '-c', 'trap "echo bye; exit 3" TERM; echo ready; while :; do sleep 0.05; done'])
  t.true(await until(() => readFileSync(join(d.dir, 'state/logs', `${ps(d, 'asks')}.log`), 'utf8').includes('ready')))
  await d.command(['stop', 'asks'])
  t.is((await d.command(['logs', 'asks'])).stdout, 'ready\nbye\n')
  t.is((await d.command(['wait', 'asks'])).stdout, '3\n')
  await d.command(['run', '-d', '--rm', '--name', 'kills', image, 'sleep', '100'])
  await d.command(['stop', '-t', '0', 'kills'])
  t.is((await d.command(['wait', 'kills'])).status, 125)
})

/** Id of a named container, from its log's name. */
function ps(daemon: TestDaemon, name: string): string {
  const { spawnSync } = process.getBuiltinModule('node:child_process')
  const r = spawnSync('native/target/release/recompiler', ['ps', '-a'], { cwd: join(import.meta.dirname, '../..'), env: { ...process.env, VKERNEL_SOCKET: daemon.socket }, encoding: 'utf8' })
  return new RegExp(`^([0-9a-f]{12}) +${name} `, 'm').exec(r.stdout)![1]!
}

test('exec joins a container with its environment, directory and user', async (t) => {
  await d.command(['run', '-d', '--rm', '--name', 'joined', '-e', 'FOO=bar', '-w', '/tmp', '-u', 'guest', image, 'sleep', '100'])
  const r = await d.command(['exec', '-e', 'BAZ=1', 'joined', 'bash', '-c', 'id -un; pwd; echo $FOO $BAZ; echo x > shared; ps -e -o pid,args --no-headers | wc -l'])
  t.deepEqual(r, { status: 0, stdout: 'guest\n/tmp\nbar 1\n4\n', stderr: '' })
  t.is((await d.command(['exec', '-u', 'root', 'joined', 'cat', 'shared'])).stdout, 'x\n')
  t.is((await d.command(['exec', 'joined', 'nothing'])).status, 127)
  await d.command(['stop', '-t', '0', 'joined'])
  t.is((await d.command(['exec', 'joined', 'true'])).status, 125)
})

test('a container sees its own processes only', async (t) => {
  const r = await sh('ps -e --no-headers | wc -l; d=(/proc/[0-9]*); echo ${#d[@]}; test -e /proc/self/environ && echo yes; (exec -a odd sleep 9 & sleep 0.2; ps -o args --no-headers $!)')
  t.deepEqual(r, { status: 0, stdout: '3\n1\nyes\nodd 9\n', stderr: '' })
})

test('signals reach the program, and its end by one is 128 and the number', async (t) => {
  const child = d.spawn(['run', image, 'bash', '-c', 'trap "echo got; exit 9" TERM; echo ready; while :; do sleep 0.05; done'])
  let out = ''
  child.stdout!.on('data', (b: Buffer) => {
    out += b.toString()
    if (out === 'ready\n') child.kill('SIGTERM')
  })
  const status = await new Promise((done) => child.on('close', done))
  t.is(status, 9)
  t.is(out, 'ready\ngot\n')
  t.is((await sh('kill -9 $$ & wait; sleep 5 & kill -SEGV $!; wait $!')).status, 139)
})

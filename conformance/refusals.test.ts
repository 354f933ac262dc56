/**
 * What must be refused: by the right error, on record, and without effect. And what a running guest
 * looks like from outside.
 */
import test from 'ava'
import { copyFileSync, cpSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openLayout } from '../src/image/oci.ts'
import { verify } from '../src/image/verify.ts'
import { verifyAudit } from '../src/policy/audit.ts'
import { childrenOf, root, TestDaemon, testImage, until } from '../src/daemon/testing.ts'

const image = await testImage()
const anywhere = await testImage({ exec: 'digest' })
const d = await TestDaemon.start()
test.after.always(async (t) => {
  t.like(verifyAudit(d.audit), { ok: true })
  await d.remove()
})

/** Runs a shell command alone, so that the records are its own. */
async function alone(text: string, options: readonly string[] = [], from = image) {
  const before = d.lastSeq
  const r = await d.sh(from, text, options)
  return { ...r, denied: d.denials(before) }
}

test.serial('a changed program: 126, and one record with path, digest and rule', async (t) => {
  const r = await alone('cp /bin/ls /tmp/x && printf x >> /tmp/x && /tmp/x')
  t.is(r.status, 126)
  t.regex(r.stderr, /\/tmp\/x: Permission denied/)
  t.is(r.denied.length, 1)
  t.like(r.denied[0], { event: 'exec', path: '/tmp/x', rule: 'digest not in the manifest' })
  t.regex(r.denied[0]!.digest!, /^[0-9a-f]{64}$/)
})

test.serial('an unmodified copy elsewhere: refused under path+digest, allowed under digest', async (t) => {
  const copy = 'cp /bin/true /tmp/x && /tmp/x && echo ran'
  const bound = await alone(copy)
  t.is(bound.status, 126)
  t.like(bound.denied[0], { path: '/tmp/x', rule: 'path+digest: this digest is approved at another path' })
  const free = await alone(copy, [], anywhere)
  t.like(free, { status: 0, stdout: 'ran\n', denied: [] })
})

for (const [what, change] of [
  ['the first byte', 'printf x | dd of=$f bs=1 conv=notrunc 2>/dev/null'], ['a byte in the middle', 'printf x | dd of=$f bs=1 seek=9999 conv=notrunc 2>/dev/null'],
  ['a byte at the end', 'printf x >> $f'], ['its length', ': > $f'],
]) {
  test.serial(`a listed program with another content in place: ${what}`, async (t) => {
    // dd is not of the image: the shell's own redirections change the file.
    const by = change!.includes('dd of') ? `exec 3<>$f; ${what === 'the first byte' ? '' : 'read -rN 9999 skip <&3 2>/dev/null; '}printf x >&3; exec 3>&-` : change!
    const r = await alone(`f=/usr/bin/sort; ${by}; touch -r /usr/bin/true $f; $f </dev/null; echo $?`)
    t.is(r.stdout, '126\n')
    t.like(r.denied.at(-1), { event: 'exec', path: '/usr/bin/sort' })
  })
}

test.serial('another program renamed, or linked, over a listed path', async (t) => {
  const r = await alone('mv /bin/cat /bin/sort; sort /etc/group; echo $?; cp /bin/head /tmp/h; ln -sf /tmp/h /bin/wc; wc /etc/group; echo $?')
  t.is(r.stdout, '126\n126\n')
  t.deepEqual(r.denied.map((x) => x.path), ['/usr/bin/sort', '/tmp/h'])
})

test.serial('scripts: listed ones run; others do not, by name or by their interpreter line', async (t) => {
  t.like(await alone('/script a b'), { status: 0, stdout: 'script /script a b\n', denied: [] })
  const r = await alone(`printf '#!/bin/bash\\necho ran\\n' > /tmp/s; chmod +x /tmp/s; /tmp/s; echo $?; printf '#!/script\\n' > /tmp/t; chmod +x /tmp/t; /tmp/t; echo $?`)
  t.is(r.stdout, '126\n126\n')
  t.deepEqual(r.denied.map((x) => x.path), ['/tmp/s', '/tmp/t'])
})

test.serial('libraries that are not listed: LD_PRELOAD and dlopen', async (t) => {
  const lib = '/lib/x86_64-linux-gnu/libc.so.6'
  const r = await alone(`cp ${lib} /tmp/l.so; printf x >> /tmp/l.so; LD_PRELOAD=/tmp/l.so /bin/true; echo $?; probe dlopen /tmp/l.so`)
  t.regex(r.stderr + r.stdout, /l\.so/)
  t.notRegex(r.stdout, /^done$/m)
  t.is(r.denied.length, 2)
  for (const x of r.denied) t.like(x, { event: 'mmap', path: '/tmp/l.so', rule: 'digest not in the manifest' })
})

test.serial('executable memory: none', async (t) => {
  for (const verb of ['mmap-rwx', 'mmap-rx', 'mprotect-rx', 'mprotect-file /etc/passwd']) {
    const r = await alone(`probe ${verb}`)
    t.is(r.stdout, 'EACCES\n', verb)
    t.is(r.denied.length, 1, verb)
  }
})

test.serial('programs through descriptors: only what the path would be', async (t) => {
  t.is((await alone('probe fd-exec /usr/bin/probe')).stdout, 'said: ran\n')
  const memfd = await alone('probe memfd-exec /usr/bin/probe')
  t.is(memfd.stdout, 'EACCES\n')
  t.like(memfd.denied[0], { event: 'exec', rule: 'not a file of the container' })
  t.is((await alone('cp /usr/bin/probe /tmp/p; probe fd-exec /tmp/p')).stdout, 'EACCES\n')
  t.is((await alone('cp /usr/bin/probe /tmp/p; probe proc-exec /tmp/p')).stdout, 'EACCES\n')
  t.is((await alone('probe o-path-exec /usr/bin/probe')).stdout, 'said: ran\n')
  t.is((await alone('probe o-path-exec /tmp')).stdout, 'EACCES\n')
})

test.serial('execveat: flags and links', async (t) => {
  t.is((await alone('probe execveat /usr/bin/true 1')).stdout, 'EINVAL\n')
  t.is((await alone('ln -s /usr/bin/true /tmp/l; probe execveat /tmp/l 256')).stdout, 'ELOOP\n')
  t.is((await alone('ln -s /usr/bin/probe /tmp/l; probe execveat /tmp/l 0')).stdout, 'said: ran\n')
})

test.serial('what is no program: directories, FIFOs, devices, /proc, noexec mounts', async (t) => {
  for (const [make, path] of [['', '/tmp'], ['mkfifo /tmp/f;', '/tmp/f'], ['', '/dev/null'], ['', '/proc/self/status'], ['cp /bin/true /dev/shm/t;', '/dev/shm/t'], ['', '/not-executable']]) {
    t.is((await alone(`${make} probe execveat ${path} 0`)).stdout, 'EACCES\n', path)
  }
})

test.serial('40 links are followed, 41 are not', async (t) => {
  const r = await alone('cd /tmp; ln -s /usr/bin/probe l1; for n in {2..41}; do ln -s l$((n - 1)) l$n; done; probe execveat l40 0; probe execveat l41 0')
  t.is(r.stdout, 'said: ran\nELOOP\n')
})

test.serial('names are bytes: slashes, dots, length', async (t) => {
  const r = await alone(`for p in /usr/bin/probe/ /usr/bin/probe/. //usr//bin/./probe /usr/bin/../bin/probe $(printf 'a/%.0s' {1..2100})x $(printf 'n%.0s' {1..256}) $'/usr/bin/prob\\xc3\\xa9'; do probe execveat "$p" 0; done`)
  t.is(r.stdout, 'ENOTDIR\nENOTDIR\nsaid: ran\nsaid: ran\nENAMETOOLONG\nENAMETOOLONG\nENOENT\n')
})

for (const how of ['exchange', 'write']) {
  test.serial(`a program that changes while it is executed (${how}): it, or EACCES, never the other`, async (t) => {
    // Every try ends one of the two ways, both happen, and what was not approved never runs.
    t.is((await d.sh(image, `probe race ${how} 150 /usr/bin/probe`)).stdout, '1 1 0\n')
  })
}

test.serial('set-user-id is ignored, on record', async (t) => {
  await d.command(['run', '-d', '--rm', '--name', 'setid', image, 'bash', '-c', 'chmod u+s /usr/bin/id; sleep 100'])
  t.true(await until(() => d.records().some((r) => r.path === '/usr/bin/sleep')))
  t.is((await d.command(['exec', '-u', 'guest', 'setid', 'id', '-u'])).stdout, '1000\n')
  t.like(d.records().at(-1), { event: 'exec', decision: 'reported', path: '/usr/bin/id', rule: 'set-id bits are ignored' })
  await d.command(['stop', '-t', '0', 'setid'])
})

test.serial('numbers without an answer: ENOSYS; known and denied: EPERM; each on record once a program', async (t) => {
  const r = await alone('for n in 1 2 3; do probe syscall 9999; done; probe syscall 165; probe syscall 101; probe syscall 321; probe syscall 216')
  t.is(r.stdout, 'ENOSYS\nENOSYS\nENOSYS\nEPERM\nEPERM\nEPERM\nENOSYS\n')
  const rules = r.denied.map((x) => x.rule)
  t.is(rules.filter((x) => x.includes('9999')).length, 1)
  t.is(rules.length, 5)
  for (const x of r.denied) t.like(x, { event: 'syscall', path: '/usr/bin/probe' })
})

test.serial('destinations beyond the loopback: EACCES, one record for each attempt', async (t) => {
  const r = await alone('probe connect 192.0.2.1 80; probe connect 192.0.2.1 80; probe connect 169.254.169.254 80; probe udp 192.0.2.1 53; probe connect 127.0.0.1 1')
  t.is(r.stdout, 'EACCES\nEACCES\nEACCES\nEACCES\nECONNREFUSED\n')
  t.is(r.denied.length, 4)
  t.like(r.denied[2], { event: 'egress', path: '/usr/bin/probe', rule: 'no rule allows 169.254.169.254:80/tcp' })
})

const netns = process.getuid!() === 0 ? test.serial : test.serial.skip
netns('a destination that the policy allows is reached, others are not', async (t) => {
  // In a network namespace of the test's own: nothing is sent anywhere.
  const allowed = await testImage({ egress: ['198.51.100.1:7777'] })
  const server = `const s = require('net').createServer((c) => c.on('data', (b) => c.end('pong ' + b))); s.listen(7777, '198.51.100.1')`
  const inside = await TestDaemon.start({
    prefix: ['unshare', '-n', 'sh', '-c', `ip link set lo up && ip addr add 198.51.100.1/32 dev lo && ip addr add 198.51.100.2/32 dev lo && { "$0" -e "${server}" & exec "$0" "$@"; }`],
  })
  t.teardown(async () => {
    for (const pid of childrenOf(inside.pid)) if (readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('createServer')) process.kill(pid)
    await inside.remove()
  })
  const r = await inside.sh(allowed, 'for n in 1 2 3 4 5; do probe connect 198.51.100.1 7777 | grep -q pong 2>/dev/null; done; probe connect 198.51.100.1 7777; probe connect 198.51.100.1 7778; probe connect 198.51.100.2 7777')
  t.is(r.stdout, 'pong ping\nEACCES\nEACCES\n')
  t.deepEqual(inside.denials().map((x) => x.rule), ['no rule allows 198.51.100.1:7778/tcp', 'no rule allows 198.51.100.2:7777/tcp'])
})

test.serial('a byte changed anywhere in an image: not started, and verify names the part', async (t) => {
  const parts = openLayout(image)
  for (const part of ['manifest', 'megabinary', 'erofs'] as const) {
    const bad = join(d.dir, `bad-${part}`)
    cpSync(image, bad, { recursive: true })
    const file = join(bad, parts[part].path.slice(image.length))
    const bytes = readFileSync(file)
    for (const at of [0, Math.floor(bytes.length / 2), bytes.length - 1]) {
      const changed = Buffer.from(bytes)
      changed[at]! ^= 1
      writeFileSync(file, changed)
      const r = await d.command(['run', bad, 'true'])
      t.is(r.status, 125, `${part} ${at}`)
      const failed = verify(bad).filter((c) => !c.ok)
      t.true(failed.length > 0 && failed.some((c) => c.part.includes(part === 'erofs' ? 'image.erofs' : part)), `${part} ${at}: ${JSON.stringify(failed)}`)
    }
    rmSync(bad, { recursive: true })
  }
})

test.serial('a running guest from outside', async (t) => {
  const child = d.spawn(['run', image, 'bash', '-c', 'sleep 100 & echo ready; wait'])
  t.teardown(() => { child.kill('SIGKILL') })
  await new Promise((ready) => child.stdout!.once('data', ready))
  const zygote = d.zygotes().find((z) => childrenOf(z).length > 0)!
  const init = childrenOf(zygote)[0]!
  t.true(await until(() => childrenOf(init).length > 0))
  for (const pid of [init, ...childrenOf(init)]) {
    const maps = readFileSync(`/proc/${pid}/maps`, 'latin1').trimEnd().split('\n').map((l) => l.split(/\s+/))
    for (const [range, prot, , , inode, ...name] of maps) {
      if (!prot!.includes('x')) continue
      t.false(prot!.includes('w'), `${range} is writable and executable`)
      // The loader's own text, its libraries', the image's native code, the vDSO: all mapped from files or by the kernel.
      t.true(inode !== '0' || /^\[(vdso|vsyscall)\]$/.test(name.join(' ')), `${range} ${prot} ${name.join(' ')} is executable and of no file`)
    }
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    t.regex(status, /^Seccomp:\t2$/m)
    t.regex(status, /^NoNewPrivs:\t1$/m)
    for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb']) t.regex(status, new RegExp(`^Cap${set}:\\t0+$`, 'm'))
    // Root-owned /proc entries are how an undumpable process shows.
    const fds = readdirSync(`/proc/${pid}/fd`).map(Number).map((n) => [n, readlinkSync(`/proc/${pid}/fd/${n}`)] as const)
    for (const [n, to] of fds) {
      if (n < 3) continue
      t.true(n >= 4064, `descriptor ${n} (${to}) is the guest's to use`)
      t.regex(to, /image|blobs\/sha256|socket:|\[eventfd\]|\/memfd:ring/, `descriptor ${n}`)
    }
    t.deepEqual(readdirSync(`/proc/${pid}/root`), [])
  }
})

test.serial('no path of the host is seen in a container', async (t) => {
  const hidden = mkdtempSync(join(d.dir, 'hidden-'))
  copyFileSync('/etc/hostname', join(hidden, 'f'))
  const r = await alone(`ls -l /proc/self/fd /proc/1/fd; cat /proc/self/mountinfo /proc/self/maps /proc/mounts; exec 5< /etc/passwd 6> /tmp/x; readlink /proc/self/fd/{0,1,2,5,6}; ls ${hidden}`)
  t.notRegex(r.stdout, new RegExp(`${root}|${d.dir}|blobs`))
  t.regex(r.stdout, /^\/etc\/passwd\n\/tmp\/x$/m)

})

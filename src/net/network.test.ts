/**
 * Containers and the network beyond them. The daemon and its peers are in a network namespace of the
 * test's own, with addresses of the documentation ranges on its loopback: nothing is sent anywhere.
 */
import test, { type ExecutionContext } from 'ava'
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { cpSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { program, root, TestDaemon, testImage, until, type Outcome } from '../daemon/testing.ts'
import type { Policy } from '../policy/policy.ts'

const SERVER = '198.51.100.1', OTHER = '198.51.100.2', NAMED = '203.0.113.5', DNS = '203.0.113.53', SERVER6 = '2001:db8::1'
const netns = process.getuid!() === 0 ? test : test.skip
const talk = program('talk')

/** Answers: by name and type the addresses; no entry: NXDOMAIN. `rebind.example.com` changes with every question. */
const DNS_SERVER = `
const names = { 'a.example.com': ['${NAMED}'], 'b.example.com': ['${NAMED}', '10.9.9.9', '169.254.169.254'], 'private.example.com': ['10.9.9.9'] }
let flips = 0
const s = require('dgram').createSocket('udp4')
s.on('message', (m, from) => {
  const labels = []
  let at = 12
  for (; m[at]; at += m[at] + 1) labels.push(m.toString('latin1', at + 1, at + 1 + m[at]))
  const name = labels.join('.').toLowerCase(), type = m.readUInt16BE(at + 1)
  process.stdout.write(name + '\\n')
  const known = name === 'rebind.example.com' ? [type === 1 && flips++ % 2 ? '127.0.0.1' : '${NAMED}'] : names[name]
  const list = type === 1 ? known ?? [] : []
  const h = Buffer.from(m.subarray(0, 12))
  h.writeUInt16BE(known ? 0x8180 : 0x8183, 2); h.writeUInt16BE(1, 4); h.writeUInt16BE(list.length, 6); h.writeUInt32BE(0, 8)
  const rr = list.map((a) => Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...a.split('.').map(Number)]))
  s.send(Buffer.concat([h, m.subarray(12, at + 5), ...rr]), from.port, from.address)
})
s.bind(53, '${DNS}', () => process.stdout.write('ready\\n'))
`

class World {
  readonly daemon: TestDaemon
  /** What makes a client the daemon's user. */
  private readonly as: readonly string[]
  private readonly children: ChildProcess[] = []
  /** Names that the name server was asked for. */
  asked = ''

  private constructor(daemon: TestDaemon, as: readonly string[]) {
    this.daemon = daemon
    this.as = as
  }

  /** `user`: a number that the daemon runs as, with a home of its own. */
  static async make(t: ExecutionContext, user?: number): Promise<World> {
    const addresses = [SERVER, OTHER, NAMED, DNS, '10.9.9.9'].map((a) => `ip addr add ${a}/32 dev lo`).join(' && ')
    const dir = mkdtempSync(join(tmpdir(), 'vkernel-test-'))
    if (user !== undefined) {
      cpSync(join(root, 'build/test-images/keys/default.pub'), join(dir, 'keys/default.pub'))
      spawnSync('chown', ['-R', `${user}:${user}`, dir])
    }
    const as = user === undefined ? [] : ['setpriv', '--reuid', String(user), '--regid', String(user), '--clear-groups', 'env', `HOME=${dir}`, `VKERNEL_KEYS=${join(dir, 'keys')}`]
    const w = new World(await TestDaemon.start({
      dir,
      prefix: ['unshare', '-n', 'sh', '-c', `ip link set lo up && ${addresses} && { ip -6 addr add ${SERVER6}/128 dev lo nodad || true; } && exec ${as.join(' ')} "$0" "$@"`],
      options: ['--dns', DNS],
    }), as)
    t.teardown(async () => {
      for (const c of w.children) c.kill('SIGKILL')
      await w.daemon.remove()
    })
    return w
  }

  /** Starts a program in the host's place; resolves when it says "ready". */
  async peer(...command: string[]): Promise<ChildProcess> {
    const c = spawn('nsenter', ['-t', String(this.daemon.pid), '-n', ...command], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.children.push(c)
    await new Promise<void>((done, failed) => {
      c.stdout.on('data', (b: Buffer) => { this.asked += b.toString(); done() })
      c.on('exit', (code) => failed(new Error(`${command[0]} ended: ${code}`)))
    })
    return c
  }

  command(...args: string[]): Promise<Outcome> {
    return this.daemon.command(args, '', this.as)
  }

  nameServer(): Promise<ChildProcess> {
    return this.peer(process.execPath, '-e', DNS_SERVER)
  }

  /** Runs a program in the host's place to its end. */
  host(...command: string[]): string {
    const r = spawnSync('nsenter', ['-t', String(this.daemon.pid), '-n', ...command], { encoding: 'utf8', timeout: 60_000 })
    return r.stdout + r.stderr
  }

  /** Starts a detached container of `image` and waits until each server in it says "ready". */
  async serve(image: string, options: readonly string[], ...command: string[]): Promise<string> {
    const r = await this.command('run', '-d', ...options, image, ...command)
    if (r.status !== 0) throw new Error(r.stderr)
    const id = r.stdout.trim()
    const servers = Math.max(1, command.join(' ').split('serve').length - 1)
    for (let n = 0; n < 500; n++) {
      if ((await this.command('logs', id)).stdout.split('ready').length > servers) return id
      await new Promise((done) => setTimeout(done, 10))
    }
    throw new Error('it does not get ready')
  }
}

const policy = (p: Partial<Policy>): Promise<string> => testImage({ egress: [], ...p })
const said = (r: Outcome): string => r.stdout + r.stderr

netns('a connection that the policy allows: both ways, half-closed, by its own address', async (t) => {
  const w = await World.make(t)
  await w.peer(talk, 'serve', '7000')
  const image = await policy({ egress: [`${SERVER}:7000`, `[${SERVER6}]:7000`] })
  const r = await w.daemon.sh(image, `talk echo ${SERVER} 7000 5000000; talk echo ${SERVER} 7000 0; talk many ${SERVER} 7000 100; talk try ${SERVER} 7000; talk echo ::ffff:${SERVER} 7000 10; talk echo ${SERVER6} 7000 100000`)
  t.deepEqual(r.stdout.split('\n'), [
    `peer ::ffff:${SERVER}, from ${SERVER}: 5000000 bytes, 0 wrong`,
    `peer ::ffff:${SERVER}, from ${SERVER}: 0 bytes, 0 wrong`,
    '100 good', 'EINPROGRESS 1 connected',
    `peer ::ffff:${SERVER}, from ::ffff:${SERVER}: 10 bytes, 0 wrong`,
    `peer ${SERVER6}, from ${SERVER6}: 100000 bytes, 0 wrong`, '',
  ])
})

netns('what the policy does not list: address, port, protocol; and ports that nobody listens on', async (t) => {
  const w = await World.make(t)
  await w.peer(talk, 'serve', '7000')
  const image = await policy({ egress: [`${SERVER}:7000-7001/tcp`] })
  const r = await w.daemon.sh(image, `talk try ${OTHER} 7000; talk try ${SERVER} 7002; talk ask ${SERVER} 7000 1; talk try ${SERVER} 7001; probe connect ${SERVER} 7001; talk bind ${SERVER} 7000; talk bind 198.18.0.2 0; talk own`)
  t.deepEqual(r.stdout.split('\n').slice(0, 7), ['EACCES', 'EACCES', 'sendto: EACCES', 'ECONNREFUSED', 'ECONNREFUSED', 'bind: EADDRNOTAVAIL', 'done'])
  t.regex(r.stdout, /^lo 198\.18\.0\.2$/m)
  t.deepEqual(w.daemon.denials().map((x) => x.rule), [`no rule allows ${OTHER}:7000/tcp`, `no rule allows ${SERVER}:7002/tcp`, `no rule allows ${SERVER}:7000/udp`])
})

netns('datagrams of an unconnected socket', async (t) => {
  const w = await World.make(t)
  await w.peer(talk, 'serve-udp', '7000')
  const image = await policy({ egress: [`${SERVER}:7000/udp`, `[${SERVER6}]:7000/udp`] })
  const r = await w.daemon.sh(image, `talk ask ${SERVER} 7000 3; talk ask ${SERVER6} 7000 1; exec 3<>/dev/udp/${SERVER}/7000; echo -n c >&3; head -c 19 <&3; echo; talk ask ${OTHER} 7000 1`)
  t.deepEqual(r.stdout.split('\n').slice(0, 6), [0, 1, 2].map((n) => `${SERVER} says ::ffff:${SERVER} ${n}`).concat(`${SERVER6} says ${SERVER6} 0`, `::ffff:${SERVER}`, 'sendto: EACCES'))
})

netns('names: allowed ones resolve and may be connected to, on their ports; others are refused unasked', async (t) => {
  const w = await World.make(t)
  await w.nameServer()
  await w.peer(talk, 'serve', '80')
  await w.peer(talk, 'serve', '81')
  const image = await policy({ egress: ['*.example.com:80'] })
  const before = await w.daemon.sh(image, `talk try ${NAMED} 80`)
  t.is(before.stdout, 'EACCES\n')
  const r = await w.daemon.sh(image, `talk resolve A.Example.com; talk try ${NAMED} 80; talk try ${NAMED} 81; talk resolve b.example.com; talk resolve private.example.com; talk resolve none.example.com; talk resolve secret.data.evil.org; talk resolve example.com; talk try 10.9.9.9 80`)
  t.deepEqual(r.stdout.split('\n'), [`${NAMED} `, 'EINPROGRESS 1 connected', 'EACCES', `${NAMED} `, 'EAI_NODATA', 'EAI_NONAME', 'EAI_AGAIN', 'EAI_AGAIN', 'EACCES', ''])
  t.notRegex(w.asked, /evil/)
  const rules = w.daemon.denials().map((x) => x.rule)
  t.true(rules.includes('no rule allows the name secret.data.evil.org'))
  t.true(rules.includes('its address 10.9.9.9 is not one of a public name private.example.com'))
  t.true(rules.includes('its address 169.254.169.254 is not one of a public name b.example.com'))
})

netns('a name whose address changes leads nowhere else', async (t) => {
  const w = await World.make(t)
  await w.nameServer()
  await w.peer(talk, 'serve', '80')
  const image = await policy({ egress: ['rebind.example.com:80'] })
  const r = await w.daemon.sh(image, `for n in 1 2 3 4 5 6 7 8; do talk resolve rebind.example.com; done | sort | { while read -r x; do [ "$x" = "$y" ] || echo "$x"; y=$x; done; }; talk try ${NAMED} 80`)
  t.deepEqual(r.stdout.split('\n'), [NAMED, 'EAI_NODATA', 'EINPROGRESS 1 connected', ''])
})

netns('a published port: the peer\'s address, data, half-close, many at once', async (t) => {
  const w = await World.make(t)
  const image = await policy({ publish: ['80/tcp', '53/udp'] })
  await w.serve(image, ['-p', '8080:80', '-p', `${OTHER}:9053:53/udp`, '--name', 'web'], 'bash', '-c', 'talk serve 80 & talk serve-udp 53')
  t.is(w.host(talk, 'echo', SERVER, '8080', '3000000'), `peer ::ffff:${SERVER}, from ${SERVER}: 3000000 bytes, 0 wrong\n`)
  t.is(w.host(talk, 'echo', '127.0.0.1', '8080', '5'), 'peer ::ffff:198.18.0.1, from 127.0.0.1: 5 bytes, 0 wrong\n')
  t.is(w.host(talk, 'many', SERVER, '8080', '200'), '200 good\n')
  t.is(w.host(talk, 'echo', SERVER6, '8080', '5'), `peer ${SERVER6}, from ${SERVER6}: 5 bytes, 0 wrong\n`)
  t.is(w.host(talk, 'ask', OTHER, '9053', '2'), `${OTHER} says ::ffff:${OTHER} 0\n${OTHER} says ::ffff:${OTHER} 1\n`)
  t.regex((await w.daemon.command(['ps'])).stdout, /0\.0\.0\.0:8080->80\/tcp/)
  await w.daemon.command(['stop', '-t', '0', 'web'])
  t.is(w.host(talk, 'echo', SERVER, '8080', '0'), 'connect: ECONNREFUSED\n')
})

netns('a port that is not allowed, not free, or no port: 125 and why', async (t) => {
  const w = await World.make(t)
  await w.peer(talk, 'serve', '9000')
  const image = await policy({ publish: ['80'] })
  for (const [p, why] of [['8080:81', /port 81\/tcp may not be published/], ['9000:80', /in use/], ['192.0.2.77:1:80', /none of the host's/], ['x:80', /is not \[IP:\]/], ['1:2:3:4', /is not \[IP:\]/]] as const) {
    const r = await w.daemon.command(['run', '-p', p, image, 'true'])
    t.is(r.status, 125, p)
    t.regex(r.stderr, why)
  }
  t.is((await w.daemon.command(['run', '-p', '80', image, 'true'])).status, 0, 'any free port')
  // A port of a daemon that was killed is free again.
  await w.serve(image, ['-p', '8080:80'], 'talk', 'serve', '80')
  await w.daemon.end('SIGKILL')
  t.true(await until(() => w.daemon.zygotes().length === 0))
})

netns('rules are narrowed while a container runs, never widened; what they end is cut off', async (t) => {
  const w = await World.make(t)
  await w.peer(talk, 'serve', '7000')
  const image = await policy({ egress: [`${SERVER}:7000`, `${OTHER}:7000`] })
  await w.serve(image, ['--name', 'n'], 'bash', '-c', `exec 3<>/dev/tcp/${SERVER}/7000; read -r x <&3; echo ready; read -r x <&3 || echo cut; sleep 100`)
  const narrowed = await w.daemon.command(['policy', 'n', '--egress', `${OTHER}:7000/tcp`])
  t.is(narrowed.status, 0, narrowed.stderr)
  t.regex(narrowed.stdout, /^egress +198\.51\.100\.2:7000\/tcp$/m)
  t.true(await until(() => w.daemon.records().some((r) => r.event === 'policy' && r.rule === `egress is now ${OTHER}:7000/tcp`)))
  for (let n = 0; n < 100 && !(await w.daemon.command(['logs', 'n'])).stdout.includes('cut'); n++);
  t.regex((await w.daemon.command(['logs', 'n'])).stdout, /cut/)
  t.is(said(await w.daemon.command(['exec', 'n', 'talk', 'try', SERVER, '7000'])), 'EACCES\n')
  t.is(said(await w.daemon.command(['exec', 'n', 'talk', 'try', OTHER, '7000'])), 'EINPROGRESS 1 connected\n')
  const wider = await w.daemon.command(['policy', 'n', '--egress', '0.0.0.0/0'])
  t.is(wider.status, 125)
  t.regex(wider.stderr, /more than the signed policy allows/)
  const shown = (await w.daemon.command(['policy', 'n'])).stdout
  t.regex(shown, /^used +2 connections/m)
  t.regex(shown, /^refused +1 no rule allows 198\.51\.100\.1:7000\/tcp \/usr\/bin\/talk$/m)
})

netns('quotas of connections and bytes, exactly', async (t) => {
  const w = await World.make(t)
  await w.peer(talk, 'serve', '7000')
  const few = await policy({ egress: [SERVER], quota: { connections: 3 } })
  const r = await w.daemon.sh(few, `for n in 1 2 3 4 5; do talk try ${SERVER} 7000; done`)
  t.is(r.stdout, 'EINPROGRESS 1 connected\n'.repeat(3) + 'EACCES\n'.repeat(2))
  t.is(w.daemon.denials().filter((x) => x.rule === 'the quota of 3 connections is used up').length, 2)
  // "peer ::ffff:198.51.100.1\n" and 10000 bytes each way are 20025.
  const little = await policy({ egress: [SERVER], quota: { bytes: 20_025 } })
  t.regex((await w.daemon.sh(little, `talk echo ${SERVER} 7000 10000; talk echo ${SERVER} 7000 0`)).stdout, /: 10000 bytes, 0 wrong\nconnect: EACCES\n$/)
  t.is(w.daemon.denials().filter((x) => x.rule === 'the quota of 20025 bytes is used up').length, 1)
  const less = await policy({ egress: [SERVER], quota: { bytes: 15_000 } })
  t.regex((await w.daemon.sh(less, `talk echo ${SERVER} 7000 10000`)).stdout, /^(read|write|poll): ECONNRESET\n$/)
  t.is(w.daemon.denials().filter((x) => x.rule === 'the quota of 15000 bytes is used up').length, 1)
})

netns('native: sockets of the host, which have no other peer', async (t) => {
  const w = await World.make(t)
  await w.peer(talk, 'serve', '7000')
  await w.peer(talk, 'serve-udp', '7001')
  const image = await policy({ egress: [SERVER], network: 'native' })
  const r = await w.daemon.sh(image, `talk echo ${SERVER} 7000 1000000; talk try ${OTHER} 7000; talk ask ${SERVER} 7001 1; talk reuse ${SERVER} 7001`)
  t.deepEqual(r.stdout.split('\n'), [`peer ::ffff:${SERVER}, from ${SERVER}: 1000000 bytes, 0 wrong`, 'EACCES', 'sendto: EACCES', 'EISCONN EISCONN EISCONN EISCONN EINVAL', ''])
})

netns('an ordinary user\'s daemon has all of it', async (t) => {
  const w = await World.make(t, 1000)
  await w.nameServer()
  await w.peer(talk, 'serve', '80')
  await w.peer(talk, 'serve-udp', '81')
  const image = await policy({ egress: ['*.example.com:80', `${SERVER}:81`], publish: ['80'] })
  await w.serve(image, ['-p', '8080:80', '--name', 'web'], 'talk', 'serve', '80')
  t.is(w.host(talk, 'echo', SERVER, '8080', '9'), `peer ::ffff:${SERVER}, from ${SERVER}: 9 bytes, 0 wrong\n`)
  const r = await w.command('exec', 'web', 'bash', '-c', `talk resolve a.example.com; talk echo ${NAMED} 80 9; talk ask ${SERVER} 81 1`)
  t.is(r.stderr, '')
  t.is(r.stdout, `${NAMED} \npeer ::ffff:${NAMED}, from ${NAMED}: 9 bytes, 0 wrong\n${SERVER} says ::ffff:${SERVER} 0\n`)
  // Its own server on that port does not answer in the other's place.
  t.is((await w.command('exec', 'web', 'talk', 'try', '198.51.100.3', '80')).stdout, 'EACCES\n')
  t.regex((await w.command('run', '-p', '81:80', image, 'true')).stderr, /a port below 1024 needs root/)
})

netns('nothing is left: descriptors of the daemon after many connections and containers', async (t) => {
  const w = await World.make(t)
  await w.peer(talk, 'serve', '7000')
  const image = await policy({ egress: [`${SERVER}:7000`], publish: ['80'] })
  await w.daemon.sh(image, `talk many ${SERVER} 7000 20`)
  const before = w.daemon.fds()
  for (let n = 0; n < 5; n++) await w.daemon.sh(image, `talk many ${SERVER} 7000 50; talk ask ${SERVER} 7000 1`, ['-p', '8080:80'])
  t.true(await until(() => w.daemon.fds() <= before), `${before} before, ${w.daemon.fds()} after`)
})

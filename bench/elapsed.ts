/**
 * `npm run bench -- files`, `npm run bench -- services`: programs whose time is system calls, natively and in a
 * container, interleaved. `files`: elapsed time of a command, as bash's `time` gives it inside. `services`: time a
 * request of a server on the loopback under its usual load generator, in the image of `npm run test:long`.
 */
import { contained, native } from '../conformance/commands.ts'
import type { Row } from './report.ts'

/** `command` prints lines "name nanoseconds". */
interface Load { readonly name: string; readonly prepare?: string; readonly command: string }

const timed = (name: string, command: string): string => `TIMEFORMAT='%R'; t=$({ time { ${command}; } > /dev/null 2>&1; } 2>&1); gawk -v t="$t" 'BEGIN{ print "${name}", t * 1e9 }'`

export const FILES: readonly Load[] = [
  { name: 'find', command: timed('find /usr | wc -l', 'for n in 1 2 3; do find /usr | wc -l; done') },
  { name: 'tar', command: timed('tar c /usr | wc -c', 'tar c /usr | wc -c') },
  {
    name: 'git', prepare: 'git init -q r; cd r; for d in $(seq 100); do mkdir $d; for f in $(seq 100); do echo $d $f > $d/$f; done; done; git add -A; git -c user.name=a -c user.email=a@b commit -qm all; cd ..',
    command: `cd r; ${timed('git status of 10,000 files', 'for n in 1 2 3; do git status; done')}`,
  },
]

/** Requests a second become nanoseconds a request. */
const REDIS = `redis-benchmark -n 50000 -c 20 -t ping_mbulk,set,get --csv 2> /dev/null | tail -n +2 | awk -F'"' '{ printf "redis-benchmark %s %f\\n", $2, 1e9 / $4 }'
redis-benchmark -n 100000 -c 20 -P 16 -t set,get --csv 2> /dev/null | tail -n +2 | awk -F'"' '{ printf "redis-benchmark -P 16 %s %f\\n", $2, 1e9 / $4 }'`

const NGINX = `cat > nginx.conf <<'CONF'
user root; pid /tmp/case/nginx.pid; error_log /tmp/case/error.log; worker_processes 1;
events { worker_connections 256; }
http {
  access_log off; sendfile on;
  server { listen 8080; root /var/www/html; location /none { return 200 "hello"; } location /written/ { alias /tmp/case/; } }
}
CONF
head -c 600 /dev/zero > file
nginx -c /tmp/case/nginx.conf
ab_() { ab -q -n 10000 -c 20 "\${@:2}" | awk -v name="$1" '/^Requests per second/ { printf "%s %f\\n", name, 1e9 / $4 }'; }
ab_ 'ab -k, no file' -k http://127.0.0.1:8080/none
ab_ 'ab -k, a file of the image' -k http://127.0.0.1:8080/index.nginx-debian.html
ab_ 'ab, a file of the image, a connection each' http://127.0.0.1:8080/index.nginx-debian.html
ab_ 'ab -k, a file that was written' -k http://127.0.0.1:8080/written/file
nginx -c /tmp/case/nginx.conf -s stop 2> /dev/null`

export const SERVICES: readonly Load[] = [
  { name: 'redis', prepare: `redis-server --save '' --daemonize yes --dir /tmp/case --logfile redis.log; for n in $(seq 100); do [ "$(redis-cli ping 2> /dev/null)" = PONG ] && break; sleep 0.1; done`, command: `${REDIS}; redis-cli shutdown nosave` },
  { name: 'nginx', command: NGINX },
]

/** Runs the loads `rounds` times on each side; the minimum counts. */
export async function elapsed(loads: readonly Load[], rootfs: string, image: string, rounds: number): Promise<Row[]> {
  const rows: Row[] = []
  for (const l of loads) {
    const text = `${l.prepare ? `{ ${l.prepare}; } > /dev/null 2>&1; ` : ''}${l.command}`
    const best = [new Map<string, number>(), new Map<string, number>()] as const
    for (let n = 0; n < rounds; n++) {
      for (const [side, run] of [() => native(rootfs, text), () => contained(image, text)].entries()) {
        const r = await run()
        for (const line of r.stdout.trim().split('\n')) {
          const [, name, ns] = /^(.*) ([\d.e+]+)$/.exec(line) ?? []
          if (name === undefined || !(Number(ns) > 0)) throw new Error(`${l.name}: "${line}" is no figure; status ${r.status}: ${r.stderr.slice(-400)}`)
          best[side]!.set(name, Math.min(Number(ns), best[side]!.get(name) ?? Infinity))
        }
      }
    }
    for (const [name, ns] of best[0]) rows.push({ name, native: ns, ours: best[1].get(name) ?? NaN, unit: 'ns' })
    console.error(rows.slice(-best[0].size).map((r) => `${r.name}: ${(r.ours / r.native).toFixed(2)}`).join('\n'))
  }
  return rows
}

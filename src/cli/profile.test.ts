/** run --profile and analyze --profile on a program whose instructions are known, through fork and execve. */
import test from 'ava'
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readHints, writeHints } from '../image/hints.ts'
import { BuildError } from '../image/tree.ts'
import type { Profile } from '../image/profile.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-profile-'))
const root = join(import.meta.dirname, '../..')
const socket = join(base, 'sock')
const env = { ...process.env, HOME: base, XDG_CACHE_HOME: '', VKERNEL_KEYS: join(base, 'keys'), VKERNEL_IMAGES: join(base, 'images'), VKERNEL_SOCKET: socket }
let daemon: ChildProcess | undefined

test.after.always(async () => {
  if (daemon && daemon.exitCode === null) {
    daemon.kill('SIGTERM')
    await once(daemon, 'exit')
  }
  rmSync(base, { recursive: true, force: true })
})

/** Each `work` is 200 million instructions, in a child, a thread's, the parent and a program that it becomes; `land` lands in a frame by longjmp. */
const SOURCE = `
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static jmp_buf env;
__attribute__((noinline)) void work(void) { long n = 50000000; __asm__ volatile("1: dec %0\\n nop\\n nop\\n jnz 1b" : "+r"(n)); }
static void *thread(void *p) { work(); return p; }
__attribute__((noinline)) void jump(int n) { longjmp(env, n + 1); }
__attribute__((noinline)) int land(void) { volatile int n = 0; int got = setjmp(env); for (volatile int k = 0; k < 100; k++); if (n < 50) jump(++n); return got; }
/* A switch in a loop whose table's address is kept from before it, as gcc does it for options in main. */
__asm__(".text\\n.globl far\\n.type far,@function\\nfar: .cfi_startproc\\n push %r12\\n lea .Ltable(%rip),%r12\\n .rept 60\\n nop\\n .endr\\n xor %esi,%esi\\n"
  ".Lnext: cmp $3,%edi\\n ja .Lend\\n mov %edi,%eax\\n movslq (%r12,%rax,4),%rax\\n add %r12,%rax\\n jmp *%rax\\n"
  ".La: add $1,%esi\\n dec %edi\\n jmp .Lnext\\n.Lb: add $2,%esi\\n dec %edi\\n jmp .Lnext\\n.Lc: add $4,%esi\\n dec %edi\\n jmp .Lnext\\n"
  ".Lend: mov %esi,%eax\\n pop %r12\\n ret\\n.cfi_endproc\\n.size far,.-far\\n"
  ".section .rodata\\n.p2align 2\\n.Ltable: .long .La-.Ltable,.Lb-.Ltable,.Lc-.Ltable,.La-.Ltable\\n.text\\n");
int far(int);
int main(int argc, char **argv) {
  if (argc > 1) { work(); return 0; }
  if (fork() == 0) { work(); _exit(0); }
  wait(0);
  pthread_t t;
  pthread_create(&t, 0, thread, 0);
  pthread_join(t, 0);
  work();
  printf("%d %d\\n", land(), far(3));
  fflush(stdout);
  execl(argv[0], argv[0], "again", (char *)0);
  return 1;
}`

const cli = (...args: string[]): string => {
  const r = spawnSync(process.execPath, [join(root, 'src/cli/main.ts'), ...args], { encoding: 'utf8', env })
  if (r.status !== 0) throw new Error(`recompiler ${args.join(' ')}: ${r.stderr}`)
  return r.stdout
}

test('a profile counts what runs, once, and says where; its hints end what was interpreted', async (t) => {
  const client = join(root, 'native/target/release/recompiler')
  if (![client, join(root, 'native/target/release/vkernel-loader'), join(root, 'build/addon.node')].every(existsSync)) {
    t.log('skipped: the native parts are not built (npm run build)')
    return t.pass()
  }
  writeFileSync(join(base, 'work.c'), SOURCE)
  const cc = spawnSync('cc', ['-O1', '-static', '-o', join(base, 'work'), join(base, 'work.c')], { encoding: 'utf8' })
  t.is(cc.status, 0, cc.stderr)
  daemon = spawn(process.execPath, [join(root, 'src/daemon/main.ts'), '--socket', socket, '--state', join(base, 'state'), '--audit', join(base, 'audit.jsonl')], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  for (let waited = 0; !existsSync(socket) && waited < 10_000; waited += 20) await new Promise((next) => { setTimeout(next, 20) })

  const profile = (image: string, ...build: string[]): Profile => {
    cli('build', '--from-host', join(base, 'work'), '--count', '-o', image, ...build)
    const out = `${image}.profile`
    const r = spawnSync(client, ['run', '--profile', out, image, join(base, 'work')], { encoding: 'utf8', env, timeout: 120_000 })
    t.deepEqual([r.status, r.stdout], [0, '51 8\n'], r.stderr)
    t.regex(r.stderr, /ran translated/)
    return JSON.parse(cli('analyze', '--profile', out, '--hints', `${image}.hints`, '--json')) as Profile
  }
  const first = profile(join(base, 'first'))
  // Four times work(); the program around it is some 100 thousand instructions.
  t.true(first.translated! > 800_000_000 && first.translated! < 801_000_000, String(first.translated))
  const time = first.code + first.interpreter + first.host
  t.true(first.code > 0.9 * time, JSON.stringify([first.code, first.interpreter, first.host]))
  t.is(first.hot[0]![0], 'work')
  const svg = readFileSync(join(base, 'first.profile.svg'), 'utf8')
  t.regex(svg, /<title>main \(\d+ samples/)
  t.regex(svg, /<title>work \(\d+ samples/)
  const landed = (p: Profile): number => p.places.filter((l) => l.symbol === 'land').reduce((s, l) => s + l.instructions, 0)
  t.true(landed(first) > 5000, 'longjmp lands in a frame that is interpreted')
  t.deepEqual(first.places.filter((l) => l.symbol === 'far'), [])
  t.is(first.places.find((l) => l.symbol === 'land')!.cause, 'return to a frame that was dropped')

  const second = profile(join(base, 'second'), '--hints', join(base, 'first.hints'))
  t.is(landed(second), 0)
  t.true(second.translated! > first.translated!)
})

test('a hint file is what was written; anything else is refused with the reason', (t) => {
  const file = join(base, 'hints')
  const hints = new Map([['a'.repeat(64), [0x10, 0x1234]], ['b'.repeat(64), []]])
  writeHints(file, hints)
  t.deepEqual(readHints(file), hints)
  for (const [text, why] of [
    ['{', /no hint file: /], ['{"hints":2,"elfs":{}}', /no "hints": 1/], ['{"hints":1,"elfs":{"x":[]}}', /"x" is no SHA-256/],
    [`{"hints":1,"elfs":{"${'a'.repeat(64)}":["12"]}}`, /an address of aaaaaaaaaaaa is not/],
  ] as const) {
    writeFileSync(file, text)
    const e = t.throws(() => readHints(file), { instanceOf: BuildError })
    t.regex(e.message, why)
  }
})

/** /dev, /proc, /sys and sockets by path, as real programs in a real container see them. */
import test from 'ava'
import { TestDaemon, testImage } from '../daemon/testing.ts'

const image = await testImage()
const d = await TestDaemon.start()
test.after.always(() => d.remove())

const sh = async (text: string, ...options: string[]): Promise<string> => {
  const r = await d.sh(image, text, options)
  return r.stdout + r.stderr
}

test('a terminal pair of the container\'s own, numbered from 0', async (t) => {
  t.is(await sh('probe pty; probe pty; ls /dev/pts; stat -c "%F %t,%T" /dev/ptmx; readlink /dev/ptmx'),
    '/dev/pts/0 /dev/pts/0\n/dev/pts/0 /dev/pts/0\nptmx\nsymbolic link 0,0\npts/ptmx\n')
})

test('with -t: /dev/tty, /dev/console and the standard streams are one terminal', async (t) => {
  const r = await d.command(['run', '-t', image, 'bash', '-c', 'tty; echo tty > /dev/tty; echo console > /dev/console; echo /dev/pts/*; stat -c %t,%T /dev/pts/0; ps -o tty= $$; [ -t 0 ] && [ -t 1 ] && echo yes'])
  t.is(r.stdout.replaceAll('\r', ''), '/dev/pts/0\ntty\nconsole\n/dev/pts/0 /dev/pts/ptmx\n88,0\npts/0\nyes\n')
})

test('without -t there is no terminal', async (t) => {
  t.is(await sh('tty; (: < /dev/tty) 2>&1 | tail -c 26; ls /dev/console 2>/dev/null; ps -o tty= $$'), 'not a tty\nNo such device or address\n?\n')
})

test('a socket by path: its inode, its names, and what is there when the server is gone', async (t) => {
  t.is(await sh('cd /tmp; probe unix /tmp/s; ls -l s; probe unix rel; probe unix /etc/passwd; probe unix /no/dir/s'),
    'hello /tmp/s 9 140755\nECONNREFUSED\nEADDRINUSE\nENOENT\n'
    + 'hello rel 6 140755\nECONNREFUSED\nEADDRINUSE\nENOENT\nEADDRINUSE\nENOENT\nls: cannot access \'s\': No such file or directory\n')
})

test('a socket needs write permission, and none is made in a directory of the host', async (t) => {
  t.is(await sh('mkdir -m 755 /d; probe unix /d/s', '-u', 'root'), 'hello /d/s 7 140755\nECONNREFUSED\nEADDRINUSE\nENOENT\n')
  t.is(await sh('probe unix /etc/s', '-u', 'guest'), 'EACCES\n')
  t.is(await sh('probe unix /m/new', '-v', `${d.dir}:/m`), 'EACCES\n')
})

test('a file without a name keeps its size', async (t) => {
  t.is(await sh('probe unnamed /tmp/x; probe unnamed /m/x', '-v', `${d.dir}:/m`), '5 0\n5 0\n')
})

test('signals can be read from a descriptor', async (t) => { t.is(await sh('probe signalfd'), '10 1\n') })

test('/proc/self tells the process about itself', async (t) => {
  t.is(await sh('cd /tmp; (exec -a "my name" bash -c "tr \'\\0\' , < /proc/\\$\\$/cmdline; echo; readlink /proc/\\$\\$/exe /proc/\\$\\$/cwd /proc/\\$\\$/root; cat /proc/\\$\\$/comm; ls /proc/\\$\\$/task | wc -l" x y)'),
    'my name,-c,tr \'\\0\' , < /proc/$$/cmdline; echo; readlink /proc/$$/exe /proc/$$/cwd /proc/$$/root; cat /proc/$$/comm; ls /proc/$$/task | wc -l,x,y,\n'
    + '/usr/bin/bash\n/tmp\n/\nbash\n1\n')
  t.is(await sh('env -i X=1 /bin/bash -c \'tr "\\0" "\\n" < /proc/$$/environ\'; cut -d " " -f 1,4,5,6,7 /proc/$$/stat'), 'X=1\n1 0 1 1 0\n')
})

test('/proc/self/fd lists what is open, without names of the host', async (t) => {
  t.is(await sh('exec 3< /etc/passwd 4> /tmp/x 7< /tmp; rm /tmp/x; ls /proc/$$/fd | tr "\\n" " "; for n in 3 4 7; do readlink /proc/self/fd/$n; done; cat /dev/fd/3 | head -1; echo more > /proc/self/fd/4'),
    '0 1 2 3 4 7 /etc/passwd\n/tmp/x (deleted)\n/tmp\nroot:x:0:0:root:/root:/bin/bash\n')
})

test('a process that has ended stays until its parent waits', async (t) => {
  t.is(await sh('bash -c "sleep 0.1 & exec sleep 9" & for n in {1..40}; do s=$(ps -e -o stat= | cut -c 1 | sort | tail -1); [ $s = Z ] && break; done; echo $s'), 'Z\n')
})

for (const [what, command, want] of [
  ['writes', 'echo x > /proc/version', /Permission denied/], ['writes of kernel settings', 'echo 1 > /proc/sys/kernel/hostname', /Permission denied/],
  ['new names', 'mkdir /proc/x', /not permitted/], ['removal', 'rm /proc/version', /not permitted/], ['modes', 'chmod 777 /proc/version', /not permitted/],
  ['processes of the host', 'cat /proc/$((2**22 - 1))/status', /No such file/], ['memory', 'cat /proc/self/mem', /No such file/], ['kernel memory', 'cat /proc/kcore', /No such file/],
  ['sysrq', 'echo b > /proc/sysrq-trigger', /Permission denied/], ['/sys', 'echo 1 > /sys/devices/system/cpu/online', /Read-only|Permission denied/], ['devices', 'mkfifo /sys/x', /Read-only/],
] as const) test(`/proc refuses: ${what}`, async (t) => { t.regex(await sh(command), want) })

test('what programs write in their own entry is taken', async (t) => {
  t.is(await sh('echo 5 > /proc/self/oom_score_adj && echo x > /proc/self/comm && echo done'), 'done\n')
})

test('mounts and file systems', async (t) => {
  t.is(await sh('df / /m --output=target | tail -n +2; stat -f -c %T / /proc /dev/shm /dev/pts /sys; cut -d " " -f 2,3 /proc/mounts | sort | tr "\\n" ";"', '-v', `${d.dir}:/m`),
    '/\n/m\noverlayfs\nproc\ntmpfs\ndevpts\nsysfs\n/ overlay;/dev tmpfs;/dev/pts devpts;/dev/shm tmpfs;/m ext4;/proc proc;/sys sysfs;')
})

test('hard links, renames and moves between file systems', async (t) => {
  t.is(await sh('cd /tmp; echo a > a; ln a b; stat -c %h a; mv b c; cat c; ln a /dev/shm/x; mkdir d d/e; mv d d/e/f; mv /dev /x; rmdir /proc; rm -r /dev/shm'),
    '2\na\nln: failed to create hard link \'/dev/shm/x\' => \'a\': Invalid cross-device link\nmv: cannot move \'d\' to a subdirectory of itself, \'d/e/f\'\n'
    + 'mv: cannot move \'/dev\' to \'/x\': Device or resource busy\nrmdir: failed to remove \'/proc\': Device or resource busy\nrm: cannot remove \'/dev/shm\': Device or resource busy\n')
})

/**
 * `npm run bench -- cpu`: programs of the Debian image whose time is user code, natively and in a
 * container, interleaved. The time is the command's own processor time (user + system) as bash's
 * `time` gives it inside, so that neither starting the container nor waiting counts.
 */
import { native, contained } from '../conformance/commands.ts'

export interface Workload { readonly name: string; readonly prepare?: string; readonly command: string }

const PY = 'python3 -S -E -c'

export const workloads: readonly Workload[] = [
  { name: 'python3 nbody', command: `${PY} 'import math
b=[[0,0,0,0,0,0,39.47],[4.84,-1.16,-.10,.6,2.81,-.02,.037],[8.34,4.12,-.4,-1.01,1.81,.008,.011],[12.8,-15.1,-.22,1.08,.86,-.01,.0017],[15.3,-25.9,.17,.97,.59,-.03,.002]]
for _ in range(12000):
    for i in range(5):
        p=b[i]
        for j in range(i+1,5):
            q=b[j]; x=p[0]-q[0]; y=p[1]-q[1]; z=p[2]-q[2]; m=0.001/((x*x+y*y+z*z)**1.5+1e-9)
            p[3]-=x*q[6]*m; p[4]-=y*q[6]*m; p[5]-=z*q[6]*m; q[3]+=x*p[6]*m; q[4]+=y*p[6]*m; q[5]+=z*p[6]*m
    for p in b: p[0]+=0.001*p[3]; p[1]+=0.001*p[4]; p[2]+=0.001*p[5]
print(round(b[0][0],9))'` },
  { name: 'python3 richards-like objects', command: `${PY} 'class T:
    def __init__(s, n): s.n=n; s.next=None; s.c=0
    def run(s, v): s.c+=1; return s.next.run2(v) if v>0 else s
    def run2(s, v): s.c+=v&1; return s
ts=[T(i) for i in range(20)]
for i,t in enumerate(ts): t.next=ts[(i+1)%20]
x=ts[0]
for i in range(900000): x=x.run(i&3).next
print(sum(t.c for t in ts))'` },
  { name: 'python3 json', command: `${PY} 'import json
d={"a":[1,2.5,None,True,"x"*20]*20,"b":{str(i):i*1.1 for i in range(50)}}
for _ in range(600): s=json.dumps(d); e=json.loads(s)
print(len(s))'` },
  { name: 'python3 regex', command: `${PY} 'import re
t=open("/usr/lib/python3.11/os.py").read()
for _ in range(12): n=len(re.findall(r"(\\w+)\\s*\\(([^()]*)\\)|\\bdef\\s+\\w+", t))
print(n)'` },
  { name: 'python3 pickle', command: `${PY} 'import pickle
d=[(i,str(i),{"k":i*2.5}) for i in range(4000)]
for _ in range(25): x=pickle.loads(pickle.dumps(d))
print(len(x))'` },
  { name: 'perl regex', command: `perl -e 'local $/; open F,"/usr/lib/python3.11/os.py"; $t=<F>; for (1..60){ $n=0; $n++ while $t=~/(\\w+)\\s*\\(([^()]*)\\)/g; } print "$n\\n"'` },
  { name: 'perl hashes', command: `perl -e 'for $i (1..600000){ $h{$i%5000}+=$i; $s.=chr(65+$i%26) if $i%7==0 } $x+=$h{$_} for sort keys %h; print "$x ",length $s,"\\n"'` },
  { name: 'gawk', command: `gawk 'BEGIN{ for(i=0;i<900000;i++){ a[i%1000]+=i*1.5; s=s substr("abcdef",i%6+1,1); if(length(s)>100) s="" } for(k in a) t+=a[k]; print t }'` },
  { name: 'sqlite3 insert', command: `sqlite3 :memory: "create table t(id integer primary key,k text,v real); with recursive c(x) as (select 1 union all select x+1 from c where x<150000) insert into t select x,'key'||(x*7919%100003),x/3.0 from c; create index i on t(k); select count(*) from t"` },
  { name: 'sqlite3 select, order by', command: `sqlite3 :memory: "create table t(id integer primary key,k text,v real); with recursive c(x) as (select 1 union all select x+1 from c where x<60000) insert into t select x,'key'||(x*7919%100003),x/3.0 from c; select sum(a.v) from t a join t b on a.id=b.id where b.k like '%7%'; select k from t order by k desc, v limit 2; select count(distinct k), avg(length(k)) from t"` },
  { name: 'gzip -6', prepare: 'cat /usr/bin/python3.11 > f', command: 'gzip -6c f | wc -c' },
  { name: 'xz -6', prepare: 'head -c 1500000 /usr/bin/python3.11 > f', command: 'xz -6c f | wc -c' },
  { name: 'sha256sum', prepare: 'for i in 1 2 3 4; do cat /usr/bin/python3.11; done > f', command: 'sha256sum f' },
  { name: 'openssl, modular exponentiation', command: `openssl prime -hex 7$(printf 'F%.0s' $(seq 550)) | wc -l` },
  { name: 'openssl AES-256-CBC', prepare: 'for i in 1 2 3; do cat /usr/bin/python3.11; done > f', command: 'openssl enc -aes-256-cbc -K 00 -iv 00 -in f 2>/dev/null | wc -c' },
  { name: 'openssl AES-256-CBC, AES-NI off', prepare: 'for i in 1 2 3; do cat /usr/bin/python3.11; done > f', command: 'OPENSSL_ia32cap=~0x200000200000000 openssl enc -aes-256-cbc -K 00 -iv 00 -in f 2>/dev/null | wc -c' },
  { name: 'sort', prepare: `gawk 'BEGIN{srand(1); for(i=0;i<200000;i++) print int(rand()*1e9), i}' > f`, command: 'LC_ALL=C sort f | tail -1; sort -n f | tail -1' },
  { name: 'grep -E', prepare: 'for i in 1 2 3 4 5 6 7 8; do cat /usr/lib/python3.11/*.py; done > f', command: `LC_ALL=C grep -cE '(import|from) [a-z]+[0-9]*|def __[a-z]+__' f; grep -cE '[a-z]+_[a-z]+\\(' f` },
  { name: 'jq', prepare: `seq 20000 | jq -c '{n: ., s: tostring}' > f`, command: `jq -s 'map(.n*2)|add' f; jq -c 'select(.n%1000==0)|.s' f | wc -l` },
  { name: 'bc', command: `echo 'scale=900; 4*a(1)' | bc -l | tail -c 20` },
  { name: 'git gc', prepare: `git init -q r; cd r; git config user.email a@b; git config user.name a; for i in $(seq 1 60); do cp /usr/lib/python3.11/[a-d]*.py .; echo $i >> abc.py; git add -A; git commit -qm $i; done`, command: 'cd /tmp/case/r && git repack -adfq --depth=50 --window=20 && git count-objects -v | grep in-pack' },
  { name: 'bash loop', command: `bash -c 's=0; for ((i=0;i<150000;i++)); do ((s+=i*3%7)); done; echo $s'` },
]

export interface Measured { readonly name: string; readonly nativeS: number; readonly oursS: number; readonly same: boolean }

/** Runs one workload `rounds` times on each side; the minimum counts. */
export async function measure(w: Workload, rootfs: string, image: string, rounds: number): Promise<Measured> {
  const text = `${w.prepare ? `(${w.prepare}) >/dev/null 2>&1; ` : ''}TIMEFORMAT='@%U %S'; cd /tmp/case; time { ${w.command}
}`
  const best = [Infinity, Infinity]
  const outputs = ['', '']
  for (let n = 0; n < rounds; n++) {
    for (const [side, run] of [() => native(rootfs, text), () => contained(image, text)].entries()) {
      const r = await run()
      const m = /@([\d.]+) ([\d.]+)/.exec(r.stderr)
      if (!m) throw new Error(`${w.name}: no time in the output: status ${r.status}: ${r.stderr.slice(-400)}`)
      best[side] = Math.min(best[side]!, Number(m[1]) + Number(m[2]))
      outputs[side] = r.stdout
    }
  }
  return { name: w.name, nativeS: best[0]!, oursS: best[1]!, same: outputs[0] === outputs[1] }
}

import test from 'ava'
import { Egress, parseAddress, parseRule, showAddress, type Address } from './egress.ts'

const v4 = (ip: string, port: number): Address => {
  const b = Buffer.alloc(16)
  b.writeUInt16LE(2, 0)
  b.writeUInt16BE(port, 2)
  ip.split('.').forEach((p, n) => b.writeUInt8(Number(p), 4 + n))
  return parseAddress(b)!
}
const v6 = (groups: number[], port: number): Address => {
  const b = Buffer.alloc(28)
  b.writeUInt16LE(10, 0)
  b.writeUInt16BE(port, 2)
  groups.forEach((g, n) => b.writeUInt16BE(g, 8 + 2 * n))
  return parseAddress(b)!
}

test('no rule, no destination', (t) => {
  t.is(new Egress([]).allows(v4('192.0.2.1', 443), 'tcp'), undefined)
})

test('a rule is a network and a range of ports', (t) => {
  const e = new Egress(['192.0.2.0/24:443', '198.51.100.7', '203.0.113.0/28:8000-8080', '[2001:db8::]/32:53'])
  t.is(e.allows(v4('192.0.2.200', 443), 'tcp'), '192.0.2.0/24:443')
  t.is(e.allows(v4('192.0.2.200', 80), 'tcp'), undefined)
  t.is(e.allows(v4('192.0.3.1', 443), 'tcp'), undefined)
  t.is(e.allows(v4('198.51.100.7', 1), 'tcp'), '198.51.100.7')
  t.is(e.allows(v4('198.51.100.8', 1), 'tcp'), undefined)
  t.truthy(e.allows(v4('203.0.113.15', 8080), 'tcp'))
  t.is(e.allows(v4('203.0.113.16', 8080), 'tcp'), undefined)
  t.is(e.allows(v4('203.0.113.15', 8081), 'tcp'), undefined)
  t.truthy(e.allows(v6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1], 53), 'tcp'))
  t.is(e.allows(v6([0x2001, 0xdb9, 1, 0, 0, 0, 0, 1], 53), 'tcp'), undefined)
})

test('metadata, link-local, loopback and multicast are never meant', (t) => {
  const e = new Egress(['0.0.0.0/0', '[::]/0'])
  t.truthy(e.allows(v4('192.0.2.1', 80), 'tcp'))
  for (const ip of ['169.254.169.254', '169.254.1.1', '168.63.129.16', '127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255']) t.is(e.allows(v4(ip, 80), 'tcp'), undefined, ip)
  t.is(e.allows(v6([0xfe80, 0, 0, 0, 0, 0, 0, 1], 80), 'tcp'), undefined)
  t.is(e.allows(v6([0, 0, 0, 0, 0, 0, 0, 1], 80), 'tcp'), undefined)
  t.is(e.allows(v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 80), 'tcp'), undefined)
})

test('an IPv4 address inside an IPv6 one is judged as itself', (t) => {
  const all = new Egress(['0.0.0.0/0', '[::]/0'])
  const metadata = [0xa9fe, 0xa9fe]
  t.is(all.allows(v6([0, 0, 0, 0, 0, 0xffff, ...metadata], 80), 'tcp'), undefined, 'mapped')
  t.is(all.allows(v6([0x64, 0xff9b, 0, 0, 0, 0, ...metadata], 80), 'tcp'), undefined, 'NAT64')
  t.is(all.allows(v6([0x2002, ...metadata, 0, 0, 0, 0, 0], 80), 'tcp'), undefined, '6to4')
  t.is(all.allows(v6([0, 0, 0, 0, 0, 0, ...metadata], 80), 'tcp'), undefined, 'compatible')
  t.truthy(new Egress(['192.0.2.1']).allows(v6([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x201], 80), 'tcp'), 'mapped, allowed as IPv4')
})

for (const text of ['', 'example', '-a.org', 'a..org', '*.', 'a.*.org', 'a.org:1:2', 'a.org/icmp', '1.2.3.4/24/sctp', '1.2.3', '1.2.3.4/33', '1.2.3.4:70000', '1.2.3.4:9-8', '256.1.1.1', '01.2.3.4', '[1::2::3]', '1.2.3.4 ', '2001:db8::1', '[::]/129', '[::1.2.3.4]']) {
  test(`not a rule: ${JSON.stringify(text)}`, (t) => { t.throws(() => parseRule(text)) })
}

test('a protocol is a part of a rule', (t) => {
  const e = new Egress(['192.0.2.0/24:53/udp', '198.51.100.1/tcp'])
  t.is(e.allows(v4('192.0.2.1', 53), 'udp'), '192.0.2.0/24:53/udp')
  t.is(e.allows(v4('192.0.2.1', 53), 'tcp'), undefined)
  t.is(e.allows(v4('198.51.100.1', 9), 'tcp'), '198.51.100.1/tcp')
  t.is(e.allows(v4('198.51.100.1', 9), 'udp'), undefined)
})

test('a name is the addresses that were handed out for it, for a time', (t) => {
  const e = new Egress(['example.org:443', '*.Example.com'])
  const bytes = (ip: string): Buffer => v4(ip, 0).bytes
  t.true(e.allowsName('example.org'))
  t.true(e.allowsName('a.b.example.com'))
  for (const name of ['example.com', 'www.example.org', 'xexample.com', 'example.org.evil.net']) t.false(e.allowsName(name), name)
  t.is(e.allows(v4('203.0.113.1', 443), 'tcp'), undefined)
  t.true(e.grant('example.org', bytes('203.0.113.1'), 1000, 5000))
  t.is(e.allows(v4('203.0.113.1', 443), 'tcp', 5999), 'example.org:443 (example.org)')
  t.is(e.allows(v4('203.0.113.1', 443), 'tcp', 6000), undefined)
  t.is(e.allows(v4('203.0.113.1', 80), 'tcp', 5999), undefined)
  e.grant('a.example.com', bytes('203.0.113.1'), 1000, 5000)
  t.is(e.allows(v4('203.0.113.1', 80), 'tcp', 5999), '*.Example.com (a.example.com)')
})

test('a name does not lead into the host\'s surroundings', (t) => {
  const e = new Egress(['example.org', '10.1.0.0/16:80'])
  for (const ip of ['10.0.0.1', '192.168.1.1', '172.16.0.1', '100.64.0.1', '127.0.0.1', '169.254.169.254', '198.18.0.1', '0.0.0.0', '224.0.0.1']) {
    t.false(e.grant('example.org', v4(ip, 0).bytes, 1e6), ip)
  }
  for (const groups of [[0xfd00, 0, 0, 0, 0, 0, 0, 1], [0xfe80, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1], [0x64, 0xff9b, 0, 0, 0, 0, 0xa00, 1], [0x2002, 0xa00, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]]) {
    t.false(e.grant('example.org', v6(groups, 0).bytes, 1e6), groups.join(':'))
  }
  t.true(e.grant('example.org', v4('10.1.2.3', 0).bytes, 1e6), 'but for what a rule has as a number')
})

test('what is in force is never more than what was signed', (t) => {
  const e = new Egress(['192.0.2.0/24:80-90', '*.example.com:443/tcp'])
  for (const list of [['192.0.2.0/23:80'], ['192.0.2.0/24'], ['192.0.2.1:79-80'], ['example.com:443/tcp'], ['*.b.com:443/tcp'], ['a.example.com:443'], ['203.0.113.1:443/tcp']]) {
    t.throws(() => { e.narrow(list) }, { message: /more than the signed policy/ }, list[0])
  }
  e.narrow(['192.0.2.7:80/tcp', '*.a.example.com:443/tcp', 'b.example.com:443/tcp'])
  t.is(e.allows(v4('192.0.2.8', 80), 'tcp'), undefined)
  t.truthy(e.allows(v4('192.0.2.7', 80), 'tcp'))
  t.false(e.allowsName('c.example.com'))
  e.narrow([])
  t.is(e.allows(v4('192.0.2.7', 80), 'tcp'), undefined)
  e.narrow(['192.0.2.0/24:80-90'])
  t.truthy(e.allows(v4('192.0.2.7', 80), 'tcp'), 'up to what was signed')
})

test('addresses as text', (t) => {
  t.is(showAddress(v4('192.0.2.1', 80)), '192.0.2.1:80')
  t.is(showAddress(v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 443)), '[2001:db8:0:0:0:0:0:1]:443')
  t.is(parseAddress(Buffer.from([1, 0, 47])), undefined)
  t.is(parseAddress(Buffer.alloc(0)), undefined)
})

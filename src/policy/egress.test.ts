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
  t.is(new Egress([]).allows(v4('192.0.2.1', 443)), undefined)
})

test('a rule is a network and a range of ports', (t) => {
  const e = new Egress(['192.0.2.0/24:443', '198.51.100.7', '203.0.113.0/28:8000-8080', '[2001:db8::]/32:53'])
  t.is(e.allows(v4('192.0.2.200', 443)), '192.0.2.0/24:443')
  t.is(e.allows(v4('192.0.2.200', 80)), undefined)
  t.is(e.allows(v4('192.0.3.1', 443)), undefined)
  t.is(e.allows(v4('198.51.100.7', 1)), '198.51.100.7')
  t.is(e.allows(v4('198.51.100.8', 1)), undefined)
  t.truthy(e.allows(v4('203.0.113.15', 8080)))
  t.is(e.allows(v4('203.0.113.16', 8080)), undefined)
  t.is(e.allows(v4('203.0.113.15', 8081)), undefined)
  t.truthy(e.allows(v6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1], 53)))
  t.is(e.allows(v6([0x2001, 0xdb9, 1, 0, 0, 0, 0, 1], 53)), undefined)
})

test('metadata, link-local, loopback and multicast are never meant', (t) => {
  const e = new Egress(['0.0.0.0/0', '[::]/0'])
  t.truthy(e.allows(v4('192.0.2.1', 80)))
  for (const ip of ['169.254.169.254', '169.254.1.1', '168.63.129.16', '127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255']) t.is(e.allows(v4(ip, 80)), undefined, ip)
  t.is(e.allows(v6([0xfe80, 0, 0, 0, 0, 0, 0, 1], 80)), undefined)
  t.is(e.allows(v6([0, 0, 0, 0, 0, 0, 0, 1], 80)), undefined)
  t.is(e.allows(v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 80)), undefined)
})

test('an IPv4 address inside an IPv6 one is judged as itself', (t) => {
  const all = new Egress(['0.0.0.0/0', '[::]/0'])
  const metadata = [0xa9fe, 0xa9fe]
  t.is(all.allows(v6([0, 0, 0, 0, 0, 0xffff, ...metadata], 80)), undefined, 'mapped')
  t.is(all.allows(v6([0x64, 0xff9b, 0, 0, 0, 0, ...metadata], 80)), undefined, 'NAT64')
  t.is(all.allows(v6([0x2002, ...metadata, 0, 0, 0, 0, 0], 80)), undefined, '6to4')
  t.is(all.allows(v6([0, 0, 0, 0, 0, 0, ...metadata], 80)), undefined, 'compatible')
  t.truthy(new Egress(['192.0.2.1']).allows(v6([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x201], 80)), 'mapped, allowed as IPv4')
})

for (const text of ['', 'example.org', '1.2.3', '1.2.3.4/33', '1.2.3.4:70000', '1.2.3.4:9-8', '256.1.1.1', '01.2.3.4', '[1::2::3]', '1.2.3.4 ', '2001:db8::1', '[::]/129', '[::1.2.3.4]']) {
  test(`not a rule: ${JSON.stringify(text)}`, (t) => { t.throws(() => parseRule(text)) })
}

test('addresses as text', (t) => {
  t.is(showAddress(v4('192.0.2.1', 80)), '192.0.2.1:80')
  t.is(showAddress(v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 443)), '[2001:db8:0:0:0:0:0:1]:443')
  t.is(parseAddress(Buffer.from([1, 0, 47])), undefined)
  t.is(parseAddress(Buffer.alloc(0)), undefined)
})

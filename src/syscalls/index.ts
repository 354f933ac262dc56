/** All handlers of mediated calls, by number. */
import { CALL_NODE, CALL_RECORD, CALL_REPORT } from '../abi/ring.ts'
import { handlers as attributes } from './attributes.ts'
import { handlers as exec } from './exec.ts'
import { handlers as file } from './file.ts'
import type { Handler } from './handler.ts'
import { handlers as inotify } from './inotify.ts'
import { handlers as net } from './net.ts'
import { ioctl, openat } from './open.ts'
import { handlers as process, node, record, report } from './process.ts'
import { nrOf } from './table/index.ts'
import { handlers as xattr } from './xattr.ts'

const named: Record<string, Handler> = { ...file, ...attributes, ...xattr, ...exec, ...process, ...net, ...inotify, openat, ioctl }

export const handlers: ReadonlyMap<number, Handler> = new Map([
  ...Object.entries(named).map(([name, h]): [number, Handler] => [nrOf(name), h]),
  [CALL_REPORT, report],
  [CALL_NODE, node],
  [CALL_RECORD, record],
])

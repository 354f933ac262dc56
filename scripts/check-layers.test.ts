import test from 'ava'
import { checkLayers, violations } from './check-layers.ts'

test('no file of src/ imports upward', (t) => {
  t.deepEqual(checkLayers(), [])
})

const wrong = test.macro({
  exec: (t, path: string, line: string, count: number) => t.is(violations(path, line).length, count),
  title: (_, path: string, line: string, count: number) => `${path}: ${line} → ${count ? 'refused' : 'fine'}`,
})
test(wrong, 'fs/vfs.ts', `import { X } from '../abi/errno.ts'`, 0)
test(wrong, 'fs/vfs.ts', `import type { X } from '../task/container.ts'`, 1)
test(wrong, 'fs/vfs.ts', `const m = await import('../daemon/runtime.ts')`, 1)
test(wrong, 'abi/errno.ts', `export * from '../fs/vfs.ts'`, 1)
test(wrong, 'syscalls/table/fd.ts', `import { read } from '../file.ts'`, 1)
test(wrong, 'syscalls/file.ts', `import { table } from './table/index.ts'`, 0)
test(wrong, 'daemon/zygote.ts', `import { x } from '../../scripts/gen.ts'`, 1)
test(wrong, 'daemon/zygote.ts', `import { x } from '../cli/main.ts'`, 1)
test(wrong, 'lib/util.ts', '', 1)

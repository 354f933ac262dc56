import test from 'ava'
import { counts } from './test.ts'

const reads = test.macro({
  exec: (t, output: string, passed: number, failed: number, skipped: number) => t.deepEqual(counts(output), { passed, failed, skipped }),
  title: (_, output: string) => `counts ${JSON.stringify(output)}`,
})
test(reads, 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n', 3, 0, 1)
test(reads, 'test result: ok. 3 passed; 0 failed; 0 ignored;\ntest result: FAILED. 1 passed; 2 failed; 0 ignored;\n', 4, 2, 0)
test(reads, '  ─\n\n  14 tests passed\n', 14, 0, 0)
test(reads, '  1 test passed\n  2 tests failed\n  3 tests skipped\n  1 uncaught exception\n', 1, 3, 3)
test(reads, '  1 test failed\n  1 known failure\n', 1, 1, 0)
test(reads, '  ✔ file › one\n  ✘ [fail]: file › two\n  ✔ file › three (5ms)\n  1 test failed\n', 2, 1, 0)
test(reads, '  ✔ one\n  ✔ two\n  2 tests passed\n', 2, 0, 0)
test(reads, 'ok - a\n12 passed, 1 failed\n', 12, 1, 0)
test(reads, '12 passed, 1 failed, 2 skipped\n', 12, 1, 2)

test('no count is no count', (t) => {
  t.is(counts('nothing to see\npassed\n'), undefined)
})

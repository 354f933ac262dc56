/** The loader must contain no compiler: whoever gets hold of a guest process finds none to use. */
import test from 'ava'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './stamp.ts'

const RELEASE = join(root, 'native/target/release')

/** Crates that turn wasm into code. cranelift-entity and -bitset are containers the runtime uses. */
const COMPILERS = ['cranelift_codegen', 'cranelift_frontend', 'wasmtime_internal_cranelift', 'regalloc2', 'winch_codegen', 'wasmtime_internal_winch']

/** Compiler crates whose names are in the program's symbols, debug lines or panic messages. */
function compilersIn(program: string): string[] {
  const bytes = readFileSync(join(RELEASE, program))
  return COMPILERS.filter((name) => bytes.includes(name))
}

const built = existsSync(join(RELEASE, 'vkernel-loader')) && existsSync(join(RELEASE, 'vkernel-recompiler'))
const run = built ? test : test.skip

run('the search finds the compiler where there is one', (t) => {
  t.true(compilersIn('vkernel-recompiler').includes('cranelift_codegen'))
})

run('the loader contains no compiler', (t) => {
  t.deepEqual(compilersIn('vkernel-loader'), [], 'built together with the recompiler? `npm run build` builds it on its own')
})

run('the loader\'s symbols are there to be searched', (t) => {
  t.true(readFileSync(join(RELEASE, 'vkernel-loader')).includes('vkernel_loader'))
})

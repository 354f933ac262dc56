// `npm run test:long`: what takes minutes, one file at a time.
const config = {
  files: ['src/**/*.long.test.ts', 'scripts/**/*.long.test.ts', 'conformance/**/*.long.test.ts'],
  extensions: { ts: 'module' },
  workerThreads: false,
  concurrency: 1,
  timeout: '30m',
}

export default config

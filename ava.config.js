// Tests are TypeScript that Node runs as it is. Child processes, not worker threads: the daemon's
// native addon is loaded. Long ones (*.long.test.ts) run under ava.long.config.js.
const config = {
  files: ['src/**/*.test.ts', 'scripts/**/*.test.ts', 'conformance/**/*.test.ts', 'bench/**/*.test.ts', '!**/*.long.test.ts'],
  extensions: { ts: 'module' },
  workerThreads: false,
  // The tests share the machine with guests; two files at once fill two cores.
  concurrency: 2,
  timeout: '2m',
}

export default config

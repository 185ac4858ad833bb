import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Whole runs take minutes each and time kernels, so they run alone: npm run test:runs, test:e2e.
    // Runs that are killed take minutes too, and both cores: npm run test:killed, test:kill.
    exclude: [...(process.env.AUTOKERNEL_E2E ? [] : ['test/e2e/**', 'test/e2e-agents/**']), ...(process.env.AUTOKERNEL_KILL ? [] : ['test/kill/**'])],
    testTimeout: process.env.AUTOKERNEL_E2E ? 120_000 : 30_000,
    // Two at a time: several of these start Python and git, and CI machines have two cores.
    maxWorkers: 2,
  },
})

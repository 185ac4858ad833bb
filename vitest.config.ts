import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 30_000,
    // Two at a time: several of these start Python and git, and CI machines have two cores.
    maxWorkers: 2,
  },
})

/** The daemon's own rule for whoever measures without the daemon: a line of rounds in, a line with the decision out. Needs `npm run build`. */
import { createInterface } from 'node:readline'
import { decide } from '../dist/core/judge.js'

const SHAPES = [{ shape: [1], options: {}, weight: 1, calls: 1 }]
const RULE = { minGain: 0.01, maxPairs: 12 }

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(decide(JSON.parse(line), SHAPES, RULE)))
}

/** Student's t for small samples: the bounds behind every keep. */
import type { Interval } from '../types.ts'

/** P(|T| <= t) for a whole number of degrees of freedom: the finite series of Abramowitz & Stegun 26.7.3 and 26.7.4. */
function central(t: number, df: number): number {
  const theta = Math.atan(t / Math.sqrt(df))
  const cos = Math.cos(theta)
  const odd = df % 2 === 1
  let term = odd ? cos : 1
  let sum = df === 1 ? 0 : term
  for (let k = odd ? 3 : 2; k <= df - 2; k += 2) {
    term *= ((k - 1) / k) * cos * cos
    sum += term
  }
  return odd ? (2 / Math.PI) * (theta + Math.sin(theta) * sum) : Math.sin(theta) * sum
}

/** The t that one-sided probability `alpha` lies beyond, for df >= 1. */
export function tQuantile(alpha: number, df: number): number {
  let low = 0
  let high = 1
  while ((1 - central(high, df)) / 2 > alpha) high *= 2
  for (let i = 0; i < 80; i++) {
    const middle = (low + high) / 2
    if ((1 - central(middle, df)) / 2 > alpha) low = middle
    else high = middle
  }
  return high
}

export const mean = (xs: number[]): number => xs.reduce((a, b) => a + b, 0) / xs.length

/** Sample standard deviation; 0 for fewer than two. */
export function deviation(xs: number[]): number {
  if (xs.length < 2) return 0
  const m = mean(xs)
  return Math.sqrt(xs.reduce((sum, x) => sum + (x - m) ** 2, 0) / (xs.length - 1))
}

/** Mean with one-sided bounds at `alpha` each; infinite bounds when there are fewer than two values. */
export function bounds(xs: number[], alpha: number): Interval {
  const point = mean(xs)
  if (xs.length < 2) return { point, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY }
  const half = (tQuantile(alpha, xs.length - 1) * deviation(xs)) / Math.sqrt(xs.length)
  return { point, low: point - half, high: point + half }
}

/** Geometric mean of ratios given as logs, with bounds. */
export function ratioBounds(logs: number[], alpha: number): Interval {
  const { point, low, high } = bounds(logs, alpha)
  return { point: Math.exp(point), low: Math.exp(low), high: Math.exp(high) }
}

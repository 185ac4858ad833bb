/** What a model's tokens cost, in USD per million. No provider's API tells, so this is a table with a date that the user can override. */

export const PRICES_AS_OF = '2026-11-20'

/** Tokens of one or more calls; what is read from or written to a cache is not in `input`. */
export type Usage = { input: number; cacheWrite: number; cacheRead: number; output: number }

/** `cacheWrite` is the rate for an hour's cache at Anthropic, which is the one we ask for. */
export type Price = { input: number; cacheWrite: number; cacheRead: number; output: number }

export type PriceTable = Record<string, Price>

/** Rates for prompts up to 100,000 tokens; ours stay far below, so the dearer rates for long ones do not apply. */
const PRICES: PriceTable = {
  'claude-fable-5-1': anthropic(10, 50, 0.025),
  'claude-fable-5': anthropic(10, 50),
  'claude-mythos-5-1': anthropic(10, 50, 0.025),
  'claude-mythos-5': anthropic(10, 50),
  'claude-opus-5-5': anthropic(4, 20, 0.05),
  'claude-opus-5': anthropic(5, 25),
  'claude-opus-4-8': anthropic(5, 25),
  'claude-opus-4-7': anthropic(5, 25),
  'claude-opus-4-6': anthropic(5, 25),
  'claude-opus-4-5': anthropic(5, 25),
  'claude-sonnet-5-5': anthropic(2, 10, 0.05),
  'claude-sonnet-5': anthropic(2, 10),
  'claude-sonnet-4-6': anthropic(3, 15),
  'claude-sonnet-4-5': anthropic(3, 15),
  'claude-haiku-5-5': anthropic(0.1, 0.5),
  'claude-haiku-4-5': anthropic(1, 5),
  'gpt-6.1-sol': openai(2, 0.1, 10),
  'gpt-6.1-terra': openai(1, 0.05, 5),
  'gpt-6-astra': openai(10, 1, 50),
  'gpt-6-sol': openai(2, 0.2, 10),
  'gpt-6-luna': openai(0.1, 0.01, 0.5),
  'gpt-5.6-terra': openai(2, 0.2, 12),
  'gpt-5.6-luna': openai(0.2, 0.02, 1.2),
  'gpt-5.5': openai(5, 0.5, 30),
  'gpt-5.4': openai(2.5, 0.25, 15),
  'gpt-5.4-mini': openai(0.75, 0.075, 4.5),
  'gpt-5.4-nano': openai(0.2, 0.02, 1.25),
  'gpt-5.2': openai(1.75, 0.175, 14),
}

/** Null for a model that we have no price of: a run with a cost limit must then refuse to start. Dated ids cost what the plain name does. */
export function priceFor(model: string, overrides: PriceTable = {}): Price | null {
  const plain = model.replace(/-(\d{8}|\d{4}-\d{2}-\d{2})$/, '')
  for (const table of [overrides, PRICES]) {
    for (const name of [model, plain]) if (Object.hasOwn(table, name)) return table[name] ?? null
  }
  return null
}

export function costOf(usage: Usage, price: Price): number {
  const { input, cacheWrite, cacheRead, output } = usage
  return (input * price.input + cacheWrite * price.cacheWrite + cacheRead * price.cacheRead + output * price.output) / 1e6
}

export const tokensOf = (usage: Usage): number => usage.input + usage.cacheWrite + usage.cacheRead + usage.output

function anthropic(input: number, output: number, cachedShare = 0.1): Price {
  return { input, cacheWrite: 2 * input, cacheRead: cachedShare * input, output }
}

function openai(input: number, cacheRead: number, output: number): Price {
  return { input, cacheWrite: 1.25 * input, cacheRead, output }
}

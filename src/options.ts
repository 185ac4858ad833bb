/** Every flag once: what it takes, what it says in --help, how its text becomes a value. */
import { z } from 'zod'
import { UsageError } from './errors.ts'
import { Backend, DeviceKind, Dtype, RunName } from './schema.ts'

type Option<T> = { takes: string | null; help: string; parse: (text: string, flag: string) => T; among?: readonly string[]; alias?: string }

const text = (takes: string, help: string): Option<string> => ({ takes, help, parse: (value) => value })

const flag = (help: string): Option<boolean> => ({
  takes: null,
  help,
  parse: (value, name) => (value === 'true' ? true : value === 'false' ? false : wrong(name, 'true or false', value)),
})

function number(takes: string, help: string, such: string, fits: (n: number) => boolean, scale = 1): Option<number> {
  return {
    takes,
    help,
    parse: (value, name) => {
      const percent = /^(.+)%$/.exec(value)
      const n = percent ? Number(percent[1]) / 100 : Number(value)
      return value.trim() !== '' && Number.isFinite(n) && fits(n) ? n * scale : wrong(name, such, value)
    },
  }
}

const above0 = (n: number): boolean => n > 0
const whole = (n: number): boolean => Number.isSafeInteger(n) && n >= 0
const counting = (n: number): boolean => Number.isSafeInteger(n) && n > 0

function choice<T extends string>(values: readonly T[], help: string): Option<T> {
  const schema = z.enum(values as [T, ...T[]])
  return {
    takes: values.join('|'),
    help,
    among: values,
    parse: (value, name) => {
      const found = schema.safeParse(value)
      return found.success ? found.data : wrong(name, `one of ${values.join(', ')}`, value)
    },
  }
}

const shape: Option<number[]> = {
  takes: 'B,S,...',
  help: 'shape of the model’s input, such as 1,512',
  parse: (value, name) => {
    const sizes = value.split(',').map(Number)
    return sizes.every(counting) ? sizes : wrong(name, 'whole numbers with commas, such as 1,512', value)
  },
}

const duration = (help: string): Option<number> => ({
  takes: 'TIME',
  help,
  parse: (value, name) => {
    const match = /^(\d+(?:\.\d+)?)(s|m|h)$/.exec(value)
    if (!match) return wrong(name, 'a time such as 30s, 10m or 2h', value)
    return Number(match[1]) * { s: 1000, m: 60_000, h: 3_600_000 }[match[2] as 's' | 'm' | 'h']
  },
})

/** Checked before anything is made: a name with '..' in it would lead out of .autokernel. */
const runName: Option<string> = {
  takes: 'NAME',
  help: 'name of the run',
  parse: (value, name) =>
    RunName.safeParse(value).data ?? wrong(name, "a name of at most 100 letters, digits, '.', '_' and '-', such as llama-night-1", value),
}

export const OPTIONS = {
  // what
  model: text('FILE[:CLASS]', 'the model: looked for in the current folder, then among the shipped models'),
  class: text('NAME', 'the nn.Module class in the model file'),
  'input-shape': shape,
  dtype: choice(Dtype.options, 'bf16 on a GPU, fp32 on a CPU unless told otherwise'),
  kernels: text('LIST|top:N', 'only these kernels, such as rmsnorm,softmax or top:3; by name also what apply() cannot put in'),
  'op-file': text('FILE', 'an operation of your own'),
  backend: choice(['auto', ...Backend.options] as const, 'language of the starting kernels'),
  device: choice(['auto', ...DeviceKind.options] as const, 'where to run'),
  python: text('PATH', 'the Python that has torch'),
  // how long
  hours: number('N', 'how long the whole run may take', 'a number of hours such as 8 or 0.5', above0, 3_600_000),
  'max-experiments': number('N', 'stop after this many experiments', 'a whole number such as 100', counting),
  'max-cost': number('USD', 'stop when this much has been spent', 'an amount in USD such as 5', above0),
  'max-tokens': number('N', 'stop after this many tokens', 'a whole number such as 2000000', counting),
  'max-turns': number('N', 'stop after this many answers of a model', 'a whole number such as 200', counting),
  'in-flight': number(
    'N',
    'requests to a provider at once, at most (12); only as many as keep the judge busy',
    'a whole number such as 4',
    counting,
  ),
  // who
  agent: text('LIST', 'who has the ideas, in order of preference: search, anthropic, openai, command, inbox, replay:RUN'),
  'llm-model': text('NAME', 'model of the provider'),
  effort: choice(['low', 'medium', 'high', 'xhigh', 'max'] as const, 'how long a model may think; the provider’s own default unless told'),
  'max-output-tokens': number('N', 'longest answer of a model, thinking included (32000)', 'a whole number such as 64000', counting),
  'llm-base-url': text('URL', 'an OpenAI-compatible server'),
  'key-command': text('CMD', 'a program that prints the provider’s key, such as "pass show {}"; {} is the provider’s name'),
  command: text('CMD', 'a coding agent that runs in a terminal, such as "claude -p"'),
  'edit-format': choice(['auto', 'whole', 'diff'] as const, 'what a model answers with'),
  sweep: number(
    'N',
    'settings of marked constants that one experiment may try (12 on a CPU, 60 on a GPU; 0: none)',
    'a whole number such as 12',
    whole,
  ),
  counters: flag('let ncu count what the starting kernel and each kept one wait for: for bench’s report and a model’s prompt'),
  'on-rate-limit': choice(['wait', 'stop'] as const, 'what to do when the provider says to slow down'),
  'agent-timeout': duration('end a --command program that thinks longer than this, such as 45m (20m)'),
  'device-patience': duration('end a run whose device failed and is not back this long, such as 2h (30m)'),
  'inbox-idle': duration('end the run when the inbox has been empty this long, such as 10m'),
  // when to keep and to move on
  'min-gain': number('P', 'smallest gain worth keeping (1%)', 'a share such as 1% or 0.01', (n) => n >= 0 && n < 1),
  'allow-tf32': flag('let fp32 products use TF32'),
  'max-discards': number('N', 'leave a kernel after this many discards in a row (5)', 'a whole number such as 5', counting),
  peak: number('P', 'leave a kernel at this share of the roofline (90%)', 'a share such as 90% or 0.9', (n) => n > 0 && n <= 1),
  'kernel-hours': number('N', 'leave a kernel after this long on it (2)', 'a number of hours such as 2', above0, 3_600_000),
  'target-speedup': number('X', 'leave a kernel at this speedup over the best baseline (2)', 'a factor such as 2', (n) => n > 1),
  // the run
  run: runName,
  resume: text('[RUN]', 'go on with a run, by default the newest unfinished one'),
  seed: number('N', 'seed of everything random that is ours (0)', 'a whole number', whole),
  'dry-run': flag('profile, plan and print, but run nothing'),
  detach: flag('run in the background; closing the terminal changes nothing'),
  notify: text('CMD|URL', 'told at the end, at an error, and when nothing is finished for 30 minutes'),
  sandbox: choice(['auto', 'require', 'none'] as const, 'how candidates are confined'),
  // other commands
  op: text('NAME', 'the operation, when the file does not say'),
  against: text('FILE', 'an incumbent to pair with'),
  quick: flag('stop after the primary shape'),
  large: flag('check beyond 2^31 elements as well, which a GPU does unasked'),
  sanitize: flag('let compute-sanitizer look for wrong accesses, too'),
  shapes: text('RxC[,RxC]', 'shapes to judge at, such as 4096x1024'),
  trace: text('FILE', 'write a Chrome trace'),
  'memory-snapshot': text('FILE', 'write a CUDA memory snapshot'),
  'compile-log': text('FILE', 'write the log of torch.compile'),
  best: flag('only the best row of each kernel'),
  rebuild: flag('write the rows of a run anew, from its journal'),
  follow: { ...flag('go on until the run ends'), alias: 'f' },
  now: flag('do not wait for the experiment in hand'),
  dev: flag('also what the tests need'),
} satisfies Record<string, Option<unknown>>

export type OptionName = keyof typeof OPTIONS
export type Options = { [N in OptionName]?: ReturnType<(typeof OPTIONS)[N]['parse']> }

/** Texts by flag name -> values; the first wrong one is a UsageError. */
export function parseOptions(texts: Partial<Record<OptionName, string>>): Options {
  const entries = Object.entries(texts).map(([name, value]) => [name, OPTIONS[name as OptionName].parse(value, name)])
  return Object.fromEntries(entries) as Options
}

function wrong(name: string, expected: string, found: string): never {
  throw new UsageError(`--${name}: expected ${expected}, got '${found}'`)
}

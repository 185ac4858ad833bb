/** The verbs: what each takes, and who does it. */
import type { Interruption } from '../interruption.ts'
import type { Io } from '../io.ts'
import type { OptionName, Options } from '../options.ts'

export type Invocation = { options: Options; io: Io; interrupted: Interruption; argument: string | undefined }

export type Command = {
  name: string
  help: string
  positional?: { name: string; help: string; required: boolean }
  options: readonly OptionName[]
  /** Resolves to the exit code; throws UsageError and its kin. Loaded when called, so that --help stays quick. */
  run: (invocation: Invocation) => Promise<number>
}

const MODEL: OptionName[] = ['model', 'class', 'input-shape', 'dtype', 'device', 'python', 'seed']
const RUN = { name: 'run', help: 'a run, by default the newest', required: false }
const EXPERIMENT = { name: 'experiment', help: 'number of the experiment', required: true }

export const COMMANDS: Command[] = [
  {
    name: 'optimize',
    help: 'make a model faster: profile, plan, edit and judge kernels, verify',
    options: [
      ...MODEL,
      'kernels',
      'backend',
      'hours',
      'max-experiments',
      'max-cost',
      'max-tokens',
      'max-turns',
      'in-flight',
      'agent',
      'llm-model',
      'llm-base-url',
      'key-command',
      'effort',
      'max-output-tokens',
      'command',
      'edit-format',
      'sweep',
      'counters',
      'on-rate-limit',
      'agent-timeout',
      'inbox-idle',
      'device-patience',
      'min-gain',
      'allow-tf32',
      'max-discards',
      'peak',
      'kernel-hours',
      'target-speedup',
      'run',
      'resume',
      'dry-run',
      'sandbox',
      'detach',
      'notify',
    ],
    run: async ({ options, io, interrupted }) => (await import('./optimize.ts')).optimize(options, io, interrupted),
  },
  {
    name: 'profile',
    help: 'where a model spends its time, by operation and shape',
    options: [...MODEL, 'trace', 'memory-snapshot', 'compile-log'],
    run: async ({ options, io }) => (await import('./profile.ts')).profile(options, io),
  },
  {
    name: 'bench',
    help: 'judge one kernel.py; changes nothing',
    positional: { name: 'file', help: 'the kernel.py', required: true },
    options: [
      'op',
      'op-file',
      'against',
      'quick',
      'large',
      'counters',
      'sanitize',
      'shapes',
      'dtype',
      'device',
      'python',
      'allow-tf32',
      'sandbox',
    ],
    run: async ({ options, io, argument }) => (await import('./bench.ts')).bench(argument ?? '', options, io),
  },
  {
    name: 'verify',
    help: 'prove a run’s whole model again: right, really used, and how fast',
    positional: RUN,
    options: ['python', 'sandbox'],
    run: async ({ options, io, argument }) => (await import('./verify.ts')).verify(argument, options, io),
  },
  {
    name: 'status',
    help: 'where a run stands',
    positional: RUN,
    options: [],
    run: async ({ io, argument }) => (await import('./look.ts')).status(argument, io),
  },
  {
    name: 'results',
    help: 'the rows of results.tsv',
    options: ['best', 'run', 'rebuild'],
    run: async ({ options, io }) =>
      options.rebuild ? (await import('./rebuild.ts')).rebuild(options, io) : (await import('./results.ts')).results(options, io),
  },
  {
    name: 'logs',
    help: 'what a run has said',
    positional: RUN,
    options: ['follow'],
    run: async ({ options, io, argument }) => (await import('./logs.ts')).logs(argument, options, io),
  },
  {
    name: 'pause',
    help: 'cut off the measurement in hand, free the device and hold the clock',
    positional: RUN,
    options: [],
    run: async ({ io, argument }) => (await import('./control.ts')).pause(argument, io),
  },
  {
    name: 'resume',
    help: 'go on with a paused run (a run that ended: optimize --resume)',
    positional: RUN,
    options: [],
    run: async ({ io, argument }) => (await import('./control.ts')).resume(argument, io),
  },
  {
    name: 'stop',
    help: 'finish the experiment in hand, verify, report and end',
    positional: RUN,
    options: ['now'],
    run: async ({ options, io, argument }) => (await import('./control.ts')).stop(argument, options, io),
  },
  {
    name: 'steer',
    help: 'a hint for every idea to come, such as "try split-K"',
    positional: { name: 'text', help: 'one line', required: true },
    options: ['run'],
    run: async ({ options, io, argument }) => (await import('./control.ts')).steer(argument ?? '', options, io),
  },
  {
    name: 'show',
    help: 'one experiment: its idea, its verdict, what the judge saw',
    positional: EXPERIMENT,
    options: ['run'],
    run: async ({ options, io, argument }) => (await import('./look.ts')).show(argument ?? '', options, io),
  },
  {
    name: 'diff',
    help: 'what one experiment changed',
    positional: EXPERIMENT,
    options: ['run'],
    run: async ({ options, io, argument }) => (await import('./look.ts')).diff(argument ?? '', options, io),
  },
  {
    name: 'rerun',
    help: 'judge one experiment’s candidate again; changes nothing',
    positional: EXPERIMENT,
    options: ['run', 'python', 'sandbox'],
    run: async ({ options, io, argument }) => (await import('./rerun.ts')).rerun(argument ?? '', options, io),
  },
  {
    name: 'report',
    help: 'a run’s REPORT.md',
    positional: RUN,
    options: [],
    run: async ({ io, argument }) => (await import('./look.ts')).report(argument, io),
  },
  {
    name: 'doctor',
    help: 'what this machine can do, a line each with its fix',
    options: ['python', 'device', 'sandbox', 'key-command'],
    run: async ({ options, io }) => (await import('./doctor.ts')).doctor(options, io),
  },
  {
    name: 'setup',
    help: 'set the machine up now and say which Python will be used',
    options: ['python', 'dev'],
    run: async ({ options, io }) => (await import('./setup.ts')).setup(options, io),
  },
]

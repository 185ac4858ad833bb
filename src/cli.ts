/** argv -> command -> exit code. The only user of yargs, of process.exit and of signals. */
import { closeSync, existsSync, openSync } from 'node:fs'
import { resolve } from 'node:path'
import { isatty } from 'node:tty'
import yargs, { type Argv } from 'yargs'
import { COMMANDS, type Command } from './commands/index.ts'
import { gather, type Texts } from './config.ts'
import { AuthenticationError, EnvironmentError, TemporaryError, ToolError, UncaughtError, UsageError } from './errors.ts'
import type { Interruption } from './interruption.ts'
import { type Io, makeIo } from './io.ts'
import { DETACHED } from './log.ts'
import { machineError } from './machine-error.ts'
import { OPTIONS, type OptionName, parseOptions } from './options.ts'

/** Told to this process alone: a program that it starts is in the background only as far as it is told so itself. */
const detached = process.env[DETACHED] !== undefined
delete process.env[DETACHED]

const EXIT = new Map<unknown, number>([
  [UncaughtError, 1],
  [UsageError, 2],
  [EnvironmentError, 3],
  [AuthenticationError, 4],
  [TemporaryError, 75],
])

async function main(argv: string[]): Promise<number> {
  const quick = argv.includes('--json') // an error must be readable by the same program that reads the result
  try {
    return await parseAndRun(argv)
  } catch (error) {
    return report(machineError(error), quick)
  }
}

async function parseAndRun(argv: string[]): Promise<number> {
  let code = 0
  const parser = COMMANDS.reduce(
    (y, command) =>
      y.command(
        usage(command),
        command.help,
        (sub) => declare(sub, command),
        async (args) => {
          code = await run(command, args)
        },
      ),
    yargs(argv)
      .scriptName('autokernel')
      .usage('$0 COMMAND\n\nLeave it a PyTorch model in the evening, find it faster in the morning.')
      .option('json', { type: 'boolean', describe: 'one JSON document on stdout' })
      .option('C', { type: 'string', requiresArg: true, describe: 'work in this folder' })
      .option('q', { alias: 'quiet', type: 'boolean', describe: 'say only results and errors' })
      .option('v', { alias: 'verbose', type: 'boolean', describe: 'say more' })
      .option('color', { type: 'boolean', describe: 'colours, --no-color to do without' }) as Argv,
  )
  await parser
    .demandCommand(1, 'which command? autokernel --help lists them')
    .strict()
    .version()
    .wrap(Math.min(110, process.stdout.columns ?? 100))
    .exitProcess(false)
    .fail((message, error) => {
      throw error && error.name !== 'YError' ? error : new UsageError(plainly((message ?? error.message).split('\n')[0] ?? ''))
    })
    .parseAsync()
  return code
}

/** yargs names an unknown flag in both its spellings, and neither where it belongs nor what to do. */
function plainly(message: string): string {
  const unknown = /^Unknown arguments?: (.+)$/.exec(message)?.[1]?.split(', ')
  if (unknown === undefined) return message
  const dashed = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  const words = unknown
    .filter((name) => dashed(name) === name || !unknown.includes(dashed(name)))
    .map((name) => {
      const owners = COMMANDS.filter(({ options }) => (options as string[]).includes(name)).map((command) => command.name)
      return owners.length > 0 ? `${name} (of autokernel ${owners.join(', ')})` : name
    })
  return `Unknown argument: ${words.join(', ')}; see autokernel --help, or COMMAND --help`
}

function usage({ name, positional }: Command): string {
  return positional ? `${name} ${positional.required ? `<${positional.name}>` : `[${positional.name}]`}` : name
}

/** Flags are taken as texts: yargs would turn `abc` into NaN and a repeated flag into a list. */
function declare(sub: Argv, command: Command): Argv {
  const flags = command.options.reduce((y, name) => {
    const { takes, help, ...also } = OPTIONS[name]
    const alias = 'alias' in also ? { alias: also.alias } : {}
    if (takes === null) return y.option(name, { type: 'boolean', describe: help, ...alias })
    return y.option(name, { type: 'string', describe: `${takes}  ${help}`, requiresArg: !takes.startsWith('[') })
  }, sub)
  return command.positional ? flags.positional(command.positional.name, { type: 'string', describe: command.positional.help }) : flags
}

async function run(command: Command, args: Record<string, unknown>): Promise<number> {
  const cwd = resolve(String(args.C ?? '.'))
  if (!existsSync(cwd)) throw new UsageError(`-C: expected a folder, found nothing at ${cwd}`)
  const io: Io = makeIo(
    { json: args.json === true, quiet: args.q === true, verbose: args.v === true, color: args.color !== false, detached, cwd },
    process.env,
  )
  const flags: Texts = {}
  for (const name of command.options) {
    const value = args[name]
    if (Array.isArray(value)) throw new UsageError(`--${name} is given ${value.length} times; once is enough`)
    if (value !== undefined) flags[name as OptionName] = String(value)
  }
  const options = parseOptions(gather(flags, command.options, cwd, process.env))
  const positional = command.positional ? args[command.positional.name] : undefined
  return command.run({ options, io, interrupted: onSignals(), argument: positional === undefined ? undefined : String(positional) })
}

/** The first signal asks a command that can end well to do so; any other, and the second, stops at once. A journal makes both safe. */
function onSignals(): Interruption {
  const controller = new AbortController()
  let listening = false
  const interrupt = (as: 'SIGINT' | 'SIGTERM'): void => {
    if (controller.signal.aborted || !listening) process.exit(as === 'SIGINT' ? 130 : 143)
    controller.abort(as)
  }
  process.on('SIGINT', () => interrupt('SIGINT'))
  process.on('SIGTERM', () => interrupt('SIGTERM'))
  process.on('SIGUSR1', () => interrupt('SIGTERM')) // Slurm's warning before the time is up
  const terminal = [0, 1, 2].filter((fd) => isatty(fd))
  process.on('SIGHUP', () => {
    if (terminal.length === 0) return // under nohup and in the background there was none that could be gone
    // Node sets the terminal back at its end, and crashes when that is gone.
    for (const fd of terminal.splice(0)) {
      closeSync(fd)
      openSync('/dev/null', 'r+') // takes the number that has become free
    }
    interrupt('SIGTERM')
  })
  const listen = (): void => {
    listening = true
  }
  return { signal: controller.signal, listen, interrupt }
}

function report(error: unknown, json: boolean): number {
  const known = error instanceof Error ? EXIT.get(error.constructor) : undefined
  const message = error instanceof Error ? error.message : String(error)
  if (json) process.stdout.write(`${JSON.stringify({ error: message, exit: known ?? 1 })}\n`)
  process.stderr.write(
    known !== undefined
      ? `autokernel: ${message}\n`
      : `autokernel: ${error instanceof ToolError ? `${message}\n${error.stack}` : error instanceof Error ? error.stack : message}\n`,
  )
  return known ?? 1
}

// Whoever read our output may have gone (a closed terminal, `| head`); that is no reason to end a run.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
// A library may meet the machine's refusals (no handles left) where nobody can catch them. What is written down is safe.
// Rejections that nobody handles come here too. A run that is held ends by it as by any other error, and tells whoever waits for news.
process.on('uncaughtException', (error) => {
  if (process.listenerCount('uncaughtException') === 1) process.exit(report(machineError(error), process.argv.includes('--json')))
})
const code = await main(process.argv.slice(2))
// A child that a failure left behind must not keep us here; it ends with us.
process.stdout.write('', () => process.exit(code))

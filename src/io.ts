/** What the program says: data on stdout, everything else on stderr. */
import { styleText } from 'node:util'

export type Io = {
  json: boolean
  quiet: boolean
  verbose: boolean
  color: boolean
  detached: boolean // this process is the one that --detach left behind
  cwd: string
  env: NodeJS.ProcessEnv
  /** A result: goes to stdout. */
  print: (text: string) => void
  /** One JSON document: the whole result when --json is given. */
  document: (value: unknown) => void
  /** Progress and notes: go to stderr, unless --quiet. */
  say: (text: string) => void
  /** Where things stand this moment: one line that the next one replaces, on a terminal only; '' takes it away. */
  passing: (text: string) => void
  bold: (text: string) => string
  dim: (text: string) => string
}

export function makeIo(
  flags: { json: boolean; quiet: boolean; verbose: boolean; color: boolean; detached: boolean; cwd: string },
  env: NodeJS.ProcessEnv,
): Io {
  const color = flags.color && !env.NO_COLOR && !env.CI && env.TERM !== 'dumb' && process.stdout.isTTY === true
  const style = (format: 'bold' | 'dim') => (text: string) => (color ? styleText(format, text, { validateStream: false }) : text)
  const { stdout, stderr } = process
  const terminal = stderr.isTTY === true && !flags.quiet && !env.CI && env.TERM !== 'dumb'
  let shown = false
  const clear = (): void => {
    if (shown) stderr.write('\r\x1b[K')
    shown = false
  }
  const write = (stream: NodeJS.WriteStream, text: string): void => {
    clear()
    stream.write(`${text}\n`)
  }
  return {
    ...flags,
    color,
    env,
    print: (text) => write(stdout, text),
    document: (value) => write(stdout, JSON.stringify(value, null, 2)),
    say: (text) => void (flags.quiet || write(stderr, text)),
    passing: (text) => {
      if (!terminal) return
      clear()
      shown = text !== ''
      if (shown) stderr.write(text.slice(0, stderr.columns - 1)) // a line that wraps could not be taken back
    },
    bold: style('bold'),
    dim: style('dim'),
  }
}

/** Columns padded to their widest cell; numbers to the right. */
export function table(rows: string[][]): string {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? []
  const numeric = (cell: string) => /^[-+]?[\d.]+( ?(us|ms|s|%|x|GB\/s|TFLOP\/s))?$/.test(cell)
  return rows
    .map((row) =>
      row
        .map((cell, i) => (numeric(cell) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

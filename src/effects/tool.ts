/** Runs a tool to its end or until a deadline, whichever comes first: one that hangs, even in a driver, holds nobody up. */
import { execa } from 'execa'
import { readLines } from './lines.ts'
import { hasEnded, killAtExit, killTree } from './process-tree.ts'

export type ToolRun =
  | { kind: 'ended'; code: number | null; signal: string | null; out: string[]; err: string[] }
  | { kind: 'missing' }
  | { kind: 'timeout' }

export type ToolOptions = {
  timeoutMs: number
  env?: Record<string, string>
  signal?: AbortSignal | undefined
  onErr?: (line: string) => void
}

const MAX_LINE = 2 ** 20

export async function runTool(command: string, args: string[], { timeoutMs, env, signal, onErr }: ToolOptions): Promise<ToolRun> {
  signal?.throwIfAborted()
  const out: string[] = []
  const err: string[] = []
  const child = execa(command, args, {
    detached: true,
    cleanup: false,
    buffer: false,
    reject: false,
    stdin: 'ignore',
    ...(env ? { env, extendEnv: false } : {}),
  })
  const { pid } = child
  if (pid === undefined) {
    await child
    return { kind: 'missing' }
  }
  killAtExit(pid)
  readLines(
    child.stdout,
    MAX_LINE,
    (line) => out.push(line),
    () => killTree(pid),
  )
  const noteErr = (line: string): void => {
    err.push(line)
    onErr?.(line)
  }
  readLines(child.stderr, MAX_LINE, noteErr, () => killTree(pid))

  return new Promise<ToolRun>((resolve, reject) => {
    const cut = (settle: () => void): void => {
      killTree(pid)
      child.unref() // it may never end: a process that waits for a broken driver cannot be killed
      child.stdout.destroy()
      child.stderr.destroy()
      settle()
    }
    const timer = setTimeout(() => cut(() => resolve({ kind: 'timeout' })), timeoutMs)
    const onAbort = (): void => cut(() => reject(signal?.reason))
    signal?.addEventListener('abort', onAbort, { once: true })
    child.once('close', (code, name) => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      hasEnded(pid)
      resolve({ kind: 'ended', code, signal: name, out, err })
    })
  })
}

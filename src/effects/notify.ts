/** Tells somebody elsewhere what became of a run: a POST to a URL, or a program of the user's. */
import { execa } from 'execa'
import { hasEnded, killAtExit, killTree } from './process-tree.ts'

export type News = {
  event: 'end' | 'error' | 'stall'
  run: string
  text: string // one line
  folder: string // of the run
}

export type Address = { url: string } | { program: [string, ...string[]] }

const PATIENCE_MS = 20_000

/** Resolves to null, or to why it could not be delivered: a notification is never worth a run. */
export async function notify(to: Address, news: News, patienceMs = PATIENCE_MS): Promise<string | null> {
  return 'url' in to ? post(to.url, news, patienceMs) : command(to.program, news, patienceMs)
}

async function post(url: string, news: News, patienceMs: number): Promise<string | null> {
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(news),
      signal: AbortSignal.timeout(patienceMs),
    })
    await answer.body?.cancel()
    return answer.ok ? null : `it answered ${answer.status}`
  } catch (error) {
    if (!(error instanceof Error)) throw error
    return error.cause instanceof Error ? error.cause.message || String(error.cause) : error.message // fetch hides the reason
  }
}

/** No shell: part of the news may be a model's words. They come on stdin, in the environment, and in place of `{}` in an argument. */
async function command([program, ...args]: [string, ...string[]], news: News, patienceMs: number): Promise<string | null> {
  const env = Object.fromEntries(Object.entries(news).map(([name, value]) => [`AUTOKERNEL_NOTIFY_${name.toUpperCase()}`, value]))
  const child = execa(
    program,
    args.map((arg) => arg.replaceAll('{}', () => news.text)),
    {
      detached: true, // a group of its own, so that whatever it started ends with it
      cleanup: false,
      buffer: false,
      reject: false,
      stdin: 'pipe',
      stdout: 'ignore',
      stderr: 'ignore',
      env,
    },
  )
  const { pid } = child
  if (pid === undefined) return (await child).shortMessage?.split('\n').at(-1) ?? 'it cannot be started'
  killAtExit(pid)
  child.stdin.on('error', () => {}) // it need not read
  child.stdin.end(`${news.text}\n`)
  const ended = new Promise<string | null>((resolve) => {
    child.once('exit', (code, signal) => resolve(code === 0 ? null : `it ended (${signal ?? `exit code ${code}`})`))
  })
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`it took longer than ${patienceMs / 1000} s and was ended`), patienceMs)
  })
  const failure = await Promise.race([ended, late])
  clearTimeout(timer)
  killTree(pid)
  hasEnded(pid)
  return failure
}

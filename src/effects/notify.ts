/** Tells somebody elsewhere what became of a run: a POST to a URL, or a command of the user's. */
import { execa } from 'execa'
import { hasEnded, killAtExit, killTree } from './process-tree.ts'

export type News = {
  event: 'end' | 'error' | 'stall'
  run: string
  text: string // one line
  folder: string // of the run
}

const PATIENCE_MS = 20_000

/** Resolves to null, or to why it could not be delivered: a notification is never worth a run. */
export async function notify(to: string, news: News, patienceMs = PATIENCE_MS): Promise<string | null> {
  return /^https?:\/\//.test(to) ? post(to, news, patienceMs) : command(to, news, patienceMs)
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
    return error.cause instanceof Error ? error.cause.message : error.message // fetch hides the reason: 'fetch failed'
  }
}

/** The line is the user's and goes through a shell as they wrote it; what happened reaches it by environment and stdin only. */
async function command(line: string, news: News, patienceMs: number): Promise<string | null> {
  const env = Object.fromEntries(Object.entries(news).map(([name, value]) => [`AUTOKERNEL_NOTIFY_${name.toUpperCase()}`, value]))
  const child = execa(line, {
    shell: true,
    detached: true, // a group of its own, so that whatever it started ends with it
    cleanup: false,
    buffer: false,
    reject: false,
    stdin: 'pipe',
    stdout: 'ignore',
    stderr: 'ignore',
    env,
  })
  const { pid } = child
  if (pid === undefined) return (await child).shortMessage ?? 'it cannot be started'
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

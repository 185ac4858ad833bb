/** Ideas from a folder: whoever drops NAME.py (and NAME.md, the idea) there gets it judged in name order, with NAME.verdict.md beside it. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MAX_SOURCE_BYTES, oneLine } from '../core/patch.ts'
import { normalizedHash } from '../core/source-hash.ts'
import type { Agent, Request } from '../ports.ts'
import type { Answer, Attempt } from '../types.ts'
import { candidate, FREE } from './candidate.ts'
import { watchDropped } from './dropped.ts'
import { readBytes, readShort } from './folder.ts'

export type InboxOptions = {
  folder: string
  idleMs: number | null // nothing for so long: exhausted; null waits for ever
  settleMs?: number // a file counts as written when it has not changed for so long
}

export type Inbox = {
  agent: Agent
  /** Writes NAME.verdict.md. Attempts seen in a later request are written as well, so calling it only makes it sooner. */
  verdict: (name: string, text: string) => Promise<void>
  /** The NAME that a source came from, by its normalized hash. */
  nameOf: (sourceHash: string) => string | null
  close: () => Promise<void>
}

export async function inboxAgent({ folder, idleMs, settleMs = 500 }: InboxOptions): Promise<Inbox> {
  await mkdir(folder, { recursive: true })
  const dropped = watchDropped(folder, settleMs)
  const handedOut = new Map<string, string>() // source hash -> name, until its verdict is written
  return { agent: { name: 'inbox', propose }, verdict, nameOf: (hash) => handedOut.get(hash) ?? null, close: dropped.close }

  async function propose(request: Request, signal: AbortSignal): Promise<Answer> {
    await writeVerdicts(request.attempts)
    const since = Date.now()
    for (;;) {
      signal.throwIfAborted()
      const { names, arriving } = await dropped.look()
      const others = new Set<string>()
      for (const name of names) {
        const kind = /^KERNEL_TYPE\s*=\s*["'](\w+)["']/m.exec(await readShort(join(folder, `${name}.py`), 65_536))?.[1]
        if (kind !== undefined && kind !== request.target.op) {
          others.add(kind) // waits for that kernel's turn
          continue
        }
        const answer = await take(name, request)
        if (answer !== null) return answer
      }
      if (others.size > 0 && !arriving) return { kind: 'exhausted', why: `the inbox holds kernels for ${[...others].join(', ')} only` }
      const left = idleMs === null ? Number.POSITIVE_INFINITY : since + idleMs - Date.now()
      if (left <= 0) return { kind: 'exhausted', why: `nothing came into the inbox for ${Math.round((idleMs ?? 0) / 1000)} s` }
      await dropped.news(left, signal)
    }
  }

  /** Null for one that this run has already judged or is judging: a resumed run finds its files again. */
  async function take(name: string, request: Request): Promise<Answer | null> {
    dropped.take(name)
    const bytes = await readBytes(join(folder, `${name}.py`), MAX_SOURCE_BYTES + 1).catch(() => Buffer.alloc(0))
    const source = bytes.toString()
    const hash = normalizedHash(source)
    if (handedOut.get(hash) === name) return null
    if ([...request.attempts, ...request.inFlight].some(({ sourceHash }) => sourceHash === hash) && !handedOut.has(hash)) {
      handedOut.set(hash, name)
      await writeVerdicts(request.attempts)
      return null
    }
    const idea = (await readShort(join(folder, `${name}.md`))).split('\n').find((line) => /\w{3}/.test(line))
    const hypothesis = oneLine((idea ?? name).replace(/^[#>*\s-]+/, ''), 300)
    const answer = candidate(request, { source, hypothesis, predictedGain: null, agent: 'inbox', repairable: false, ...FREE })
    if (answer.kind === 'invalid') await verdict(name, `invalid: ${answer.why}`)
    else handedOut.set(hash, name)
    return answer
  }

  async function writeVerdicts(attempts: Attempt[]): Promise<void> {
    for (const { sourceHash, outcome, gain, detail, experiment } of attempts) {
      const name = handedOut.get(sourceHash)
      if (name === undefined) continue
      const ratio = gain === null ? '' : `, ${gain.toFixed(3)}x of the incumbent's speed`
      await verdict(name, `${outcome} (experiment ${experiment}${ratio})${detail ? `\n\n${detail}` : ''}`)
    }
  }

  async function verdict(name: string, text: string): Promise<void> {
    for (const [hash, known] of handedOut) if (known === name) handedOut.delete(hash)
    await writeFile(join(folder, `${name}.verdict.md`), `${text}\n`)
  }
}

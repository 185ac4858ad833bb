import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type News, notify } from '../../src/effects/notify.ts'
import { tempFolder } from './temp.ts'

const NEWS: News = { event: 'end', run: 'night', text: 'night: 1.4x faster; $(touch stolen) "quoted" {} done', folder: '/runs/night' }

/** A server on this machine that answers with a status, or never. */
async function server(status: number | 'never'): Promise<{ url: string; seen: { request: IncomingMessage; body: string }[] }> {
  const seen: { request: IncomingMessage; body: string }[] = []
  const listening = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    seen.push({ request, body })
    if (status !== 'never') response.writeHead(status).end('thanks')
  })
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    listening.closeAllConnections()
    listening.close()
  })
  return { url: `http://127.0.0.1:${(listening.address() as AddressInfo).port}/hook`, seen }
}

describe('a URL', () => {
  it('gets the news as one JSON document', async () => {
    const { url, seen } = await server(204)
    expect(await notify({ url }, NEWS)).toBe(null)
    expect(seen).toHaveLength(1)
    expect(seen[0]?.request).toMatchObject({ method: 'POST', url: '/hook', headers: { 'content-type': 'application/json' } })
    expect(JSON.parse(seen[0]?.body ?? '')).toEqual(NEWS)
  })

  it('that refuses, that nobody listens at, or that never answers is a reason and not an error', async () => {
    expect(await notify({ url: (await server(500)).url }, NEWS)).toBe('it answered 500')
    expect(await notify({ url: 'http://127.0.0.1:9/' }, NEWS)).toMatch(/refused|bad port/i)
    expect(await notify({ url: 'http://no-such-host.invalid/' }, NEWS)).toMatch(/no-such-host/)
    expect(await notify({ url: (await server('never')).url }, NEWS, 200)).toMatch(/timeout/i)
  })
})

describe('a program', () => {
  const program = (...words: [string, ...string[]]) => ({ program: words })

  it('gets the news on stdin, in its environment and in place of {}, with no shell in between', async () => {
    const folder = tempFolder()
    const told = join(folder, 'told')
    const script = 'cat > "$1"; printf "%s\\n" "$AUTOKERNEL_NOTIFY_EVENT $AUTOKERNEL_NOTIFY_RUN $AUTOKERNEL_NOTIFY_FOLDER" "$2" >> "$1"'
    vi.spyOn(process, 'cwd').mockReturnValue(folder)
    onTestFinished(() => void vi.restoreAllMocks())
    expect(await notify(program('sh', '-c', script, 'sh', told, 'news: {}'), NEWS)).toBe(null)
    expect(readFileSync(told, 'utf8').split('\n')).toEqual([NEWS.text, 'end night /runs/night', `news: ${NEWS.text}`, ''])
    expect(existsSync(join(folder, 'stolen'))).toBe(false)
  })

  it('takes shell syntax for what it is: words', async () => {
    const folder = tempFolder()
    const told = [join(folder, 'told'), join(folder, '; false'), join(folder, '$(touch stolen)')] as const
    expect(await notify(program('tee', ...told), NEWS)).toBe(null)
    for (const file of told) expect(readFileSync(file, 'utf8')).toBe(`${NEWS.text}\n`)
    expect(readdirSync(folder)).toHaveLength(told.length)
  })

  it('that fails, is killed, or is not there is a reason and not an error', async () => {
    expect(await notify(program('false'), NEWS)).toBe('it ended (exit code 1)')
    expect(await notify(program('sh', '-c', 'kill -9 $$'), NEWS)).toBe('it ended (SIGKILL)')
    expect(await notify(program('/no/such/program'), NEWS)).toMatch(/\/no\/such\/program.*ENOENT/)
  })

  it('that does not read its stdin is told all the same', async () => {
    expect(await notify(program('true'), { ...NEWS, text: 'x'.repeat(1_000_000) })).toMatch(/^null$|E2BIG/)
    expect(await notify(program('true'), NEWS)).toBe(null)
  })

  it('that hangs is ended after a while, with whatever it started', async () => {
    const folder = tempFolder()
    const script = `(sleep 1; echo alive > ${join(folder, 'alive')}) & sleep 60`
    expect(await notify(program('sh', '-c', script), NEWS, 300)).toBe('it took longer than 0.3 s and was ended')
    await sleep(1200)
    expect(existsSync(join(folder, 'alive'))).toBe(false)
  })
})

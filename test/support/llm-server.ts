/** A local server that speaks a provider's real protocol, streamed events included, and misbehaves on command. */
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach } from 'vitest'

export type Stop = 'end' | 'max-tokens' | 'refusal'

/** What the server does with the next request; the last one stays in force. */
export type Behaviour =
  | { do: 'answer'; text: string; stop?: Stop; afterMs?: number }
  | { do: 'status'; status: number; type?: string; message?: string; headers?: Record<string, string> }
  | { do: 'cut'; text: string } // the connection breaks in mid-stream
  | { do: 'stall'; text: string } // the stream goes on for ever without a byte
  | { do: 'event'; type: string; message: string } // an error event inside the stream
  | { do: 'bytes'; text: string } // characters from U+0080 up are sent as single, invalid bytes

export type Protocol = {
  start: (text: string) => string[] // the events up to and with the text
  end: (text: string, stop: Stop) => string[]
  error: (type: string, message: string) => unknown
  errorEvent: (type: string, message: string) => string
}

export type Seen = { path: string; headers: IncomingHttpHeaders; body: Record<string, unknown> }
export type LlmServer = {
  url: string
  seen: Seen[]
  will: (...next: Behaviour[]) => void
  /** From now on, what it does with the n-th request, counted from 1 and over all. */
  always: (of: (n: number, body: string) => Behaviour) => void
}

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

export async function llmServer(protocol: Protocol): Promise<LlmServer> {
  const seen: Seen[] = []
  let planned: Behaviour[] = []
  let rule: ((n: number, body: string) => Behaviour) | null = null
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      seen.push({ path: request.url ?? '', headers: request.headers, body: JSON.parse(Buffer.concat(chunks).toString()) })
      const behaviour = rule?.(seen.length, JSON.stringify(seen.at(-1)?.body)) ?? (planned.length > 1 ? planned.shift() : planned[0])
      const afterMs = behaviour?.do === 'answer' ? (behaviour.afterMs ?? 0) : 0
      if (behaviour) setTimeout(() => behave(protocol, behaviour, response), afterMs)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closers.push(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const will = (...next: Behaviour[]): void => {
    planned = next
    rule = null
  }
  const always = (of: (n: number, body: string) => Behaviour): void => {
    rule = of
  }
  return { url: `http://127.0.0.1:${port}`, seen, will, always }
}

function behave(protocol: Protocol, behaviour: Behaviour, response: ServerResponse): void {
  if (behaviour.do === 'status') {
    const { status, type = 'api_error', message = 'no', headers = {} } = behaviour
    response.writeHead(status, { 'content-type': 'application/json', 'request-id': 'req_7', 'x-request-id': 'req_7', ...headers })
    response.end(JSON.stringify(protocol.error(type, message)))
    return
  }
  response.writeHead(200, { 'content-type': 'text/event-stream', 'request-id': 'req_7', 'x-request-id': 'req_7' })
  const send = (events: string[], encoding: 'utf8' | 'latin1' = 'utf8'): void => {
    for (const event of events) response.write(Buffer.from(event, encoding))
  }
  if (behaviour.do === 'event') send([...protocol.start('so far'), protocol.errorEvent(behaviour.type, behaviour.message)])
  else send(protocol.start(behaviour.text), behaviour.do === 'bytes' ? 'latin1' : 'utf8')
  if (behaviour.do === 'cut') setTimeout(() => response.destroy(), 5)
  else if (behaviour.do === 'event') response.end()
  else if (behaviour.do !== 'stall') {
    send(protocol.end(behaviour.text, behaviour.do === 'answer' ? (behaviour.stop ?? 'end') : 'end'))
    response.end()
  }
}

/** Cut at a few odd places, as a network does. */
export function pieces(text: string): string[] {
  const size = Math.max(1, Math.ceil(text.length / 7))
  return Array.from({ length: Math.ceil(text.length / size) }, (_, i) => text.slice(i * size, (i + 1) * size))
}

/** What can go wrong with a provider, sorted by what to do about it. */

export type Failure = {
  kind: 'refused' | 'rejected' | 'passing' // credentials or money; this request; worth trying again
  status: number | null
  why: string
  retryAfterMs: number | null
}

/** How long to keep trying before a provider counts as down. */
export type Patience = {
  retries: number
  minMs: number
  maxMs: number
  retryAfterCapMs: number // a provider may ask for an hour; the loop would rather decide itself
  stallMs: number // a stream without a byte, pings included
  deadlineMs: number // for one call, whatever it does
  sleep: (ms: number, signal: AbortSignal) => Promise<void>
}

export const PATIENT: Patience = {
  retries: 5,
  minMs: 1_000,
  maxMs: 30_000,
  retryAfterCapMs: 60_000,
  stallMs: 120_000,
  deadlineMs: 30 * 60_000,
  sleep,
}

/** The fields that both SDKs' errors have. */
export type ApiFailure = {
  status: number | undefined
  headers: Headers | undefined
  requestId: string | null | undefined
  type: string | null | undefined // of the error, in the provider's words
  message: string
}

export function explainApi({ status, headers, requestId, type, message }: ApiFailure): Failure {
  const kind = kindOf(status, type ?? '')
  const what = [status, type].filter(Boolean).join(' ') || 'connection'
  const words = oneLineOf(message).replace(/^\d{3} /, '')
  const why = `${what}: ${words}${requestId ? ` (request ${requestId})` : ''}`
  return { kind, status: status ?? null, why, retryAfterMs: retryAfter(headers) }
}

/** What the network does to a stream: cut, stalled, past its deadline, or broken into something that is not JSON. Anything else is a bug. */
export function explainTransport(error: unknown): Failure | null {
  if (!(error instanceof Error)) return null
  const network = error instanceof TypeError && /^(terminated|fetch failed)$/.test(error.message)
  if (!network && !(error instanceof StallError) && !(error instanceof SyntaxError) && !/^(Timeout|Abort)Error$/.test(error.name))
    return null
  return passing(network ? `the connection broke off (${error.message})` : error.message)
}

export function passing(message: string): Failure {
  return { kind: 'passing', status: null, why: oneLineOf(message), retryAfterMs: null }
}

/** An error event inside a stream has a type and no status. */
function kindOf(status: number | undefined, type: string): Failure['kind'] {
  if (/^(authentication|permission|billing)_error$|^insufficient_quota$|^invalid_api_key$/.test(type)) return 'refused'
  if (status === undefined) return /^(invalid_request_error|request_too_large)$/.test(type) ? 'rejected' : 'passing'
  if (status === 401 || status === 402 || status === 403 || status === 404) return 'refused' // 404: no such model or address, which no waiting mends
  return status === 408 || status === 409 || status === 429 || status >= 500 ? 'passing' : 'rejected'
}

function retryAfter(headers: Headers | undefined): number | null {
  const ms = Number(headers?.get('retry-after-ms') ?? Number.NaN)
  if (Number.isFinite(ms) && ms >= 0) return ms
  const text = headers?.get('retry-after')
  if (!text) return null
  const wait = /^\d+(\.\d+)?$/.test(text.trim()) ? Number(text) * 1000 : Date.parse(text) - Date.now()
  return Number.isFinite(wait) ? Math.max(0, wait) : null
}

export const withoutKey = (text: string, key: string): string => (key.length >= 6 ? text.replaceAll(key, '[key]') : text)

/** Providers quote the key they refuse, whole or in part. */
export const redact = (text: string, key: string): string => withoutKey(text, key).replace(/\bsk-[\w*-]{8,}/g, '[key]')

export class StallError extends Error {
  override name = 'StallError'
}

/** The SDKs' timeouts end when the headers arrive; a stream that then falls silent would hold the loop for ever. */
export function fetchThatStalls(stallMs: number): typeof fetch {
  return async (input, init) => {
    const response = await fetch(input, init)
    if (!response.body) return response
    let timer: NodeJS.Timeout | undefined
    const watch = (stream: TransformStreamDefaultController<Uint8Array>): void => {
      clearTimeout(timer)
      timer = setTimeout(() => stream.error(new StallError(`the stream stalled: no byte for ${stallMs / 1000} s`)), stallMs)
    }
    const watched = new TransformStream<Uint8Array, Uint8Array>({
      start: watch,
      transform: (chunk, stream) => {
        watch(stream)
        stream.enqueue(chunk)
      },
      flush: () => clearTimeout(timer),
    })
    const body = response.body.pipeThrough(watched)
    return new Response(body, { status: response.status, statusText: response.statusText, headers: response.headers })
  }
}

export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop)
      resolve()
    }, ms)
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
  })
}

/** Not a byte of a provider's text reaches stdout, which is for data. */
export const STDERR_LOGGER = { error: console.error, warn: console.error, info: console.error, debug: console.error }

const oneLineOf = (text: string): string => text.replace(/\s+/g, ' ').trim().slice(0, 400)

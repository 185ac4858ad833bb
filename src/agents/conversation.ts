/** What a model has been told and has said about one idea, kept in the run's llm/ so that a repair goes on with it, also after a crash. */
import { z } from 'zod'
import type { Usage } from '../core/prices.ts'
import { buildPrompt, type EditFormat } from '../core/prompt.ts'
import { repairMessage } from '../core/repair.ts'
import type { Request } from '../ports.ts'

export type Message = { role: 'user' | 'assistant'; text: string }
export type Conversation = { system: string; messages: Message[] }
export type Reply = { text: string; stop: 'end' | 'max-tokens' | 'refusal'; requestId: string | null }

/** The run folder's llm/, by name; what is not there or cannot be read is null. */
export type Notes = { write: (name: string, content: unknown) => Promise<void> | void; read: (name: string) => Promise<unknown> | unknown }

const Asked = z.object({
  system: z.string(),
  messages: z.array(z.object({ role: z.enum(['user', 'assistant']), text: z.string() })),
})
const Answered = z.object({
  reply: z.object({ text: z.string(), stop: z.enum(['end', 'max-tokens', 'refusal']), requestId: z.string().nullable() }),
  usage: z.array(z.object({ input: z.number(), cacheWrite: z.number(), cacheRead: z.number(), output: z.number() })),
})

/** The number of the ask is the machine's: the same when it is asked again after a crash. */
export const nameOf = (ask: number, target: string): string => `${String(ask).padStart(4, '0')}-${target}`

/** An answer that this very ask had before the run went down: it is paid for. */
export async function answerBefore(name: string, notes: Notes | undefined): Promise<{ reply: Reply; usage: Usage[] } | null> {
  return Answered.safeParse(await notes?.read(`${name}-answer`)).data ?? null
}

export async function conversationFor(request: Request, format: EditFormat, notes: Notes | undefined): Promise<Conversation> {
  const { repair, target } = request
  const fresh = (): Conversation => {
    const { system, user } = buildPrompt(request, format)
    return { system, messages: [{ role: 'user', text: user }] }
  }
  if (!repair) return fresh()
  const before = nameOf(repair.proposal.thread?.ask ?? 0, target.name)
  const asked = Asked.safeParse(await notes?.read(`${before}-request`)).data
  const reply = (await answerBefore(before, notes))?.reply
  // Without the records the journal still knows what was written, and that is what counts.
  const { system, messages } = asked && reply ? asked : fresh()
  const said = asked && reply ? reply.text : inFormat(repair.proposal)
  const seen = [...messages, { role: 'assistant' as const, text: said }]
  return { system, messages: [...seen, { role: 'user', text: repairMessage(repair, seen.map(({ text }) => text).join('\n')) }] }
}

function inFormat({ hypothesis, predictedGain, source }: NonNullable<Request['repair']>['proposal']): string {
  return `HYPOTHESIS: ${hypothesis}\nPREDICTED: ${predictedGain ?? 1.02}\n\n\`\`\`python\n${source}\`\`\`\n`
}

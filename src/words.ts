/** Splits a command line into words as a shell would, without being one: quotes and backslashes, and nothing else that a shell does. */
import { UsageError } from './errors.ts'

/** `flag` is named when the line cannot be one. */
export function splitWords(command: string, flag: string): string[] {
  const words: string[] = []
  let word: string | null = null
  let quote = ''
  for (let i = 0; i < command.length; i++) {
    const char = command[i] ?? ''
    if (quote) {
      if (char === quote) quote = ''
      else if (char === '\\' && quote === '"' && /["\\]/.test(command[i + 1] ?? '')) word = (word ?? '') + command[++i]
      else word = (word ?? '') + char
    } else if (char === '"' || char === "'") {
      quote = char
      word ??= ''
    } else if (char === '\\' && i + 1 < command.length) word = (word ?? '') + command[++i]
    else if (/\s/.test(char)) {
      if (word !== null) words.push(word)
      word = null
    } else word = (word ?? '') + char
  }
  if (quote) throw new UsageError(`${flag}: expected a closing ${quote}, got '${command}'`)
  if (word !== null) words.push(word)
  if (!words[0]) throw new UsageError(`${flag}: expected a program and its arguments, such as "claude -p", got nothing`)
  return words
}

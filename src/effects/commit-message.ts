/** Makes a commit message of a hypothesis: a first line that fits a log, then all of it. */

const WIDTH = 72

export function commitMessage(hypothesis: string): string {
  // NUL would end the message for git, and escape sequences would drive the terminal of whoever reads the log.
  const text = hypothesis
    .replaceAll('\r\n', '\n')
    .replace(/\p{Cc}/gu, (character) => (character === '\n' ? character : ' '))
    .trim()
  if (text === '') return 'No hypothesis given\n'

  const [first = '', ...rest] = text.split('\n')
  if (first.length <= WIDTH) return rest.length === 0 ? `${first}\n` : `${first}\n\n${rest.join('\n').trim()}\n`
  const cut = first.slice(0, WIDTH - 1)
  const atWord = cut.lastIndexOf(' ')
  return `${(atWord > WIDTH / 2 ? cut.slice(0, atWord) : cut).trimEnd()}…\n\n${text}\n`
}

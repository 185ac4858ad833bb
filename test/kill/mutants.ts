/** The program with one protective step taken out, and where to kill it so that this shows. */
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { packageRoot } from '../../src/package-root.ts'
import type { Kill } from './scene.ts'

export type Mutant = {
  without: string
  file: string // of dist/
  edits: [from: string, to: string][]
  kill: Omit<Kill, 'at' | 'events'> | 'moved' // moved: nobody is killed, but somebody moves the branch
  kinds: RegExp // of the boundaries to try, the last ones first
}

export const MUTANTS: Mutant[] = [
  {
    without: 'syncing what was appended',
    file: 'effects/files.js',
    edits: [['await file.datasync();', '']],
    kill: { who: 'power', torn: false },
    kinds: /^git-update-ref write/,
  },
  {
    without: 'a temporary file and its rename',
    file: 'effects/files.js',
    edits: [
      ['const temporary = join(', 'const temporary = path; join('],
      ["open(temporary, 'wx')", "open(temporary, 'w')"],
    ],
    kill: { who: 'daemon', torn: true },
    kinds: /^node write .*candidates/,
  },
  {
    without: 'the journal before the act',
    file: 'loop.js',
    edits: [
      ['await ports.journal.append(event); // written down before anyone acts on it', ''],
      ['inbox.expect(ports.perform(effect, state));', '{ const acted = ports.perform(effect, state); inbox.expect(acted); await acted; }'],
      ['if (finished(state))', 'await ports.journal.append(event);\n        if (finished(state))'],
    ],
    kill: { who: 'daemon', torn: false },
    kinds: /^node write .*events\.jsonl/,
  },
  {
    without: 'the row before the branch',
    file: 'effects/repo.js',
    edits: [
      ['await record(commit);\n', ''],
      [
        'await this.advance(experiment.parent, commit);\n',
        'await this.advance(experiment.parent, commit);\n        await record(commit);\n',
      ],
    ],
    kill: { who: 'daemon', torn: false },
    kinds: /^node write results\.tsv/,
  },
  {
    without: 'comparing before the branch is swapped',
    file: 'effects/repo.js',
    edits: [['to, from]', 'to]']],
    kill: 'moved',
    kinds: /^$/,
  },
  {
    without: 'dates from the journal',
    file: 'effects/repo.js',
    edits: [['Date.parse(wall)', 'Date.now()']],
    kill: { who: 'daemon', torn: false },
    kinds: /^git-fast-import rename .*night\/N/,
  },
  {
    without: 'removing half a line of the journal',
    file: 'effects/journal.js',
    edits: [['await file.truncate(recorded.bytes);', '']],
    kill: { who: 'daemon', torn: true },
    kinds: /^node write .*events\.jsonl/,
  },
  {
    without: 'removing half a row',
    file: 'effects/ledger-file.js',
    edits: [['await file.truncate(Buffer.byteLength(whole));', ';']],
    kill: { who: 'daemon', torn: true },
    kinds: /^node write results\.tsv/,
  },
  {
    without: 'looking whether a row is there',
    file: 'effects/ledger-file.js',
    edits: [['if (this.written.has(keyOf(line)))', 'if (false)']],
    kill: { who: 'daemon', torn: false },
    kinds: /^git-update-ref write/,
  },
  {
    without: 'removing the locks of a killed git',
    file: 'effects/git-leftovers.js',
    edits: [['await rm(path, { force: true });', ';']],
    kill: { who: 'power', torn: false },
    kinds: /^git-reset rename .*index/,
  },
]

/** The mutated program, with links to everything that it finds beside itself. */
export function buildMutant({ file, edits, without }: Mutant, folder: string): string {
  const dist = join(folder, 'dist')
  mkdirSync(folder, { recursive: true })
  cpSync(join(packageRoot, 'dist'), dist, { recursive: true })
  for (const name of ['bench', 'profile', 'kernels', 'models', 'program.md', 'requirements.txt', 'package.json', 'node_modules'])
    symlinkSync(join(packageRoot, name), join(folder, name))
  const path = join(dist, file)
  let text = readFileSync(path, 'utf8')
  for (const [from, to] of edits) {
    const parts = text.split(from)
    if (parts.length !== 2)
      throw new Error(`mutant without ${without}: expected '${from}' once in ${dirname(file)}, found it ${parts.length - 1} times`)
    text = parts.join(to)
  }
  writeFileSync(path, text)
  return join(dist, 'cli.js')
}

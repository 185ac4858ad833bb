/** Keeps the current text of program.md and steer.md, which a person may edit while the run goes on. */
import { readFileSync } from 'node:fs'
import { watch } from 'chokidar'

export type Texts = { readonly playbook: string; readonly steer: string; close: () => Promise<void> }

/** A file that is not there is ''. Both are read before this resolves. */
export async function watchTexts(paths: { playbook: string; steer: string }): Promise<Texts> {
  const texts = { playbook: read(paths.playbook), steer: read(paths.steer) }
  const watcher = watch([paths.playbook, paths.steer], {
    ignoreInitial: true,
    awaitWriteFinish: { stabilityThreshold: 100, pollInterval: 20 },
  })
  const refresh = (): void => {
    texts.playbook = read(paths.playbook)
    texts.steer = read(paths.steer)
  }
  watcher.on('all', refresh)
  await new Promise<void>((resolve, reject) => {
    watcher.once('ready', resolve)
    watcher.once('error', reject)
  })
  watcher.on('error', refresh) // out of inotify watches, say: the texts stay as they are, the run goes on
  refresh() // what changed before the watching began
  return {
    get playbook() {
      return texts.playbook
    },
    get steer() {
      return texts.steer
    },
    close: () => watcher.close(),
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return ''
    throw error
  }
}

/** Which NAME.py files in a folder are complete and new: written by anybody, at any speed, also where the system tells nobody (NFS). */
import { lstat, readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { watch } from 'chokidar'

export type Dropped = {
  /** The names in order that are to be judged, up to the first that is still being written. */
  look: () => Promise<{ names: string[]; arriving: boolean }>
  /** This one is being judged, as it stands now. */
  take: (name: string) => void
  /** Resolves at the next change, or after a while all the same. */
  news: (ms: number, signal: AbortSignal) => Promise<void>
  close: () => Promise<void>
}

/** Looks by itself this often: network file systems send no events. */
const LOOK_MS = 2000

export function watchDropped(folder: string, settleMs: number): Dropped {
  const complete = new Map<string, string>() // name -> what its file looked like when it had stopped changing
  const taken = new Map<string, string>()
  const settling = new Map<string, NodeJS.Timeout>()
  let rung = false // something happened since the last wait
  let wake: () => void = () => {}
  const watcher = watch(folder, { depth: 0, followSymlinks: false })
  watcher.on('all', (event, path) => {
    if (path.endsWith('.py') && (event === 'add' || event === 'change')) settle(basename(path, '.py'), '')
  })
  watcher.on('error', () => {}) // no watches left on this machine, say: looking by ourselves is only slower
  return { look, take, news, close }

  async function look(): Promise<{ names: string[]; arriving: boolean }> {
    const entries = await readdir(folder, { withFileTypes: true })
    const files = new Set(entries.filter((entry) => entry.isFile()).map(({ name }) => name))
    const names: string[] = []
    for (const name of [...files]
      .filter((file) => file.endsWith('.py'))
      .map((file) => basename(file, '.py'))
      .sort()) {
      const now = await appearance(join(folder, `${name}.py`))
      if (now === null || taken.get(name) === now) continue
      if (!taken.has(name) && files.has(`${name}.verdict.md`) && !(await isNewer(name))) continue // judged before a restart
      if (complete.get(name) !== now) {
        if (!settling.has(name)) settle(name, '')
        return { names, arriving: true }
      }
      names.push(name)
    }
    return { names, arriving: false }
  }

  function take(name: string): void {
    taken.set(name, complete.get(name) ?? '')
    complete.delete(name)
  }

  /** Complete once it looks the same for as long as a file must rest. */
  function settle(name: string, before: string): void {
    clearTimeout(settling.get(name))
    if (watcher.closed) return
    const check = async (): Promise<void> => {
      const now = await appearance(join(folder, `${name}.py`))
      if (now !== null && now !== before) return settle(name, now)
      settling.delete(name)
      if (now !== null) complete.set(name, now)
      rung = true
      wake()
    }
    settling.set(
      name,
      setTimeout(() => void check(), before === '' ? 0 : settleMs),
    )
  }

  function news(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', stop)
        rung = false
        resolve()
      }
      const stop = (): void => {
        clearTimeout(timer)
        reject(signal.reason)
      }
      const timer = setTimeout(done, rung ? 0 : Math.min(ms, LOOK_MS))
      wake = done
      if (signal.aborted) stop()
      else signal.addEventListener('abort', stop, { once: true })
    })
  }

  async function close(): Promise<void> {
    for (const timer of settling.values()) clearTimeout(timer)
    await watcher.close()
  }

  async function isNewer(name: string): Promise<boolean> {
    const [source, verdict] = await Promise.all(['py', 'verdict.md'].map((end) => lstat(join(folder, `${name}.${end}`))))
    return (source?.mtimeMs ?? 0) > (verdict?.mtimeMs ?? 0)
  }
}

async function appearance(path: string): Promise<string | null> {
  const status = await lstat(path, { bigint: true }).catch(() => null)
  return status?.isFile() ? `${status.ino} ${status.size} ${status.mtimeNs}` : null
}

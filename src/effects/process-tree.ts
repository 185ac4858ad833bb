/** Ends programs that we started together with all that they started: at once, and also when we exit ourselves. */
import { readdirSync, readFileSync } from 'node:fs'

const alive = new Set<number>()

/** A detached child outlives us, and with it the device stays busy: whatever is still here when we exit is killed. */
export function killAtExit(pid: number): void {
  if (alive.size === 0) process.on('exit', killAll)
  alive.add(pid)
}

export function hasEnded(pid: number): void {
  if (alive.delete(pid) && alive.size === 0) process.off('exit', killAll)
}

/** `pid` leads its own process group. Its descendants may have left that group, so they are looked up while it stands still. */
export function killTree(pid: number): void {
  signal(-pid, 'SIGSTOP')
  const others = descendants(pid)
  signal(-pid, 'SIGKILL')
  for (const other of others) signal(other, 'SIGKILL')
}

/** Everybody who is still here. */
export function killAll(): void {
  for (const pid of alive) killTree(pid)
}

function signal(pid: number, name: 'SIGSTOP' | 'SIGKILL'): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null
    if (code !== 'ESRCH' && code !== 'EPERM') throw error // gone already, or a group that macOS no longer lets us see
  }
}

/** From /proc; elsewhere none, and the process group has to do. */
function descendants(root: number): number[] {
  const children = new Map<number, number[]>()
  for (const pid of processes()) {
    const parent = parentOf(pid)
    if (parent !== null) children.set(parent, [...(children.get(parent) ?? []), pid])
  }
  const found = children.get(root) ?? []
  for (const pid of found) found.push(...(children.get(pid) ?? []))
  return found
}

function processes(): number[] {
  try {
    return readdirSync('/proc').map(Number).filter(Number.isInteger)
  } catch {
    return []
  }
}

function parentOf(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) // the name in parentheses may hold anything
  } catch {
    return null // ended meanwhile
  }
}

/** Space set aside beside a run: on a full disk it is given up, so that a kept commit has its row before the run ends. */
import { randomBytes } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import type { Ledger, Row } from '../types.ts'
import { cannotWrite } from './files.ts'

const BYTES = 32 * 1024 // a row, and what file systems need besides
const FULL = new Set<unknown>(['ENOSPC', 'EDQUOT'])

export function setAside(path: string): string {
  try {
    writeFileSync(path, randomBytes(BYTES), { flush: true }) // zeros would take no space on some file systems
    return path
  } catch (error) {
    throw cannotWrite(path, error)
  }
}

/** The ledger, which writes its last row from the space at `reserve`; the next thing that must be written ends the run. */
export function withReserve(ledger: Ledger, reserve: string): Ledger {
  return {
    append: async (row: Row) => {
      try {
        await ledger.append(row)
      } catch (error) {
        if (!isFull(error)) throw error
        rmSync(reserve, { force: true })
        await ledger.append(row)
      }
    },
  }
}

function isFull(error: unknown): boolean {
  for (let each = error; each instanceof Error; each = each.cause) if ('code' in each && FULL.has(each.code)) return true
  return false
}

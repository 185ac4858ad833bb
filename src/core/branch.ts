/** Is what lies on the run's branch beyond the journal's last word our own? */

/** A commit found on the run's branch beyond what the journal says. */
export type OnBranch = { id: string; author: string; message: string }

const OURS = 'autokernel <autokernel@localhost>'

/** What of it is not ours, in words; null when all of it is. `commits` is null when the branch does not even contain what it should. */
export function foreignCommit(commits: OnBranch[] | null, tip: string, run: string): string | null {
  if (commits === null) return `${tip.slice(0, 12)}, which does not contain it`
  const other = commits.find(
    ({ author, message }) => author !== OURS || !(message.startsWith('autokernel: ') || message.includes(`\nAutokernel-Run: ${run}\n`)),
  )
  return other ? `${other.id.slice(0, 12)} by ${other.author} (${other.message.split('\n', 1)[0]})` : null
}

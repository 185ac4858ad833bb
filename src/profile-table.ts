/** A profile for people: where the time goes, and what a faster kernel would give the whole model. */
import { table } from './io.ts'
import type { Profile, ProfileRow, Target } from './schema.ts'

const ROWS = 16

export function profileTable(profile: Profile, targets: Target[]): string {
  const head = ['op', 'shape', 'dtype', 'calls', 'us', 'share', 'bound', '1.5x', '2x', '5x', 'kernel']
  const shown = profile.rows.slice(0, ROWS).map((row) => cells(row, targets))
  const rest = profile.rows.slice(ROWS).reduce((sum, row) => sum + row.share, 0)
  const lines = [table([head, ...shown])]
  if (rest > 0) lines.push(`and ${profile.rows.length - ROWS} more with ${(100 * rest).toFixed(1)} % together`)
  lines.push(
    `${profile.model_class}, ${(profile.parameters / 1e6).toFixed(0)}M parameters on ${profile.device_name}: ${(profile.total_us / 1000).toFixed(1)} ms of device time a forward pass, ${(profile.wall_us / 1000).toFixed(1)} ms by the clock`,
  )
  return lines.join('\n')
}

function cells(row: ProfileRow, targets: Target[]): string[] {
  const target = targets.find(
    (t) => t.op === row.op && t.dtype === row.dtype && row.sites.length > 0 && t.shapes.some((s) => String(s.shape) === String(row.shape)),
  )
  const gain = (factor: string) => (row.amdahl[factor] === undefined ? '-' : `${row.amdahl[factor].toFixed(3)}x`)
  return [
    row.name,
    row.shape.join('x') || '-',
    row.dtype,
    row.calls.toFixed(0),
    row.time_us.toFixed(0),
    `${(100 * row.share).toFixed(1)} %`,
    row.bound ?? '-',
    gain('1.5'),
    gain('2'),
    gain('5'),
    target?.name ?? '-',
  ]
}

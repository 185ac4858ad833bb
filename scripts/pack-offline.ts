/**
 * npm run pack:offline: one folder, build/offline, that runs on an air-gapped Linux x86-64 host with its own Python and torch.
 * Node comes along compressed; the start script unpacks it once.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const LIMIT_MIB = 60
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const out = join(root, 'build', 'offline')

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.error(`pack:offline: expected Linux x86-64, whose Node goes into the folder; found ${process.platform} ${process.arch}`)
  process.exit(3)
}
rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })

for (const name of [
  'dist',
  'bench',
  'profile',
  'kernels',
  'models',
  'program.md',
  'requirements.txt',
  'package.json',
  'package-lock.json',
]) {
  cpSync(join(root, name), join(out, name), { recursive: true, filter: (path) => !path.includes('__pycache__') && !path.endsWith('.map') })
}
execFileSync('npm', ['ci', '--omit=dev', '--ignore-scripts', '--no-fund', '--no-audit'], {
  cwd: out,
  stdio: ['ignore', 'ignore', 'inherit'],
})
thin(join(out, 'node_modules'))

// xz through Python on both sides: Python is there by definition, an xz program may not be. Debug symbols are of no use there.
const node = join(out, 'node')
cpSync(process.execPath, node, { dereference: true })
try {
  execFileSync('strip', [node], { stdio: 'ignore' })
} catch {
  console.error('note: no strip here, Node goes in with its symbols')
}
execFileSync('python3', [
  '-c',
  'import lzma, sys; open(sys.argv[2], "wb").write(lzma.compress(open(sys.argv[1], "rb").read(), preset=6))',
  node,
  `${node}.xz`,
])
rmSync(node)

const START = `#!/bin/sh
# Starts autokernel from this folder; unpacks the Node that came with it once.
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
node="$root/node"
if [ ! -x "$node" ]; then
  echo "autokernel: unpacking Node, once" >&2
  python3 -c 'import lzma, os, shutil, sys
with lzma.open(sys.argv[1]) as packed, open(sys.argv[2] + ".new", "wb") as plain:
    shutil.copyfileobj(packed, plain)
os.chmod(sys.argv[2] + ".new", 0o755)
os.replace(sys.argv[2] + ".new", sys.argv[2])' "$node.xz" "$node"
fi
exec "$node" "$root/dist/cli.js" "$@"
`
writeFileSync(join(out, 'autokernel'), START)
chmodSync(join(out, 'autokernel'), 0o755)

const mib = size(out) / 2 ** 20
console.log(`build/offline: ${mib.toFixed(1)} MiB. Copy it to the host, then: ./autokernel doctor`)
if (mib > LIMIT_MIB) {
  console.error(`pack:offline: expected at most ${LIMIT_MIB} MiB; find out what grew: du -a build/offline | sort -n | tail`)
  process.exit(1)
}

/** What a program never reads: types, maps, sources that have been compiled, documentation. */
function thin(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) thin(path)
    else if (/(\.d\.[cm]?ts|\.map|\.md|\.[cm]?ts)$/i.test(entry.name)) rmSync(path)
  }
}

function size(path: string): number {
  const stats = statSync(path)
  if (!stats.isDirectory()) return stats.size
  return readdirSync(path).reduce((sum, name) => sum + size(join(path, name)), 0)
}

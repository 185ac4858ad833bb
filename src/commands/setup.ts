/** autokernel setup: the Python environment, ahead of need. */
import { ensurePython } from '../effects/python.ts'
import type { Io } from '../io.ts'
import type { Options } from '../options.ts'
import { packageRoot } from '../package-root.ts'

export async function setup(options: Options, io: Io): Promise<number> {
  const found = await ensurePython({ explicit: options.python ?? null, root: packageRoot, dev: options.dev ?? false, log: io.say })
  if (io.json) io.document(found)
  else io.print(`${found.python} (torch ${found.torch}, from ${found.source})`)
  return 0
}

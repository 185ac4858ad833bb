/** Ctrl-C and its kin: `signal` aborts on the first one, once a command has said that it listens; `interrupt` does what a signal does. */
export type Interruption = { signal: AbortSignal; listen: () => void; interrupt: (as: 'SIGINT' | 'SIGTERM') => void }

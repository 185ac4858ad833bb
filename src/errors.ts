/** The errors a person meets. Each message says what was expected, what was found, and what to do. */

/** The person's mistake: one line, no stack, exit 2. */
export class UsageError extends Error {
  override name = 'UsageError'
}

/** The machine lacks something (no torch, no GPU asked for, disk full): one line, exit 3. */
export class EnvironmentError extends Error {
  override name = 'EnvironmentError'
}

/** The provider refuses us (401, 402, 403): one line, exit 4. */
export class AuthenticationError extends Error {
  override name = 'AuthenticationError'
}

/** Another owner or a passing condition; the run can be resumed: one line, exit 75. */
export class TemporaryError extends Error {
  override name = 'TemporaryError'
}

/** Ours: a tool answered something we cannot read. Full stack, exit 1. */
export class ToolError extends Error {
  override name = 'ToolError'
}

/** Ours, where nobody expected it: one line, for its stack is in the run's log; exit 1. */
export class UncaughtError extends Error {
  override name = 'UncaughtError'
}

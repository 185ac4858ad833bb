/** Everything that enters from Python, disk, argv or a model is parsed here once; types are inferred from the schemas. */
import { z } from 'zod'

export const CommitSha = z
  .string()
  .regex(/^[0-9a-f]{7,40}$/)
  .brand<'CommitSha'>()
export type CommitSha = z.infer<typeof CommitSha>

/** Of a run: a folder, a branch and a ref bear it. */
export const RunName = z.string().regex(/^(?!.*(\.\.|\.$|\.lock$))[A-Za-z0-9][\w.-]{0,99}$/)

export const Dtype = z.enum(['fp16', 'bf16', 'fp32'])
export type Dtype = z.infer<typeof Dtype>

export const Backend = z.enum(['triton', 'cuda', 'hip', 'cpp'])
export type Backend = z.infer<typeof Backend>

export const DeviceKind = z.enum(['cuda', 'rocm', 'cpu'])
export type DeviceKind = z.infer<typeof DeviceKind>

/** Keyword arguments of one call (eps, causal, ...), exactly as `kernel_fn` receives them. */
export const Options = z.record(z.string(), z.union([z.number(), z.boolean(), z.string(), z.null()]))
export type Options = z.infer<typeof Options>

/** One shape of an operation as the model calls it: `calls` per forward pass; `weight` is its share of the target's time, summing to 1. */
export const ShapeCase = z.object({
  shape: z.array(z.number().int().nonnegative()),
  options: Options.default({}),
  weight: z.number().min(0).max(1),
  calls: z.number().positive().default(1),
})
export type ShapeCase = z.infer<typeof ShapeCase>

/** What the device is and what it was measured to reach. Rates: GB/s counts bytes read plus written, TFLOP/s dense. */
export const DeviceFacts = z.object({
  kind: DeviceKind,
  name: z.string(),
  torch: z.string(),
  triton: z.string().nullable(),
  runtime: z.string().nullable(), // "cuda 13.0", "hip 6.4" or null on a CPU
  memory_gb: z.number(),
  cache_bytes: z.number(), // L2 of a GPU, last-level cache of a CPU
  measured: z.object({ gbps: z.number(), tflops: z.record(z.string(), z.number()) }),
  datasheet: z.object({ gbps: z.number(), tflops: z.number() }).nullable(),
})
export type DeviceFacts = z.infer<typeof DeviceFacts>

export const Hello = z.object({
  protocol: z.literal(1),
  judge_hash: z.string(),
  sandbox: z.string(), // what actually confines a candidate here, in words
  device: DeviceFacts,
  ops: z.array(z.string()),
})
export type Hello = z.infer<typeof Hello>

export const StageName = z.enum(['build', 'smoke', 'shapes', 'stability', 'determinism', 'edges', 'large'])
export const Stage = z.object({
  name: StageName,
  status: z.enum(['pass', 'fail', 'skipped']),
  cases: z.number().int(),
  seconds: z.number(),
  detail: z.string(),
})
export type Stage = z.infer<typeof Stage>

export const Roofline = z.object({
  bound: z.enum(['memory', 'compute']),
  bytes: z.number(),
  flops: z.number(),
  limit_us: z.number(), // the time the measured peaks allow, at the weighted shapes
})
export type Roofline = z.infer<typeof Roofline>

const compiled = {
  registers: z.number().nullable(), // a thread
  spills: z.number().nullable(), // registers spilled a thread; C++: stores of vectors to the stack
  shared_bytes: z.number().nullable(), // a block, static and dynamic
  occupancy: z.number().nullable(), // share of a multiprocessor's threads
}

/** What the compilers made of a candidate at its primary shape; said by its own process, so information and no more. */
export const Compiler = z.object({
  ...compiled, // the worst of the kernels
  vector_width: z.number().nullable(), // bits of the widest vector instructions, C++ only
  kernels: z
    .array(z.object({ name: z.string(), ...compiled }))
    .max(8)
    .default([]),
})
export type Compiler = z.infer<typeof Compiler>

/** What ncu counted while a kernel ran once: each launch, the longest first; shares are of what the device can do. */
export const Counters = z.object({
  kernels: z
    .array(
      z.object({
        name: z.string(),
        us: z.number(),
        memory: z.number().nullable(),
        units: z.number().nullable(),
        occupancy: z.number().nullable(),
        stalls: z.array(z.tuple([z.string(), z.number()])).max(8), // what its warps wait for, the worst first
      }),
    )
    .max(8),
  detail: z.string(), // how it was confined, or why nothing could be counted
})
export type Counters = z.infer<typeof Counters>

/** What compute-sanitizer found at the primary shape; null where it could not look. */
export const Sanitized = z.object({ errors: z.number().int().nullable(), detail: z.string() })
export type Sanitized = z.infer<typeof Sanitized>

/** Is this kernel.py right? Correctness only; speed comes from Timing. */
export const Check = z.object({
  verdict: z.enum(['pass', 'wrong', 'crash', 'timeout', 'invalid', 'suspect']),
  op: z.string(),
  backend: z.string().nullable(),
  dtype: Dtype,
  stages: z.array(Stage),
  detail: z.string(), // '' or the first failure: shape, dtype, index, expected, got, allowed
  quick: z.boolean(),
  flags: z.array(z.string()), // what the source scan found worth a closer look
  held: z.string().nullable().default(null), // the flag for which a win is held instead of kept
  worst_of_tolerance: z.number().nullable(), // largest error as a fraction of what is allowed
  max_abs_err: z.number().nullable(),
  peak_mem_mb: z.number().nullable(),
  compiler: Compiler.nullable(),
  build_s: z.number(),
  wall_s: z.number(),
  source_sha256: z.string(),
  judge_hash: z.string(),
  sandbox: z.string(),
})
export type Check = z.infer<typeof Check>

/** One contender in a timing request: a kernel.py, or one of the operation's own baselines. */
export const Side = z.discriminatedUnion('kind', [
  z.object({ name: z.string(), kind: z.literal('file'), path: z.string() }),
  z.object({ name: z.string(), kind: z.literal('builtin'), which: z.enum(['eager', 'vendor', 'compile']) }),
])
export type Side = z.infer<typeof Side>

/** One fresh process per side; `us[side][shape]` holds each visit's microseconds per call. */
export const Round = z.object({
  order: z.array(z.string()),
  us: z.record(z.string(), z.array(z.array(z.number()))),
  disturbed: z.string().nullable(), // why this round must not count, else null
})
export type Round = z.infer<typeof Round>

export const Timing = z.object({
  rounds: z.array(Round),
  roofline: Roofline, // weighted over the shapes
  limit_us: z.array(z.number()), // per shape
  clocks: z.string().nullable(),
  failure: z.object({ side: z.string(), kind: z.enum(['wrong', 'crash', 'timeout', 'suspect']), detail: z.string() }).nullable(),
  wall_s: z.number(),
})
export type Timing = z.infer<typeof Timing>

/** The whole model, original against optimized, in separate processes. */
export const Verification = z.object({
  verdict: z.enum(['pass', 'fail', 'nothing']),
  detail: z.string(),
  kernels: z.array(z.object({ kernel: z.string(), sites: z.number().int(), used: z.boolean(), detail: z.string() })),
  error: z.object({ max_abs: z.number(), normwise: z.number(), allowed_normwise: z.number() }).nullable(),
  rounds: z.array(
    z.object({ order: z.array(z.string()), ms: z.record(z.string(), z.array(z.number())), disturbed: z.string().nullable() }),
  ),
  wall_s: z.number(),
})
export type Verification = z.infer<typeof Verification>

export const JudgeReply = z.discriminatedUnion('ok', [
  z.object({ id: z.number(), ok: z.literal(true), result: z.unknown() }),
  z.object({ id: z.number(), ok: z.literal(false), error: z.string() }), // the judge itself could not work
])

/** A model file and how to build it. */
export const ModelSpec = z.object({
  file: z.string(),
  class_name: z.string().nullable(),
  input_shape: z.array(z.number().int().positive()).nullable(),
  dtype: Dtype,
  device: DeviceKind,
  seed: z.number().int(),
})
export type ModelSpec = z.infer<typeof ModelSpec>

/** One operation x shape x dtype of a profiled model. Times are device time (CPU: self time) per forward pass. */
export const ProfileRow = z.object({
  op: z.string(), // one of the operations, or 'other'
  name: z.string(), // op, or the widest honest name for what is 'other' (aten::embedding, a kernel's name)
  shape: z.array(z.number().int()),
  options: Options,
  dtype: z.string(),
  calls: z.number(),
  time_us: z.number(),
  share: z.number(),
  bound: z.enum(['memory', 'compute']).nullable(),
  limit_us: z.number().nullable(), // roofline time for these calls
  amdahl: z.record(z.string(), z.number()), // '1.5' | '2' | '3' | '5' -> whole-model speedup
  sites: z.array(z.string()), // module paths where it can be replaced; empty when it cannot
})
export type ProfileRow = z.infer<typeof ProfileRow>

export const Profile = z.object({
  format: z.literal(1),
  model: ModelSpec,
  model_class: z.string(),
  parameters: z.number(),
  device_name: z.string(),
  torch: z.string(),
  total_us: z.number(), // device time of one forward pass
  wall_us: z.number(),
  rows: z.array(ProfileRow),
})
export type Profile = z.infer<typeof Profile>

/** The plan's unit of work: an operation at a dtype with all its shapes in the model, weighted by time. */
export const Target = z.object({
  name: z.string().regex(/^[a-z][a-z0-9_]*(-\d+)?$/),
  op: z.string(),
  op_file: z.string().nullable(),
  dtype: Dtype,
  backend: Backend,
  share: z.number(),
  shapes: z.array(ShapeCase).min(1),
  sites: z.array(z.string()),
})
export type Target = z.infer<typeof Target>

/** The environment that Python programs of ours get: an allow-list, so that no key or token reaches a process that runs kernels. */

const ALLOWED = [
  /^(PATH|HOME|USER|LOGNAME|SHELL|TZ|LANG|LC_\w+|TMPDIR|TMP|TEMP|XDG_CACHE_HOME|XDG_RUNTIME_DIR)$/,
  /^(LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|PYTHONPATH|VIRTUAL_ENV|CONDA_PREFIX)$/,
  /^(CC|CXX|CPATH|C_INCLUDE_PATH|CPLUS_INCLUDE_PATH|LIBRARY_PATH|NVCC_\w+)$/,
  /^(CUDA|NVIDIA|CUBLAS|CUDNN|HIP|ROCM|ROCR|HSA|AMD|GPU)_\w+$/,
  /^(OMP|GOMP|KMP|MKL|OPENBLAS)_\w+$/,
  /^(TORCH|TORCHINDUCTOR|PYTORCH|TRITON)_\w+$/,
  /^(HF_HOME|HF_HUB_CACHE|HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE)$/, // a user's model may load its weights from there
  /^AUTOKERNEL_CACHE$/,
]
const SECRET = /KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL/i

export function childEnv(from: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const kept: Record<string, string> = {}
  for (const [name, value] of Object.entries(from)) {
    if (value !== undefined && !SECRET.test(name) && ALLOWED.some((pattern) => pattern.test(name))) kept[name] = value
  }
  return kept
}

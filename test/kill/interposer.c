/* Counts the calls by which a daemon and its gits change a run's folders, and kills before the N-th: LD_PRELOAD, for kill tests only.
 *
 * KILL_STATE names a file of zeros, shared by every process of the run as a struct state; KILL_ROOT is the user's repository.
 * KILL_AT is the number of the call to die before (0: only count), KILL_MODE who dies, KILL_TORN that half of a write is done first.
 * With KILL_EVENTS it counts from when the journal had so many events, and if the next event comes before that call, death does too.
 * KILL_JOURNAL is the run's journal: the calendar clock moves by a minute with each event in it and stands still otherwise, so that
 * a run that was killed finds the times of one that was left alone. Clocks that only measure go on.
 */
#include "interposer_state.h"

static int ours(const char *path) {
  size_t length = strlen(root);
  if (strncmp(path, root, length) != 0 || path[length] != '/') return 0;
  const char *rest = path + length;
  return strncmp(rest, "/.git", 5) == 0 || strncmp(rest, "/.autokernel", 12) == 0 || strncmp(rest, "/results.tsv", 12) == 0;
}

static int path_of(int fd, char *path, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long length = readlink(link, path, size - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return ours(path);
}

static int absolute(const char *given, char *path, size_t size) {
  if (given[0] == '/') {
    snprintf(path, size, "%s", given);
  } else {
    char folder[2000];
    if (!getcwd(folder, sizeof folder)) return 0;
    snprintf(path, size, "%s/%s", folder, given);
  }
  return ours(path);
}

static struct synced *tracked(const char *path) {
  const char *name = strrchr(path, '/');
  int index = name && strcmp(name, "/events.jsonl") == 0 ? 0 : name && strcmp(name, "/results.tsv") == 0 ? 1 : -1;
  return index < 0 ? NULL : &state->files[index];
}

static void die(void) {
  int daemon = state->daemon;
  if (mode != CALLER) kill(daemon, SIGKILL);
  if (mode == POWER) {
    for (int i = 0; i < 2; i++) {
      struct stat now;
      struct synced *file = &state->files[i];
      if (file->path[0] && stat(file->path, &now) == 0 && now.st_size > file->size) truncate(file->path, file->size);
    }
  }
  if (mode != DAEMON) kill(getpid(), SIGKILL);
}

/* True once, at the call to die before. */
static int last_call(long number, long events, long since) {
  if (target == 0) return 0;
  if (target_events < 0) return number == target;
  if (events < target_events || (events == target_events && since < target)) return 0;
  return !atomic_exchange(&state->reached, 1);
}

/* True when this is the call that is to be cut in half. */
static int boundary(const char *call, const char *path) {
  long number = atomic_fetch_add(&state->count, 1) + 1, events = state->events, since = atomic_fetch_add(&state->since, 1) + 1;
  if (log_fd >= 0) {
    char line[2500];
    int length = snprintf(line, sizeof line, "%ld\t%ld\t%ld\t%s%s\t%s\t%s\n", number, events, since, program, subcommand, call, path);
    REAL(write)(log_fd, line, length);
  }
  if (!last_call(number, events, since)) return 0;
  if (torn && strcmp(call, "write") == 0 && (mode != DAEMON || state->daemon == getpid())) return 1;
  die();
  return 0;
}

static void before_write(int fd, const char *path) {
  struct synced *file = tracked(path);
  struct stat now;
  if (file && !file->path[0] && fstat(fd, &now) == 0) {
    file->size = now.st_size;
    snprintf(file->path, sizeof file->path, "%s", path);
  }
}

ssize_t write(int fd, const void *bytes, size_t size) {
  char path[2100];
  if (state && path_of(fd, path, sizeof path)) {
    before_write(fd, path);
    if (boundary("write", path)) {
      REAL(write)(fd, bytes, size / 2);
      die();
    }
    if (strcmp(path, journal) == 0 && is_event(bytes)) {
      state->events++;
      state->since = 0;
    }
  }
  return REAL(write)(fd, bytes, size);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
  char path[2100];
  if (state && path_of(fd, path, sizeof path)) {
    before_write(fd, path);
    if (boundary("write", path)) {
      REAL(pwrite64)(fd, bytes, size / 2, at);
      die();
    }
  }
  return REAL(pwrite64)(fd, bytes, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  char path[2100];
  if (state && path_of(fd, path, sizeof path)) {
    before_write(fd, path);
    if (boundary("write", path)) {
      REAL(write)(fd, parts[0].iov_base, parts[0].iov_len / 2);
      die();
    }
  }
  return REAL(writev)(fd, parts, count);
}

static void after_sync(int fd, const char *path, int result) {
  struct synced *file = tracked(path);
  struct stat now;
  if (file && result == 0 && fstat(fd, &now) == 0) file->size = now.st_size;
}

int fsync(int fd) {
  char path[2100];
  if (!state || !path_of(fd, path, sizeof path)) return REAL(fsync)(fd);
  boundary("fsync", path);
  int result = REAL(fsync)(fd);
  after_sync(fd, path, result);
  return result;
}

int fdatasync(int fd) {
  char path[2100];
  if (!state || !path_of(fd, path, sizeof path)) return REAL(fdatasync)(fd);
  boundary("fsync", path);
  int result = REAL(fdatasync)(fd);
  after_sync(fd, path, result);
  return result;
}

int ftruncate64(int fd, off64_t size) {
  char path[2100];
  if (state && path_of(fd, path, sizeof path)) boundary("ftruncate", path);
  return REAL(ftruncate64)(fd, size);
}

int rename(const char *from, const char *to) {
  char path[4100];
  if (state && absolute(to, path, sizeof path)) boundary("rename", path);
  return REAL(rename)(from, to);
}

int unlink(const char *given) {
  char path[4100];
  if (state && absolute(given, path, sizeof path) && strstr(path, ".lock")) boundary("unlink", path); /* others are of files that nothing reads */
  return REAL(unlink)(given);
}

int link(const char *from, const char *to) {
  char path[4100];
  if (state && absolute(to, path, sizeof path)) boundary("link", path);
  return REAL(link)(from, to);
}

static void starting(const char *file, char *const words[]) {
  char what[300] = "";
  const char *base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
  if (strcmp(base, "git") == 0) {
    for (int i = 1; words[i]; i++) {
      if (strcmp(words[i], "-c") == 0 && words[i + 1]) i++;
      else if (words[i][0] != '-') {
        snprintf(what, sizeof what, " %s", words[i]);
        break;
      }
    }
  }
  char text[400];
  snprintf(text, sizeof text, "%s%s", base, what);
  if (state) boundary("exec", text);
}

int execve(const char *file, char *const words[], char *const environment[]) {
  starting(file, words);
  return REAL(execve)(file, words, environment);
}

int execvp(const char *file, char *const words[]) {
  starting(file, words);
  return REAL(execvp)(file, words);
}

int posix_spawn(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                char *const words[], char *const environment[]) {
  starting(file, words);
  return REAL(posix_spawn)(pid, file, actions, attributes, words, environment);
}

static long calendar(void) {
  return EPOCH + STEP * shared_clock->events;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  if (!shared_clock || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return REAL(clock_gettime)(clock, at);
  *at = (struct timespec){.tv_sec = calendar()};
  return 0;
}

int gettimeofday(struct timeval *at, void *zone) {
  (void)zone;
  if (!shared_clock) return REAL(gettimeofday)(at, NULL);
  *at = (struct timeval){.tv_sec = calendar()};
  return 0;
}

time_t time(time_t *at) {
  time_t now = shared_clock ? calendar() : REAL(time)(NULL);
  if (at) *at = now;
  return now;
}

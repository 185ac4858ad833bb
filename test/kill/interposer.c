/* Counts the calls by which a daemon and its gits change a run's folders, and kills before the N-th: LD_PRELOAD, for kill tests only.
 *
 * KILL_STATE names a file of one struct state, shared by every process of the run; KILL_ROOT is the user's repository.
 * KILL_CLOCK, in seconds since 1970, is what the calendar clock says, always; clocks that only measure go on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { DAEMON = 0, POWER = 1, CALLER = 2 }; /* who dies: the daemon; all at once, with what is not yet on the disk; whoever calls */

struct synced {
  char path[1000];
  long size; /* on the disk for certain */
};

struct state {
  _Atomic long count;
  long target; /* 0: count only */
  int mode, torn; /* torn: the first half of what the call writes is written */
  _Atomic int daemon;
  struct synced files[2];
};

static struct state *state;
static const char *root, *program = "node";
static char subcommand[64];
static long clock_seconds = -1;
static int log_fd = -1;

#define REAL(name) ((__typeof__(name) *)real(#name))
static void *real(const char *name) {
  return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("KILL_STATE"), *seconds = getenv("KILL_CLOCK"), *log = getenv("KILL_LOG");
  root = getenv("KILL_ROOT");
  if (seconds) clock_seconds = atol(seconds);
  if (!path || !root) return;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  struct state *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared == MAP_FAILED) return;
  int nobody = 0;
  atomic_compare_exchange_strong(&shared->daemon, &nobody, getpid());
  if (log) log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (log_fd >= 0 && log_fd < 1000) { /* a number that nobody else closes or counts on */
    int high = fcntl(log_fd, F_DUPFD_CLOEXEC, 1000);
    close(log_fd);
    log_fd = high;
  }
  char words[4096];
  fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  long length = fd < 0 ? 0 : read(fd, words, sizeof words - 1);
  if (fd >= 0) close(fd);
  words[length > 0 ? length : 0] = 0;
  const char *base = strrchr(words, '/') ? strrchr(words, '/') + 1 : words;
  if (strncmp(base, "git", 3) == 0) {
    program = "git";
    int value = 1; /* the first word is git, the one after -c a setting */
    for (const char *word = words; word < words + length; word += strlen(word) + 1) {
      if (!value && word[0] != '-') {
        snprintf(subcommand, sizeof subcommand, "-%s", word);
        break;
      }
      value = strcmp(word, "-c") == 0;
    }
  } else if (shared->daemon != getpid()) {
    return; /* flock and the like change nothing */
  }
  state = shared;
}

static int ours(const char *path) {
  size_t length = strlen(root);
  if (strncmp(path, root, length) != 0) return 0;
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
  int daemon = state->daemon, mode = state->mode;
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

/* True when this is the call that is to be cut in half. */
static int boundary(const char *call, const char *path) {
  long number = atomic_fetch_add(&state->count, 1) + 1;
  if (log_fd >= 0) {
    char line[2500];
    int length = snprintf(line, sizeof line, "%ld\t%s%s\t%s\t%s\n", number, program, subcommand, call, path);
    REAL(write)(log_fd, line, length);
  }
  if (number != state->target) return 0;
  if (state->torn && strcmp(call, "write") == 0) return 1;
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
  if (state && absolute(given, path, sizeof path)) boundary("unlink", path);
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

int clock_gettime(clockid_t clock, struct timespec *at) {
  if (clock_seconds < 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return REAL(clock_gettime)(clock, at);
  *at = (struct timespec){.tv_sec = clock_seconds};
  return 0;
}

int gettimeofday(struct timeval *at, void *zone) {
  (void)zone;
  if (clock_seconds < 0) return REAL(gettimeofday)(at, NULL);
  *at = (struct timeval){.tv_sec = clock_seconds};
  return 0;
}

/* What the interposer knows: which process it is in, how many calls there were, how far the journal is. Part of interposer.c. */
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
  _Atomic long events; /* in the journal, but for starts */
  _Atomic long since; /* calls since the last of them */
  _Atomic int reached;
  _Atomic int daemon;
  struct synced files[2];
};

enum { EPOCH = 1767225600, STEP = 60 }; /* 2026-01-01 */

static struct state *state, *shared_clock;
static const char *root, *journal, *program = "node";
static char subcommand[64];
static long target, target_events; /* target_events: < 0 where target counts from the start */
static int mode, torn, log_fd = -1;

/* Found once, at the start: dlsym takes a lock, and a child of vfork that was killed with it would leave it to its parent. */
#define FUNCTIONS(X) \
  X(write) X(pwrite64) X(writev) X(fsync) X(fdatasync) X(ftruncate64) X(rename) X(unlink) X(link) X(execve) X(execvp) X(posix_spawn) \
  X(clock_gettime) X(gettimeofday) X(time)
#define DECLARE(name) static __typeof__(name) *real_##name;
#define FIND(name) real_##name = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);
#define REAL(name) (real_##name ? real_##name : (find_all(), real_##name))
FUNCTIONS(DECLARE)

static void find_all(void) {
  FUNCTIONS(FIND)
}

static long number(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

static int is_event(const char *line) {
  return strncmp(line, "{\"type\":\"", 9) == 0 && strncmp(line, "{\"type\":\"started\"", 17) != 0;
}

static long recorded_events(void) {
  FILE *file = fopen(journal, "r");
  if (!file) return 0;
  char *line = NULL;
  size_t size = 0;
  long events = 0;
  for (ssize_t length; (length = getline(&line, &size, file)) > 0;) events += line[length - 1] == '\n' && is_event(line);
  free(line);
  fclose(file);
  return events;
}

__attribute__((constructor)) static void begin(void) {
  find_all();
  const char *path = getenv("KILL_STATE"), *log = getenv("KILL_LOG");
  root = getenv("KILL_ROOT");
  journal = getenv("KILL_JOURNAL");
  if (!path || !root || !journal) return;
  target = number("KILL_AT");
  target_events = getenv("KILL_EVENTS") ? number("KILL_EVENTS") : -1;
  mode = number("KILL_MODE");
  torn = number("KILL_TORN");
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  struct state *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared == MAP_FAILED) return;
  int nobody = 0;
  if (atomic_compare_exchange_strong(&shared->daemon, &nobody, getpid())) shared->events = recorded_events();
  shared_clock = shared;
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

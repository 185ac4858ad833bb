/* Stands between a program and its disk, for tests: LD_PRELOAD this library.
 * SLOW_FSYNC_MS=300: every fsync and fdatasync takes that much longer.
 * FULL_FOR=results.tsv FULL_AFTER=3 FULL_WHILE=/path/reserve: after three writes to files of that name the disk is full for
 * them, for as long as the other file is there. Half of what is to be written still fits, as on a real one. With
 * FULL_WITH_EROFS=1 it is read-only instead. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void wait_a_while(void) {
  const char *ms = getenv("SLOW_FSYNC_MS");
  if (ms) usleep(1000 * atoi(ms));
}

int fsync(int fd) {
  wait_a_while();
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
  wait_a_while();
  return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  static int writes = 0;
  ssize_t (*really)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  const char *name = getenv("FULL_FOR"), *other = getenv("FULL_WHILE"), *after = getenv("FULL_AFTER");
  if (!name || !other || !after) return really(fd, bytes, count);
  char link[64], path[PATH_MAX] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (readlink(link, path, sizeof path - 1) < 0 || !strstr(path, name)) return really(fd, bytes, count);
  int number = ++writes - atoi(after);
  if (number <= 0 || access(other, F_OK) != 0) return really(fd, bytes, count);
  int read_only = getenv("FULL_WITH_EROFS") != NULL;
  if (number == 1 && count > 1 && !read_only) return really(fd, bytes, count / 2);
  errno = read_only ? EROFS : ENOSPC;
  return -1;
}

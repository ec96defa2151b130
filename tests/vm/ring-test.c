/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drive /dev/vhost-blk with no machine in between.
 *
 * Usage: ring-test NAME BACKEND [WORD]... [--only=PATTERN,...] [--not=...]
 *        ring-test NAME BACKEND [WORD]... --verify=SECONDS
 *        ring-test NAME BACKEND [WORD]... --noise=SECONDS[,SEED]
 * Prints one line a test in the form of scripts/check; tests that mean nothing
 * on this disk have none.  The words tell what the disk can do: read_word().
 * Each test is a process of its own with a time limit, so that one that hangs
 * is only one.  --verify runs nothing but random requests, so long, --noise
 * nothing but rings of nonsense.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#define TEST_SECONDS 25
#define NOT_HERE 77

Backend backend;
static int test_seconds = TEST_SECONDS;
static char *reason;            /* shared with the test's process */

void fail(const char *file, int line, const char *what, const char *format,
          ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    snprintf(reason, PAGE, "%s:%d: %s: %s", strrchr(file, '/') ?
             strrchr(file, '/') + 1 : file, line, what, text);
    _exit(1);
}

void not_here(void)
{
    _exit(NOT_HERE);
}

static int wait_for(pid_t pid)
{
    int status;

    for (int i = 0; i < test_seconds * 100; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
        }
        usleep(10000);
    }
    snprintf(reason, PAGE, "no end in %d s", test_seconds);
    kill(pid, SIGKILL);
    for (int i = 0; i < 500; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return 1;
        }
        usleep(10000);
    }
    snprintf(reason, PAGE, "no end in %d s, and it cannot be killed",
             test_seconds);
    return 1;
}

static bool run_test(const char *name, const Test *test)
{
    pid_t pid;
    int code;

    reason[0] = 0;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        test->run();
        _exit(0);
    }
    code = wait_for(pid);
    if (code == 128 && !reason[0]) {
        strcpy(reason, "it was killed");
    }
    if (code == NOT_HERE) {
        return true;
    } else if (code) {
        printf("not ok %s/%s # %s\n", name, test->name, reason);
    } else {
        printf("ok %s/%s\n", name, test->name);
    }
    fflush(stdout);
    return code == 0;
}

static void look_at_backend(void)
{
    int fd = open(backend.path, O_RDONLY);
    struct stat st;
    int size = 512;

    if (fd < 0 || fstat(fd, &st)) {
        fprintf(stderr, "%s: %s\n", backend.path, strerror(errno));
        exit(2);
    }
    backend.size = st.st_size;
    backend.block_size = 512;
    if (S_ISBLK(st.st_mode)) {
        backend.is_block = true;
        ioctl(fd, BLKGETSIZE64, &backend.size);
        ioctl(fd, BLKSSZGET, &size);
        backend.block_size = size;
        if (asprintf(&backend.sys, "/sys/dev/block/%u:%u",
                     major(st.st_rdev), minor(st.st_rdev)) < 0) {
            exit(2);
        }
    }
    close(fd);
}

static const Test *const sets[] = {
    io_tests, unmap_tests, hostile_tests, verify_tests, control_tests
};

static void list_tests(void)
{
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        for (const Test *test = sets[i]; test->name; test++) {
            puts(test->name);
        }
    }
}

static const struct {
    const char *word;
    bool *flag;
} words[] = {
    { "discard", &backend.discard }, { "late", &backend.late },
    { "late-data", &backend.late_data }, { "bad-end", &backend.bad_end },
    { "errors", &backend.errors }, { "starved", &backend.starved },
    { "merges", &backend.merges },
    { "counts-flushes", &backend.counts_flushes },
    { "pulled", &backend.pulled }, { "zoned", &backend.zoned },
    { "reserved", &backend.reserved },
};

static const char *only = "*", *not = "";

static void read_word(const char *word)
{
    if (!strcmp(word, "direct")) {
        backend.flags |= O_DIRECT;
        return;
    } else if (!strncmp(word, "--only=", 7)) {
        only = word + 7;
        return;
    } else if (!strncmp(word, "--not=", 6)) {
        not = word + 6;
        return;
    } else if (!strncmp(word, "--verify=", 9)) {
        backend.verify_ms = atoi(word + 9) * 1000;
        test_seconds += atoi(word + 9);
        only = "verify";
        return;
    } else if (!strncmp(word, "--noise=", 8)) {
        const char *seed = strchr(word, ',');

        backend.noise_s = atoi(word + 8);
        backend.noise_seed = seed ? atoi(seed + 1) : time(NULL);
        test_seconds += backend.noise_s;
        only = "noise";
        return;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (!strcmp(word, words[i].word)) {
            *words[i].flag = true;
            return;
        }
    }
    fprintf(stderr, "ring-test: what is %s?\n", word);
    exit(2);
}

/* patterns with commas between */
static bool matches(const char *patterns, const char *name)
{
    char list[256], *rest = list, *pattern;

    snprintf(list, sizeof(list), "%s", patterns);
    while ((pattern = strsep(&rest, ","))) {
        if (!fnmatch(pattern, name, 0)) {
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    bool good = true;

    if (argc == 2 && !strcmp(argv[1], "--list")) {
        list_tests();
        return 0;
    } else if (argc < 3) {
        fprintf(stderr, "usage: ring-test NAME BACKEND [WORD]... "
                "[--only=PATTERN,... | --verify=SECONDS | "
                "--noise=SECONDS[,SEED]]\n"
                "       ring-test --list\n");
        return 2;
    }
    backend.path = argv[2];
    backend.flags = O_RDWR;
    backend.verify_ms = 1000;
    backend.noise_s = 2;
    backend.noise_seed = 4711;
    for (int i = 3; i < argc; i++) {
        read_word(argv[i]);
    }
    look_at_backend();
    reason = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        for (const Test *test = sets[i]; test->name; test++) {
            if (matches(only, test->name) && !matches(not, test->name)) {
                good &= run_test(argv[1], test);
            }
        }
    }
    return good ? 0 : 1;
}

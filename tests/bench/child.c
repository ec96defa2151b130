/*
 * vblk-bench: the process that serves the disk, and its monitor
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench.h"

static pid_t child;
static char dir[80];     /* its sockets have no room for more */
static int qmp_fd = -1;

/* ---- the process ---- */

static void remove_dir(void)
{
    static const char *const name[] = { "qtest", "qmp", "vhost-user" };

    if (!dir[0]) {
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(name); i++) {
        unlink(child_path(name[i]));
    }
    rmdir(dir);
    dir[0] = 0;
}

/* It is gone, and its sockets, when this returns. */
void child_kill(void)
{
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, __WALL);
        child = 0;
    }
    remove_dir();
}

/* Where the child's sockets are; made at the first call. */
char *child_path(const char *name)
{
    if (!dir[0]) {
        snprintf(dir, sizeof(dir), "%s/vblk-bench-XXXXXX",
                 getenv("TMPDIR") ?: "/tmp");
        if (!mkdtemp(dir)) {
            die("%s: %m", dir);
        }
        at_die(child_kill);
    }
    return format("%s/%s", dir, name);
}

/* It does not outlive us; its output goes to our standard error. */
pid_t child_start(char **argv)
{
    pid_t parent = getpid(), pid = fork();
    sigset_t none;

    if (pid < 0) {
        die("fork: %m");
    }
    if (pid) {
        child = pid;
        return pid;
    }
    pin_thread(-1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(2, 1);
    execvp(argv[0], argv);
    fprintf(stderr, "error: cannot run %s: %m\n", argv[0]);
    _exit(127);
}

/* While waiting for WHAT: die when it cannot come any more. */
void child_check(const char *what, uint64_t end)
{
    int status;

    if (waitpid(child, &status, WNOHANG) == child) {
        child = 0;
        die("%s ended while we waited for %s; its message is above",
            opt.binary, what);
    }
    if (now_ns() > end) {
        die("no %s for %u s; is the machine overloaded? See --timeout",
            what, opt.timeout);
    }
}

/* Orderly: a wrapper such as callgrind writes its figures at the end. */
void child_quit(void)
{
    uint64_t end = now_ns() + opt.timeout * NS_PER_S;
    int status = 0;

    send_text(qmp_fd, "{\"execute\": \"quit\"}\n", "quit");
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (now_ns() > end) {
            die("%s does not quit", opt.binary);
        }
        usleep(1000);
    }
    child = 0;
    remove_dir();
    if (status) {
        die("%s ended with wait status 0x%x", opt.binary, status);
    }
}

/* ---- sockets ---- */

int listen_at(const char *name)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", child_path(name));
    if (fd < 0 || bind(fd, (void *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0) {
        die("listening at %s: %m", a.sun_path);
    }
    return fd;
}

static void wait_readable(int fd, const char *what)
{
    uint64_t end = now_ns() + opt.timeout * NS_PER_S;
    struct pollfd p = { .fd = fd, .events = POLLIN };

    while (poll(&p, 1, 100) <= 0) {
        child_check(what, end);
    }
}

int accept_from(int fd, const char *what)
{
    int s;

    wait_readable(fd, what);
    s = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (s < 0) {
        die("%s: %m", what);
    }
    close(fd);
    return s;
}

/* One line without its end; the caller frees it. */
char *read_line(int fd, const char *what)
{
    size_t n = 0, room = 256;
    char *line = xalloc(1, room);

    for (;;) {
        wait_readable(fd, what);
        if (read(fd, line + n, 1) != 1) {
            die("%s closed its socket in the middle of %s", opt.binary, what);
        }
        if (line[n] == '\n') {
            line[n] = 0;
            return line;
        }
        if (++n == room) {
            room *= 2;
            line = realloc(line, room);
            if (!line) {
                die("out of memory");
            }
        }
    }
}

void send_text(int fd, const char *text, const char *what)
{
    size_t n = strlen(text);

    if (send(fd, text, n, MSG_NOSIGNAL) != (ssize_t)n) {
        die("sending %s: %m", what);
    }
}

/* ---- QMP ---- */

char *qmp(const char *cmd)
{
    char *line;

    send_text(qmp_fd, cmd, "a QMP command");
    for (;;) {
        line = read_line(qmp_fd, "a QMP answer");
        if (!strncmp(line, "{\"return\"", 9)) {
            return line;
        }
        if (!strncmp(line, "{\"error\"", 8)) {
            die("QMP command %s failed: %s", cmd, line);
        }
        free(line);     /* the greeting or an event */
    }
}

void qmp_accept(int fd)
{
    qmp_fd = accept_from(fd, "QMP connection");
    free(qmp("{\"execute\": \"qmp_capabilities\"}\n"));
}

/* The next number after KEY; moves *AT on; false at the end. */
static bool next_number(const char **at, const char *key, uint64_t *val)
{
    const char *p = strstr(*at, key);

    if (!p) {
        return false;
    }
    *at = p + strlen(key);
    return sscanf(*at, "%lu", val) == 1;
}

void qmp_iothreads(Device *d)
{
    char *answer = qmp("{\"execute\": \"query-iothreads\"}\n");
    const char *at = answer;
    uint64_t tid;

    while (d->n_iothread < MAX_IOTHREADS &&
           next_number(&at, "\"thread-id\": ", &tid)) {
        d->iothread[d->n_iothread++] = tid;
    }
    free(answer);
    if (d->n_iothread != opt.iothreads) {
        die("%s names %u iothreads instead of %u", opt.binary, d->n_iothread,
            opt.iothreads);
    }
}

/* Requests merged up to now, of all block backends. */
uint64_t qmp_merged(void)
{
    static const char *key[] = { "\"rd_merged\": ", "\"wr_merged\": " };
    char *answer = qmp("{\"execute\": \"query-blockstats\"}\n");
    uint64_t sum = 0, val;

    for (unsigned i = 0; i < ARRAY_SIZE(key); i++) {
        const char *at = answer;

        while (next_number(&at, key[i], &val)) {
            sum += val;
        }
    }
    free(answer);
    return sum;
}

/* ---- the command line ---- */

void arg(Args *a, char *s)
{
    if (a->n + 1 >= ARRAY_SIZE(a->v)) {
        die("too many arguments for %s", opt.binary);
    }
    a->v[a->n++] = s;
}

void args(Args *a, char *s, char *t)
{
    arg(a, s);
    arg(a, t);
}

/* What every binary takes: "--" long options, nodes and iothreads. */
void args_begin(Args *a)
{
    char *wrap = strdup(opt.wrap ?: ""), *save;

    for (char *p = strtok_r(wrap, " ", &save); p;
         p = strtok_r(NULL, " ", &save)) {
        arg(a, p);
    }
    arg(a, (char *)opt.binary);
    for (unsigned i = 0; i < opt.iothreads; i++) {
        args(a, "--object", opt.poll_max_ns < 0 ?
             format("iothread,id=io%u", i) :
             format("iothread,id=io%u,poll-max-ns=%d", i, opt.poll_max_ns));
    }
    for (unsigned i = 0; i < opt.n_blockdev; i++) {
        args(a, "--blockdev", (char *)opt.blockdev[i]);
    }
    for (unsigned i = 0; i < opt.n_qemu_arg; i++) {
        arg(a, (char *)opt.qemu_arg[i]);
    }
}

/* Runs a command and disturbs one of its system calls, for `python -m faults`.
 *
 *     inject [OPTION]… -- COMMAND [ARGUMENT]…
 *
 *     -a ACTION   list: write each counted call to the log. before, after: SIGKILL before or after the call. 1 to 133:
 *                 the call fails with this errno and is not executed. short: a write gets a length of one byte.
 *     -n N        at the Nth counted call; the default is 1
 *     -r          and at all later ones
 *     -c CALLS    count only these calls, separated by commas
 *     -p PATH     count only calls on paths that contain this text
 *     -x PREFIX   do not count calls on paths that begin with this; can be repeated
 *     -m TEXT     begin to count at the first call on a path that contains this text
 *     -s          begin to count at SIGUSR1; the next SIGUSR1 ends the counting
 *     -f          count the calls of child processes, and not those of the command itself; each is killed alone
 *     -o LOG      a line for each call that was disturbed, or listed: `N PID NAME PATH`
 *
 * strace counts the calls of each thread. This program counts those of all threads together, in the order in which
 * they enter the kernel, so "the Nth call" is one moment in the life of the process. It stops every call twice with
 * ptrace, at its entry and at its exit. Without -f, children are not traced,
 * and run at full speed.
 *
 * The path of a call is that of its file descriptor, or its path argument joined to its directory. TERM, INT and HUP are
 * passed on to the command. The exit code is that of the command, or 128 and the number of the signal that killed it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __x86_64__
#error "only the registers of x86_64 are known here"
#endif

/* Where the path of a call is: FD: argument 0 is a descriptor. AT: arguments 0 and 1 are a directory and a path.
 * PATH: argument 0 is a path. FD4: argument 4 is a descriptor. NONE: the call is on no path. */
enum where { NONE, FD, AT, PATH, FD4 };
static const struct call {
    long number;
    const char *name;
    enum where where;
} calls[] = {
#define CALL(name, where) {SYS_##name, #name, where},
    CALL(accept4, FD) CALL(bind, FD) CALL(brk, NONE) CALL(chdir, PATH) CALL(clone, NONE) CALL(clone3, NONE)
    CALL(close, FD) CALL(connect, FD) CALL(dup, FD) CALL(dup2, FD) CALL(dup3, FD) CALL(epoll_ctl, FD)
    CALL(epoll_wait, FD) CALL(execve, PATH) CALL(exit, NONE) CALL(exit_group, NONE) CALL(faccessat, AT)
    CALL(faccessat2, AT) CALL(fchdir, FD) CALL(fchmod, FD) CALL(fchown, FD) CALL(fcntl, FD) CALL(fdatasync, FD)
    CALL(flock, FD) CALL(fork, NONE) CALL(fstat, FD) CALL(fstatfs, FD) CALL(fsync, FD) CALL(ftruncate, FD)
    CALL(futex, NONE) CALL(getdents64, FD) CALL(geteuid, NONE) CALL(getpid, NONE) CALL(getrandom, NONE)
    CALL(getsockname, FD) CALL(getsockopt, FD) CALL(gettid, NONE) CALL(inotify_add_watch, FD) CALL(ioctl, FD)
    CALL(kill, NONE) CALL(listen, FD) CALL(lseek, FD) CALL(lstat, PATH) CALL(madvise, NONE) CALL(memfd_create, NONE)
    CALL(mkdir, PATH) CALL(mkdirat, AT) CALL(mmap, FD4) CALL(mprotect, NONE) CALL(munmap, NONE) CALL(newfstatat, AT)
    CALL(open, PATH) CALL(openat, AT) CALL(pipe2, NONE) CALL(poll, NONE) CALL(ppoll, NONE) CALL(prctl, NONE)
    CALL(pread64, FD) CALL(prlimit64, NONE) CALL(pwrite64, FD) CALL(read, FD) CALL(readlink, PATH) CALL(readlinkat, AT)
    CALL(recvfrom, FD) CALL(recvmsg, FD) CALL(rename, PATH) CALL(renameat, AT) CALL(renameat2, AT) CALL(rmdir, PATH)
    CALL(rt_sigaction, NONE) CALL(rt_sigprocmask, NONE) CALL(sendmsg, FD) CALL(sendto, FD) CALL(setsockopt, FD)
    CALL(shutdown, FD) CALL(socket, NONE) CALL(socketpair, NONE) CALL(stat, PATH) CALL(statx, AT) CALL(umask, NONE)
    CALL(unlink, PATH) CALL(unlinkat, AT) CALL(vfork, NONE) CALL(wait4, NONE) CALL(waitid, NONE) CALL(write, FD)
    CALL(writev, FD)
};

/* What is to be done at the exit of a call that a thread is in. Few threads are in a disturbed call at once. */
static struct pending {
    pid_t thread;
    int error; /* 0: SIGKILL */
} pending[64];

static enum { LIST, BEFORE, AFTER, SHORT, ERROR } action;
static int error, all_later, in_children, armed = 1;
static long at = 1, counted;
static const char *only_calls, *only_path, *marker, *excluded[8];
static FILE *out;
static pid_t child;
static volatile sig_atomic_t toggled;

static void die(const char *what)
{
    fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
    exit(125);
}

static void pass_on(int number)
{
    kill(child, number);
}

static void toggle(int number)
{
    (void)number;
    toggled ^= 1;
}

static void path_of_descriptor(pid_t thread, long descriptor, char *path)
{
    char link[64];
    ssize_t length = 0;
    if ((int)descriptor == -100) /* AT_FDCWD */
        snprintf(link, sizeof link, "/proc/%d/cwd", thread);
    else
        snprintf(link, sizeof link, "/proc/%d/fd/%d", thread, (int)descriptor);
    length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

/* Text of the command's memory, up to its end or that of its page: the next page may not be mapped. */
static void text_at(pid_t thread, unsigned long address, char *text)
{
    size_t length = 0;
    while (length < PATH_MAX - 1) {
        size_t part = 4096 - (address + length) % 4096;
        if (part > PATH_MAX - 1 - length)
            part = PATH_MAX - 1 - length;
        struct iovec here = {text + length, part}, there = {(void *)(address + length), part};
        ssize_t got = process_vm_readv(thread, &here, 1, &there, 1, 0);
        if (got <= 0)
            break;
        length += got;
        if (memchr(text + length - got, 0, got))
            return;
    }
    text[length] = 0;
}

static void path_of(pid_t thread, enum where where, const __uint64_t *arguments, char *path)
{
    char text[PATH_MAX];
    path[0] = text[0] = 0;
    if (where == NONE)
        return;
    if (where == FD4 || where == FD) {
        path_of_descriptor(thread, (long)arguments[where == FD ? 0 : 4], path);
        return;
    }
    text_at(thread, arguments[where == AT ? 1 : 0], text);
    if (text[0] != '/') {
        path_of_descriptor(thread, where == AT ? (long)arguments[0] : -100, path);
        if (text[0])
            strncat(path, "/", PATH_MAX - strlen(path) - 1);
    }
    strncat(path, text, PATH_MAX - strlen(path) - 1);
}

static int is_listed(const char *name)
{
    size_t length = strlen(name);
    for (const char *found = only_calls; (found = strstr(found, name)); found += length)
        if ((found == only_calls || found[-1] == ',') && (found[length] == 0 || found[length] == ','))
            return 1;
    return 0;
}

/* Whether a thread is one of the command itself, and not of a child process. */
static int is_own(pid_t thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d", child, thread);
    return access(path, F_OK) == 0;
}

/* Whether this call counts, with its name and path. */
static int counts(pid_t thread, const struct __ptrace_syscall_info *info, const char **name, char *path)
{
    static char unknown[32];
    enum where where = NONE;
    snprintf(unknown, sizeof unknown, "call_%ld", (long)info->entry.nr);
    *name = unknown;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i].number == (long)info->entry.nr) {
            *name = calls[i].name;
            where = calls[i].where;
        }
    if (only_calls && !is_listed(*name))
        return 0;
    path_of(thread, where, info->entry.args, path);
    if (marker && strstr(path, marker))
        marker = NULL;
    if (marker || !armed || (only_path && !strstr(path, only_path)))
        return 0;
    for (int i = 0; excluded[i]; i++)
        if (!strncmp(path, excluded[i], strlen(excluded[i])))
            return 0;
    return !in_children || !is_own(thread);
}

static void at_exit_of(pid_t thread, int what)
{
    for (size_t i = 0; i < sizeof pending / sizeof *pending; i++)
        if (!pending[i].thread) {
            pending[i] = (struct pending){thread, what};
            return;
        }
    errno = EAGAIN;
    die("too many threads are in a disturbed call");
}

static void entry(pid_t thread, const struct __ptrace_syscall_info *info)
{
    char path[PATH_MAX];
    const char *name;
    struct user_regs_struct registers;
    if (!counts(thread, info, &name, path))
        return;
    counted++;
    if (action != LIST && counted != at && !(all_later && counted > at))
        return;
    fprintf(out, "%ld %d %s %s\n", counted, thread, name, path);
    fflush(out);
    if (action == LIST || ptrace(PTRACE_GETREGS, thread, 0, &registers))
        return;
    if (action == AFTER) {
        at_exit_of(thread, 0);
        return;
    }
    if (action == SHORT)
        registers.rdx = 1; /* the third argument, the length */
    else
        registers.orig_rax = -1; /* no such call: nothing is executed */
    ptrace(PTRACE_SETREGS, thread, 0, &registers);
    if (action == BEFORE)
        kill(in_children ? thread : child, SIGKILL);
    if (action == ERROR)
        at_exit_of(thread, error);
}

static void leave(pid_t thread)
{
    struct user_regs_struct registers;
    for (size_t i = 0; i < sizeof pending / sizeof *pending; i++) {
        if (pending[i].thread != thread)
            continue;
        pending[i].thread = 0;
        if (!pending[i].error)
            kill(in_children ? thread : child, SIGKILL);
        else if (!ptrace(PTRACE_GETREGS, thread, 0, &registers)) {
            registers.rax = -pending[i].error;
            ptrace(PTRACE_SETREGS, thread, 0, &registers);
        }
    }
}

static void start(char **command, int on_signal)
{
    int ready[2];
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    char byte;
    if (in_children)
        options |= PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
    if (pipe(ready) || (child = fork()) < 0)
        die("fork");
    if (!child) {
        close(ready[1]);
        if (read(ready[0], &byte, 1) < 0) /* until the parent traces this process */
            die("read");
        close(ready[0]);
        execvp(command[0], command);
        die(command[0]);
    }
    close(ready[0]);
    if (ptrace(PTRACE_SEIZE, child, 0, options) || ptrace(PTRACE_INTERRUPT, child, 0, 0))
        die("ptrace");
    close(ready[1]);
    int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &(struct sigaction){.sa_handler = pass_on, .sa_flags = SA_RESTART}, NULL);
    armed = !on_signal;
    if (on_signal)
        sigaction(SIGUSR1, &(struct sigaction){.sa_handler = toggle}, NULL);
}

int main(int argc, char **argv)
{
    int option, on_signal = 0, exclusions = 0, status;
    out = stderr;
    while ((option = getopt(argc, argv, "+a:n:rc:p:x:m:sfo:")) != -1)
        switch (option) {
        case 'a':
            action = !strcmp(optarg, "list") ? LIST : !strcmp(optarg, "before") ? BEFORE : !strcmp(optarg, "after") ? AFTER
                : !strcmp(optarg, "short") ? SHORT : ERROR;
            error = atoi(optarg);
            break;
        case 'n': at = atol(optarg); break;
        case 'r': all_later = 1; break;
        case 'c': only_calls = optarg; break;
        case 'p': only_path = optarg; break;
        case 'x': if (exclusions < 7) excluded[exclusions++] = optarg; break;
        case 'm': marker = optarg; break;
        case 's': on_signal = 1; break;
        case 'f': in_children = 1; break;
        case 'o': if (!(out = fopen(optarg, "we"))) die(optarg); break;
        default: return 125;
        }
    if (optind == argc || (action == ERROR && (error < 1 || error > 133)))
        return 125;
    start(argv + optind, on_signal);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (on_signal)
            armed = toggled;
        if (thread < 0) {
            if (errno == EINTR)
                continue;
            die("waitpid");
        }
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == child)
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        int number = WSTOPSIG(status), event = status >> 16;
        struct __ptrace_syscall_info info;
        if (number == (SIGTRAP | 0x80)) {
            if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) > 0) {
                if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
                    entry(thread, &info);
                else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
                    leave(thread);
            }
            number = 0;
        } else if (event) {
            if (event == PTRACE_EVENT_STOP && number != SIGTRAP) {
                ptrace(PTRACE_LISTEN, thread, 0, 0); /* it was stopped by a signal, and stays so until SIGCONT */
                continue;
            }
            number = 0;
        }
        ptrace(PTRACE_SYSCALL, thread, 0, number);
    }
}

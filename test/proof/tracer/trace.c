/*
 * Runs a command and counts, over all its threads and children, every system call that changes a file system below
 * the watched directories; at the Nth it kills, signals, or makes the call fail.
 *
 * Why a tracer, and not a preload shim or strace: a shim does not see static programs nor the raw calls of libuv and
 * FFI; strace counts for each thread by itself, so "the Nth" would not be one point in time. Here seccomp stops the
 * calling thread before the call, one process decides, and one counter orders them all.
 *
 *   trace --log FILE --watch DIR [--watch DIR]... [--fault KIND --at N [--sticky]] -- COMMAND ARG...
 *
 * KIND is count, kill (all processes), kill-main (the command alone, children live on), term, short (half of a write of
 * the command's own is taken and the next write finds the disk full, once: what a disk does on which somebody frees a
 * little; a half write alone would be hidden by libuv, which writes the rest; what children make of it is their affair),
 * or an errno name. The log has one line for each counted call, "N PID CALL PATH", with "HIT" before the one that the
 * fault met, and ends with "exit CODE" or "signal NUMBER". Exit status: 0 unless the tracer itself failed. x86-64 only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum how {
  BY_FD,       /* acts on the file of descriptor arg */
  BY_PATH,     /* path at arg, relative to the working directory */
  BY_AT,       /* directory descriptor at arg, path at arg + 1 */
};

enum group { CREATE = 1, WRITE = 2, SYNC = 4, CHANGE = 8, REMOVE = 16, OPEN = 32, CLOSE = 64, CONTROL = 128 };

struct call {
  long number;
  const char *name;
  enum how how;
  int argument;
  enum group group;
};

static const struct call calls[] = {
    {SYS_open, "open", BY_PATH, 0, OPEN},
    {SYS_creat, "creat", BY_PATH, 0, OPEN},
    {SYS_openat, "openat", BY_AT, 0, OPEN},
    {SYS_openat2, "openat2", BY_AT, 0, OPEN},
    {SYS_write, "write", BY_FD, 0, WRITE},
    {SYS_pwrite64, "pwrite64", BY_FD, 0, WRITE},
    {SYS_writev, "writev", BY_FD, 0, WRITE},
    {SYS_pwritev, "pwritev", BY_FD, 0, WRITE},
    {SYS_pwritev2, "pwritev2", BY_FD, 0, WRITE},
    {SYS_sendfile, "sendfile", BY_FD, 0, WRITE},
    {SYS_splice, "splice", BY_FD, 2, WRITE},
    {SYS_copy_file_range, "copy_file_range", BY_FD, 2, WRITE},
    {SYS_fallocate, "fallocate", BY_FD, 0, CREATE},
    {SYS_ftruncate, "ftruncate", BY_FD, 0, CHANGE},
    {SYS_truncate, "truncate", BY_PATH, 0, CHANGE},
    {SYS_mkdir, "mkdir", BY_PATH, 0, CREATE},
    {SYS_mkdirat, "mkdirat", BY_AT, 0, CREATE},
    {SYS_mknod, "mknod", BY_PATH, 0, CREATE},
    {SYS_mknodat, "mknodat", BY_AT, 0, CREATE},
    {SYS_symlink, "symlink", BY_PATH, 1, CREATE},
    {SYS_symlinkat, "symlinkat", BY_AT, 1, CREATE},
    {SYS_link, "link", BY_PATH, 1, CREATE},
    {SYS_linkat, "linkat", BY_AT, 2, CREATE},
    {SYS_rename, "rename", BY_PATH, 1, CREATE},
    {SYS_renameat, "renameat", BY_AT, 2, CREATE},
    {SYS_renameat2, "renameat2", BY_AT, 2, CREATE},
    {SYS_unlink, "unlink", BY_PATH, 0, REMOVE},
    {SYS_unlinkat, "unlinkat", BY_AT, 0, REMOVE},
    {SYS_rmdir, "rmdir", BY_PATH, 0, REMOVE},
    {SYS_chmod, "chmod", BY_PATH, 0, CHANGE},
    {SYS_fchmod, "fchmod", BY_FD, 0, CHANGE},
    {SYS_fchmodat, "fchmodat", BY_AT, 0, CHANGE},
    {SYS_chown, "chown", BY_PATH, 0, CHANGE},
    {SYS_lchown, "lchown", BY_PATH, 0, CHANGE},
    {SYS_fchown, "fchown", BY_FD, 0, CHANGE},
    {SYS_fchownat, "fchownat", BY_AT, 0, CHANGE},
    {SYS_utimensat, "utimensat", BY_AT, 0, CHANGE},
    {SYS_setxattr, "setxattr", BY_PATH, 0, CREATE},
    {SYS_lsetxattr, "lsetxattr", BY_PATH, 0, CREATE},
    {SYS_fsetxattr, "fsetxattr", BY_FD, 0, CREATE},
    {SYS_removexattr, "removexattr", BY_PATH, 0, CHANGE},
    {SYS_lremovexattr, "lremovexattr", BY_PATH, 0, CHANGE},
    {SYS_fremovexattr, "fremovexattr", BY_FD, 0, CHANGE},
    {SYS_fsync, "fsync", BY_FD, 0, SYNC},
    {SYS_fdatasync, "fdatasync", BY_FD, 0, SYNC},
    {SYS_syncfs, "syncfs", BY_FD, 0, SYNC},
    {SYS_sync_file_range, "sync_file_range", BY_FD, 0, SYNC},
    {SYS_ioctl, "ioctl", BY_FD, 0, CONTROL},
    {SYS_close, "close", BY_FD, 0, CLOSE},
};
#define CALLS (sizeof calls / sizeof *calls)

/* The ioctls that change something; others are reads and are not counted. */
static const struct { unsigned long request; const char *name; } controls[] = {
    {0xc0045877, "FIFREEZE"}, {0xc0045878, "FITHAW"},     {0x40806685, "FS_IOC_ENABLE_VERITY"},
    {0x40049409, "FICLONE"},  {0x4020940d, "FICLONERANGE"}, {0x40086602, "FS_IOC_SETFLAGS"},
};

/* Where each fault can happen. A kernel does not answer every call with every error. */
static const struct { const char *name; int error; int groups; } faults[] = {
    {"count", 0, CREATE | WRITE | SYNC | CHANGE | REMOVE | OPEN | CONTROL},
    {"kill", 0, CREATE | WRITE | SYNC | CHANGE | REMOVE | OPEN | CONTROL},
    {"kill-main", 0, CREATE | WRITE | SYNC | CHANGE | REMOVE | OPEN | CONTROL},
    {"term", 0, CREATE | WRITE | SYNC | CHANGE | REMOVE | OPEN | CONTROL},
    {"short", 0, WRITE},
    {"ENOSPC", ENOSPC, CREATE | WRITE | SYNC | OPEN | CONTROL},
    {"EDQUOT", EDQUOT, CREATE | WRITE | SYNC | OPEN | CONTROL},
    {"EIO", EIO, CREATE | WRITE | SYNC | CHANGE | REMOVE | OPEN | CLOSE | CONTROL},
    {"EROFS", EROFS, CREATE | CHANGE | REMOVE | OPEN | CONTROL},
    {"EMFILE", EMFILE, OPEN},
};
#define FAULTS (sizeof faults / sizeof *faults)

static int fault;
static long fault_at = -1, counted;
static int sticky, any_open, full;
static const char *watch[16];
static int watches;
static FILE *log_file;
static pid_t main_pid;
static pid_t processes[4096];
static int process_count;

static void die(const char *what) {
  fprintf(stderr, "trace: %s: %s\n", what, strerror(errno));
  exit(125);
}

static int is_watched(const char *path) {
  for (int i = 0; i < watches; i++) {
    size_t length = strlen(watch[i]);
    if (strncmp(path, watch[i], length) == 0 && (path[length] == '/' || path[length] == '\0')) return 1;
  }
  return 0;
}

static void read_link(const char *link, char *out) {
  ssize_t length = readlink(link, out, PATH_MAX - 1);
  out[length < 0 ? 0 : length] = '\0';
}

static void fd_path(pid_t pid, int fd, char *out) {
  char link[64];
  if (fd == AT_FDCWD)
    snprintf(link, sizeof link, "/proc/%d/cwd", pid);
  else
    snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, fd);
  read_link(link, out);
}

static void read_text(pid_t pid, uint64_t address, char *out, size_t size) {
  size_t done = 0;
  while (done < size - 1) {
    /* Page by page, so that a text at the end of a mapping is read too. */
    size_t chunk = 4096 - (address + done) % 4096;
    if (chunk > size - 1 - done) chunk = size - 1 - done;
    struct iovec to = {out + done, chunk}, from = {(void *)(address + done), chunk};
    ssize_t got = process_vm_readv(pid, &to, 1, &from, 1, 0);
    if (got <= 0) break;
    if (memchr(out + done, '\0', got)) return;
    done += got;
  }
  out[done] = '\0';
}

/* The absolute path a call acts on; symbolic links in it are not resolved. */
static void call_path(pid_t pid, const struct call *call, const uint64_t *args, char *out) {
  char text[PATH_MAX], base[PATH_MAX];
  if (call->how == BY_FD) {
    fd_path(pid, (int)args[call->argument], out);
    return;
  }
  int directory = call->how == BY_AT ? (int)args[call->argument] : AT_FDCWD;
  uint64_t address = args[call->how == BY_AT ? call->argument + 1 : call->argument];
  text[0] = '\0';
  if (address) read_text(pid, address, text, sizeof text);
  int fd;
  if (sscanf(text, "/proc/self/fd/%d", &fd) == 1) {
    fd_path(pid, fd, out);
  } else if (text[0] == '/') {
    snprintf(out, PATH_MAX, "%s", text);
  } else {
    fd_path(pid, directory, base);
    if (text[0])
      snprintf(out, PATH_MAX, "%.2000s/%.2000s", base, text);
    else
      snprintf(out, PATH_MAX, "%s", base);
  }
}

static uint64_t open_flags(pid_t pid, long number, const uint64_t *args) {
  if (number == SYS_open) return args[1];
  if (number == SYS_creat) return O_CREAT | O_WRONLY;
  if (number == SYS_openat) return args[2];
  uint64_t flags = 0;
  struct iovec to = {&flags, sizeof flags}, from = {(void *)args[2], sizeof flags};
  return process_vm_readv(pid, &to, 1, &from, 1, 0) == sizeof flags ? flags : 0;
}

static int fd_is_writable(pid_t pid, int fd) {
  char name[64], line[128];
  unsigned long flags = 0;
  snprintf(name, sizeof name, "/proc/%d/fdinfo/%d", pid, fd);
  FILE *info = fopen(name, "re");
  if (!info) return 0;
  while (fgets(line, sizeof line, info))
    if (sscanf(line, "flags: %lo", &flags) == 1) break;
  fclose(info);
  return (flags & O_ACCMODE) != O_RDONLY;
}

/* The process that a thread is of. */
static pid_t process_of(pid_t thread) {
  char name[64], line[128];
  pid_t process = 0;
  snprintf(name, sizeof name, "/proc/%d/status", thread);
  FILE *status = fopen(name, "re");
  if (!status) return 0;
  while (fgets(line, sizeof line, status))
    if (sscanf(line, "Tgid: %d", &process) == 1) break;
  fclose(status);
  return process;
}

/* Whether the call is one that counts, and the words for it. */
static int counts(pid_t pid, const struct call *call, const uint64_t *args, char *name, char *path) {
  if (!(faults[fault].groups & call->group)) return 0;
  if (!strcmp(faults[fault].name, "short") && process_of(pid) != main_pid) return 0;
  snprintf(name, 64, "%s", call->name);
  if (call->group == OPEN) {
    uint64_t flags = open_flags(pid, call->number, args);
    int changes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    if (!changes && !any_open) return 0;
    /* A file that is opened for writing only is not created: nothing to run out of. */
    if (faults[fault].error == ENOSPC && !(flags & O_CREAT) && (flags & O_TMPFILE) != O_TMPFILE) return 0;
  }
  if (call->group == CONTROL) {
    size_t i;
    for (i = 0; i < sizeof controls / sizeof *controls; i++)
      if ((args[1] & 0xffffffff) == controls[i].request) break;
    if (i == sizeof controls / sizeof *controls) return 0;
    /* Thawing asks nothing of the disk: no kernel refuses it for want of space or for an error. */
    if (faults[fault].error && !strcmp(controls[i].name, "FITHAW")) return 0;
    snprintf(name, 64, "ioctl(%s)", controls[i].name);
  }
  if (call->group == CLOSE && !fd_is_writable(pid, (int)args[0])) return 0;
  call_path(pid, call, args, path);
  return is_watched(path);
}

static void kill_all(void) {
  kill(main_pid, SIGKILL);
  for (int i = 0; i < process_count; i++) kill(processes[i], SIGKILL);
}

/* Says whether the call must be resumed to its end first, to have its answer changed there. */
static int at_call(pid_t pid) {
  struct user_regs_struct regs;
  if (ptrace(PTRACE_GETREGS, pid, 0, &regs) != 0) return 0;
  const uint64_t args[6] = {regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9};
  const struct call *call = NULL;
  for (size_t i = 0; i < CALLS; i++)
    if (calls[i].number == (long)regs.orig_rax) call = &calls[i];
  if (!call) return 0;
  char name[64], path[PATH_MAX];
  if (!counts(pid, call, args, name, path)) return 0;
  counted++;
  int hit = fault > 0 && fault_at >= 0 && (sticky ? counted >= fault_at : counted == fault_at);
  fprintf(log_file, "%s%ld %d %s %s\n", hit ? "HIT " : "", counted, pid, name, path);
  fflush(log_file);
  if (full) {
    full = 0;
    regs.orig_rax = -1;
    regs.rax = -ENOSPC;
    ptrace(PTRACE_SETREGS, pid, 0, &regs);
    return 0;
  }
  if (!hit) return 0;
  const char *kind = faults[fault].name;
  if (!strcmp(kind, "kill")) {
    kill_all();
  } else if (!strcmp(kind, "kill-main")) {
    kill(main_pid, SIGKILL);
  } else if (!strcmp(kind, "term")) {
    kill(main_pid, SIGTERM);
  } else if (!strcmp(kind, "short")) {
    int vector = call->number == SYS_writev || call->number == SYS_pwritev || call->number == SYS_pwritev2;
    if (!vector && call->number != SYS_copy_file_range && call->number != SYS_splice && regs.rdx > 1) regs.rdx /= 2;
    if (vector && regs.rdx > 1) regs.rdx /= 2;
    full = 1;
    ptrace(PTRACE_SETREGS, pid, 0, &regs);
  } else if (call->group == CLOSE) {
    return 1; /* the descriptor is gone even when close fails */
  } else {
    regs.orig_rax = -1;
    regs.rax = -faults[fault].error;
    ptrace(PTRACE_SETREGS, pid, 0, &regs);
  }
  return 0;
}

static void install_filter(void) {
  struct sock_filter filter[CALLS + 16];
  int n = 0;
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
  filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  /* What io_uring does is seen by no filter: programs must do without it. */
  filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1);
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
  for (size_t i = 0; i < CALLS; i++)
    if (faults[fault].groups & calls[i].group)
      filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i].number, 0, 0);
  int end = n;
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
  for (int i = 6; i < end; i++) filter[i].jt = (unsigned char)(end - i);
  struct sock_fprog program = {(unsigned short)n, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) die("no_new_privs");
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) die("seccomp");
}

static void start(char **command) {
  int gate[2];
  if (pipe2(gate, O_CLOEXEC) != 0) die("pipe");
  main_pid = fork();
  if (main_pid < 0) die("fork");
  if (main_pid == 0) {
    char go;
    if (read(gate[0], &go, 1) != 1) _exit(125);
    install_filter();
    execvp(command[0], command);
    die(command[0]);
  }
  long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                 PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD;
  if (ptrace(PTRACE_SEIZE, main_pid, 0, options) != 0) die("ptrace");
  if (write(gate[1], "", 1) != 1) die("pipe");
}

static void run(void) {
  int status, result = -1;
  pid_t pid;
  while ((pid = waitpid(-1, &status, __WALL)) > 0) {
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      if (pid == main_pid) result = status;
      continue;
    }
    int event = status >> 16, signal = WSTOPSIG(status);
    long resume = PTRACE_CONT, deliver = 0;
    if (event == PTRACE_EVENT_SECCOMP) {
      if (at_call(pid)) resume = PTRACE_SYSCALL;
    } else if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
      unsigned long child;
      if (ptrace(PTRACE_GETEVENTMSG, pid, 0, &child) == 0 && process_count < 4096)
        processes[process_count++] = (pid_t)child;
    } else if (signal == (SIGTRAP | 0x80)) {
      /* After seccomp's stop come the call's entry and its exit; the entry still says ENOSYS. */
      struct user_regs_struct regs;
      if (ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0) {
        if ((long)regs.rax == -ENOSYS) {
          resume = PTRACE_SYSCALL;
        } else {
          regs.rax = -faults[fault].error;
          ptrace(PTRACE_SETREGS, pid, 0, &regs);
        }
      }
    } else if (event == PTRACE_EVENT_STOP) {
      if (signal != SIGTRAP) resume = PTRACE_LISTEN;
    } else if (event == 0) {
      deliver = signal;
    }
    ptrace(resume, pid, 0, deliver);
  }
  if (result >= 0 && WIFEXITED(result))
    fprintf(log_file, "exit %d\n", WEXITSTATUS(result));
  else
    fprintf(log_file, "signal %d\n", result >= 0 ? WTERMSIG(result) : 0);
  fclose(log_file);
}

int main(int argc, char **argv) {
  const char *log_name = NULL;
  int i = 1;
  for (; i < argc && strcmp(argv[i], "--"); i++) {
    if (!strcmp(argv[i], "--sticky")) {
      sticky = 1;
    } else if (i + 1 >= argc) {
      break;
    } else if (!strcmp(argv[i], "--log")) {
      log_name = argv[++i];
    } else if (!strcmp(argv[i], "--watch") && watches < 16) {
      watch[watches++] = argv[++i];
    } else if (!strcmp(argv[i], "--at")) {
      fault_at = atol(argv[++i]);
    } else if (!strcmp(argv[i], "--fault")) {
      const char *name = argv[++i];
      for (fault = 0; fault < (int)FAULTS && strcmp(faults[fault].name, name); fault++) {
      }
      if (fault == (int)FAULTS) break;
    } else {
      break;
    }
  }
  if (i + 1 >= argc || !log_name || watches == 0 || fault == (int)FAULTS) {
    fprintf(stderr, "usage: trace --log FILE --watch DIR... [--fault KIND --at N [--sticky]] -- COMMAND ARG...\n");
    return 125;
  }
  any_open = faults[fault].error == EMFILE;
  log_file = fopen(log_name, "we");
  if (!log_file) die(log_name);
  start(argv + i + 1);
  run();
  return 0;
}

/*
 * Serves disk images as files of a FUSE file system and records, in one timeline, every write and flush that reaches
 * them: loop devices or a virtual machine stand on top. The images themselves are never changed.
 *
 * Why not qemu-storage-daemon's blklogwrites: it logs one device. Crash states of two disks (root and boot) need the
 * order of both disks' writes, and which disk a flush was for.
 *
 *   recorder MOUNTPOINT LOG NAME=IMAGE...
 *
 * Prints "ready" when mounted; ends on SIGTERM or when unmounted. Besides the disks there is a file "mark": what is
 * written to it stands in the log between the writes before and after it.
 *
 * Log record, little-endian: u8 type (1 write, 2 flush, 3 mark, 4 zeroes), u8 device (order of the arguments), u16 0,
 * u32 length, u64 offset, then `length` bytes for types 1 and 3. A flush counts when it is logged: every write before it
 * on that device is durable.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAX_DEVICES = 240, MARK_NODE = 2, FIRST_DEVICE_NODE = 3, MAX_WRITE = 1 << 20 };

struct device {
  const char *name;
  uint8_t *bytes;
  uint64_t size;
};

static struct device devices[MAX_DEVICES];
static int device_count;
static FILE *log_file;
static int fuse_fd;
static const char *mount_point;

static void die(const char *what) {
  fprintf(stderr, "recorder: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void record(int type, int device, uint32_t length, uint64_t offset, const void *data) {
  uint8_t header[16] = {(uint8_t)type, (uint8_t)device};
  memcpy(header + 4, &length, 4);
  memcpy(header + 8, &offset, 8);
  fwrite(header, sizeof header, 1, log_file);
  if (data) fwrite(data, 1, length, log_file);
  /* Marks and flushes are where a reader may want to look at once. */
  if (!data || type == 3) fflush(log_file);
  if (ferror(log_file)) die("log");
}

static void reply(const struct fuse_in_header *in, int error, const void *data, size_t length) {
  struct fuse_out_header out = {(uint32_t)(sizeof out + length), error, in->unique};
  struct iovec parts[2] = {{&out, sizeof out}, {(void *)data, length}};
  /* ENOENT: the request was interrupted and nobody waits for the answer. */
  if (writev(fuse_fd, parts, length ? 2 : 1) < 0 && errno != ENOENT) die("reply");
}

static struct device *device_of(uint64_t node) {
  if (node < FIRST_DEVICE_NODE || node >= (uint64_t)(FIRST_DEVICE_NODE + device_count)) return NULL;
  return &devices[node - FIRST_DEVICE_NODE];
}

static struct fuse_attr attributes(uint64_t node) {
  struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = 4096, .mode = S_IFREG | 0600};
  struct device *device = device_of(node);
  if (node == FUSE_ROOT_ID) attr.mode = S_IFDIR | 0700;
  if (device) {
    attr.size = device->size;
    attr.blocks = device->size / 512;
  }
  return attr;
}

static void lookup(const struct fuse_in_header *in, const char *name) {
  uint64_t node = strcmp(name, "mark") == 0 ? MARK_NODE : 0;
  for (int i = 0; i < device_count; i++)
    if (strcmp(name, devices[i].name) == 0) node = (uint64_t)(FIRST_DEVICE_NODE + i);
  if (!node) {
    reply(in, -ENOENT, NULL, 0);
    return;
  }
  struct fuse_entry_out out = {.nodeid = node, .entry_valid = 3600, .attr_valid = 3600, .attr = attributes(node)};
  reply(in, 0, &out, sizeof out);
}

static void read_device(const struct fuse_in_header *in, const struct fuse_read_in *arg) {
  struct device *device = device_of(in->nodeid);
  if (!device) {
    reply(in, 0, NULL, 0);
    return;
  }
  uint64_t length = arg->offset >= device->size ? 0 : device->size - arg->offset;
  if (length > arg->size) length = arg->size;
  reply(in, 0, device->bytes + arg->offset, length);
}

static void write_device(const struct fuse_in_header *in, const struct fuse_write_in *arg) {
  const void *data = arg + 1;
  struct device *device = device_of(in->nodeid);
  if (in->nodeid == MARK_NODE) {
    record(3, 0, arg->size, 0, data);
  } else if (!device || arg->offset > device->size || arg->size > device->size - arg->offset) {
    reply(in, -ENOSPC, NULL, 0);
    return;
  } else {
    memcpy(device->bytes + arg->offset, data, arg->size);
    record(1, (int)(device - devices), arg->size, arg->offset, data);
  }
  struct fuse_write_out out = {.size = arg->size};
  reply(in, 0, &out, sizeof out);
}

static void zero_device(const struct fuse_in_header *in, const struct fuse_fallocate_in *arg) {
  struct device *device = device_of(in->nodeid);
  if (!device || !(arg->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))) {
    reply(in, -EOPNOTSUPP, NULL, 0);
    return;
  }
  if (arg->offset > device->size || arg->length > device->size - arg->offset || arg->length > UINT32_MAX) {
    reply(in, -EINVAL, NULL, 0);
    return;
  }
  memset(device->bytes + arg->offset, 0, arg->length);
  record(4, (int)(device - devices), (uint32_t)arg->length, arg->offset, NULL);
  reply(in, 0, NULL, 0);
}

static void initialise(const struct fuse_in_header *in, const struct fuse_init_in *arg) {
  struct fuse_init_out out = {
      .major = FUSE_KERNEL_VERSION,
      .minor = FUSE_KERNEL_MINOR_VERSION < arg->minor ? FUSE_KERNEL_MINOR_VERSION : arg->minor,
      .max_readahead = 0,
      .flags = arg->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_ASYNC_READ),
      .max_background = 16,
      .congestion_threshold = 12,
      .max_write = MAX_WRITE,
      .max_pages = MAX_WRITE / 4096,
      .time_gran = 1,
  };
  reply(in, 0, &out, sizeof out);
}

static void serve(const struct fuse_in_header *in) {
  const void *arg = in + 1;
  switch (in->opcode) {
    case FUSE_INIT:
      initialise(in, arg);
      break;
    case FUSE_LOOKUP:
      lookup(in, arg);
      break;
    case FUSE_GETATTR:
    case FUSE_SETATTR: {
      struct fuse_attr_out out = {.attr_valid = 3600, .attr = attributes(in->nodeid)};
      reply(in, 0, &out, sizeof out);
      break;
    }
    case FUSE_OPEN: {
      struct fuse_open_out out = {.open_flags = FOPEN_DIRECT_IO};
      reply(in, 0, &out, sizeof out);
      break;
    }
    case FUSE_READ:
      read_device(in, arg);
      break;
    case FUSE_WRITE:
      write_device(in, arg);
      break;
    case FUSE_FSYNC:
      if (device_of(in->nodeid)) record(2, (int)(in->nodeid - FIRST_DEVICE_NODE), 0, 0, NULL);
      reply(in, 0, NULL, 0);
      break;
    case FUSE_FALLOCATE:
      zero_device(in, arg);
      break;
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_ACCESS:
    case FUSE_DESTROY:
      reply(in, 0, NULL, 0);
      break;
    case FUSE_STATFS: {
      struct fuse_statfs_out out = {.st = {.bsize = 4096, .namelen = 255, .frsize = 4096}};
      reply(in, 0, &out, sizeof out);
      break;
    }
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
      break; /* these have no answer */
    default:
      reply(in, -ENOSYS, NULL, 0);
  }
}

static void on_signal(int number) {
  (void)number;
  umount2(mount_point, MNT_DETACH);
}

int main(int argc, char **argv) {
  if (argc < 4 || argc - 3 > MAX_DEVICES) {
    fprintf(stderr, "usage: recorder MOUNTPOINT LOG NAME=IMAGE...\n");
    return 2;
  }
  mount_point = argv[1];
  log_file = fopen(argv[2], "wbe");
  if (!log_file) die(argv[2]);
  for (int i = 3; i < argc; i++) {
    char *image = strchr(argv[i], '=');
    if (!image) die(argv[i]);
    *image++ = '\0';
    int fd = open(image, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) != 0) die(image);
    uint8_t *bytes = mmap(NULL, (size_t)stat.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (bytes == MAP_FAILED) die(image);
    devices[device_count++] = (struct device){argv[i], bytes, (uint64_t)stat.st_size};
    close(fd);
  }
  fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fuse_fd < 0) die("/dev/fuse");
  char options[128];
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse_fd);
  if (mount("recorder", mount_point, "fuse", MS_NOSUID | MS_NODEV, options) != 0) die(mount_point);
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  puts("ready");
  fflush(stdout);
  size_t size = MAX_WRITE + 65536;
  uint8_t *buffer = aligned_alloc(4096, size);
  for (;;) {
    ssize_t length = read(fuse_fd, buffer, size);
    if (length < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) continue;
    if (length < 0 && errno == ENODEV) break;
    if (length < (ssize_t)sizeof(struct fuse_in_header)) die("read");
    serve((struct fuse_in_header *)buffer);
  }
  return fclose(log_file) == 0 ? 0 : 1;
}

/* What the kernel's calls by path say of /srv/tree, in a form that is the same natively and plugged. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static void say(const char *what, long result) { printf("%s %ld %s\n", what, result, result < 0 ? strerrorname_np(errno) : ""); }
static void attributes(const char *what, const struct stat *s) {
    printf("%s mode %o links %ld owner %u:%u size %ld mtime %ld.%ld\n", what, s->st_mode, (long)s->st_nlink, s->st_uid, s->st_gid,
           (long)s->st_size, s->st_mtim.tv_sec, s->st_mtim.tv_nsec);
}
static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }
static void opens(const char *what, const char *path, int flags) {
    int fd = open(path, flags);
    if (fd < 0) { say(what, -1); return; }
    printf("%s ok cloexec %d nonblock %d\n", what, fcntl(fd, F_GETFD), !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    close(fd);
}

int main(void) {
    struct dirent **names;
    int n = scandir("/srv/tree", &names, NULL, by_name);
    for (int i = 0; i < n; i++) printf("entry %s %d\n", names[i]->d_name, names[i]->d_type);
    struct stat a, b;
    say("stat", stat("/srv/tree/small", &a)); attributes("stat", &a);
    say("lstat", lstat("/srv/tree/link", &b)); attributes("lstat", &b);
    say("stat link", stat("/srv/tree/link", &b)); attributes("stat link", &b);
    int fd = open("/srv/tree/small", O_RDONLY);
    fstat(fd, &b); attributes("fstat", &b);
    printf("same file %d\n", a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    struct statx x;
    say("statx", statx(AT_FDCWD, "/srv/tree/small", 0, STATX_BASIC_STATS, &x));
    printf("statx %o %llu %lld.%u %d\n", x.stx_mode, x.stx_size, x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec, x.stx_ino == a.st_ino);
    char text[PATH_MAX];
    int directory = open("/srv/tree", O_RDONLY | O_DIRECTORY), below = openat(directory, "sub/deep", O_RDONLY);
    say("read below", read(below, text, sizeof text));
    say("fstatat", fstatat(directory, "link", &b, AT_SYMLINK_NOFOLLOW)); attributes("fstatat", &b);
    say("fstatat dot", fstatat(directory, ".", &b, 0)); printf("directory %d\n", S_ISDIR(b.st_mode));
    say("fstatat empty", fstatat(directory, "", &b, AT_EMPTY_PATH)); printf("directory %d\n", S_ISDIR(b.st_mode));
    say("faccessat", faccessat(directory, "small", R_OK, 0));
    say("faccessat none", faccessat(directory, "none", F_OK, 0));
    say("unlinked dirfd", openat(999, "small", O_RDONLY));
    say("fchdir", fchdir(directory));
    say("relative", open("sub/deep", O_RDONLY) < 0 ? -1 : 0);
    chdir("/");
    struct open_how how = {.flags = O_RDONLY};
    int second = syscall(SYS_openat2, AT_FDCWD, "/srv/tree/small", &how, sizeof how);
    say("openat2 read", read(second, text, sizeof text));
    memset(text, 0, sizeof text);
    say("readlink", readlink("/srv/tree/link", text, sizeof text)); puts(text);
    say("readlink short", readlink("/srv/tree/link", text, 3));
    say("readlink file", readlink("/srv/tree/small", text, sizeof text));
    say("readlink zero", readlink("/srv/tree/link", text, 0));
    sprintf(text, "/proc/self/fd/%d", fd);
    char path[PATH_MAX] = ""; say("readlink fd", readlink(text, path, sizeof path)); puts(path);
    opens("plain", "/srv/tree/small", O_RDONLY);
    opens("cloexec", "/srv/tree/small", O_RDONLY | O_CLOEXEC);
    opens("nonblock", "/srv/tree/small", O_RDONLY | O_NONBLOCK);
    opens("directory", "/srv/tree/small", O_RDONLY | O_DIRECTORY);
    opens("nofollow", "/srv/tree/link", O_RDONLY | O_NOFOLLOW);
    opens("dangling", "/srv/tree/dangling", O_RDONLY);
    opens("loop", "/srv/tree/loop", O_RDONLY);
    opens("through file", "/srv/tree/small/x", O_RDONLY);
    opens("slash", "/srv/tree/small/", O_RDONLY);
    opens("o_path", "/srv/tree/sub", O_PATH | O_CLOEXEC);
    opens("empty", "", O_RDONLY);
    opens("fault", (char *)8, O_RDONLY);
    char *longest = malloc(5000); memset(longest, 'x', 4999); longest[0] = '/'; longest[4999] = 0;
    opens("long", longest, O_RDONLY);
    say("stat fault", stat("/srv/tree/small", (void *)8));
    say("access", access("/srv/tree/small", R_OK));
    struct statfs f; say("statfs", statfs("/srv/tree", &f)); printf("type %lx name %ld\n", (long)f.f_type, (long)f.f_namelen);
    say("getxattr", getxattr("/srv/tree/small", "user.x", text, 10) < 0 ? 0 : 1);
    int big = open("/srv/tree/big", O_RDONLY);
    fstat(big, &b);
    unsigned char *map = mmap(NULL, b.st_size, PROT_READ, MAP_PRIVATE, big, 0);
    unsigned long sum = 0; for (long i = 0; i < b.st_size; i++) sum = sum * 31 + map[i];
    printf("mapped %lx\n", sum);
    say("flock", flock(big, LOCK_EX | LOCK_NB));
    say("lseek", lseek(big, -3, SEEK_END)); say("read", read(big, text, 10)); say("end", read(big, text, 10));
    return 0;
}

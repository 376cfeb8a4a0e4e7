/* What the system call programs share: print a result with its errno, and an address without its random port. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEPENDENCY "10.77.0.20"
#define DEPENDENCY6 "fd77::20"
#define MAPPED "::ffff:10.77.0.20"
#define TRY(call) try(#call, (errno = 0, (long)(call)))

typedef union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; struct sockaddr_storage room; } address;

static inline long try(const char *what, long result) {
    int error = errno;
    if (result < 0) printf("%s: %s\n", what, strerror(error));
    else printf("%s: ok\n", what);
    fflush(stdout);
    return result;
}

static inline socklen_t to(address *a, const char *host, int port) {
    memset(a, 0, sizeof *a);
    if (strchr(host, ':')) {
        a->v6.sin6_family = AF_INET6; a->v6.sin6_port = htons(port); inet_pton(AF_INET6, host, &a->v6.sin6_addr);
        return sizeof a->v6;
    }
    a->v4.sin_family = AF_INET; a->v4.sin_port = htons(port); inet_pton(AF_INET, host, &a->v4.sin_addr);
    return sizeof a->v4;
}

static inline int tcp(int family) { return socket(family, SOCK_STREAM, 0); }

static inline int dial(int fd, const char *host, int port) {
    address a; socklen_t n = to(&a, host, port);
    return connect(fd, &a.any, n);
}

/* Ports below 10000 are somebody's; others are random. */
static inline void show(const char *what, const address *a, socklen_t n) {
    char host[99] = "-"; int port = 0;
    if (a->any.sa_family == AF_INET) inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host), port = ntohs(a->v4.sin_port);
    if (a->any.sa_family == AF_INET6) inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host), port = ntohs(a->v6.sin6_port);
    printf("%s: family %d length %u %s ", what, a->any.sa_family, n, host);
    if (!port || port < 10000) printf("%d\n", port);
    else printf("random\n");
    fflush(stdout);
}

static inline void names(const char *what, int fd) {
    address a; socklen_t n; char text[99];
    memset(&a, 0, sizeof a); n = sizeof a; snprintf(text, sizeof text, "%s, own name", what);
    if (getsockname(fd, &a.any, &n) < 0) try(text, -1); else show(text, &a, n);
    memset(&a, 0, sizeof a); n = sizeof a; snprintf(text, sizeof text, "%s, peer", what);
    if (getpeername(fd, &a.any, &n) < 0) try(text, -1); else show(text, &a, n);
}

static inline void echo(const char *what, int fd) {
    char got[99] = "";
    ssize_t n = write(fd, what, strlen(what));
    n = n < 0 ? n : read(fd, got, sizeof got - 1);
    if (n < 0) try(what, n); else printf("%s: echo '%s'\n", what, got);
    fflush(stdout);
}

static inline int listener(int family, const char *host, int port, int only6) {
    address a; socklen_t n = to(&a, host, port); int one = 1, fd = tcp(family);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only6, sizeof only6);
    if (bind(fd, &a.any, n) < 0 || listen(fd, 9) < 0) { perror("listener"); exit(1); }
    return fd;
}

/* A child that connects to us over the loopback after a moment, says hi, and ends. */
static inline pid_t caller(const char *host, int port, int milliseconds) {
    pid_t pid = fork();
    if (pid) return pid;
    usleep(milliseconds * 1000);
    int fd = tcp(strchr(host, ':') ? AF_INET6 : AF_INET); char c;
    if (dial(fd, host, port) < 0) { perror("caller"); _exit(1); }
    if (write(fd, "hi", 2) != 2) _exit(1);
    _exit(read(fd, &c, 1) < 0);
}

typedef struct { const char *name; void (*run)(void); } test;

static inline int choose(const test *tests, int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    alarm(40);
    for (; tests->name; tests++)
        if (argc > 1 && !strcmp(argv[1], tests->name)) { tests->run(); return 0; }
    return 2;
}

/* bind, listen, accept and datagrams, as the kernel sees them; clients are children of ours, over the loopback. */
#include "calls.h"

static void met(const char *what, int fd) {
    char got[9] = ""; printf("%s: fd %s, flags %d %d\n", what, fd < 0 ? strerror(errno) : "ok",
        fd < 0 ? 0 : !!(fcntl(fd, F_GETFL) & O_NONBLOCK), fd < 0 ? 0 : fcntl(fd, F_GETFD));
    if (fd < 0) return;
    struct pollfd p = {fd, POLLIN, 0}; poll(&p, 1, 5000);
    names(what, fd); printf("%s: read %ld '%s'\n", what, (long)read(fd, got, 8), got); close(fd); wait(NULL);
}

static void accepting(void) {
    static const struct { int family; const char *bound, *host; int only6; } all[] = {{AF_INET, "0.0.0.0", "127.0.0.1", 0},
        {AF_INET, "127.0.0.1", "127.0.0.1", 0}, {AF_INET6, "::", "::1", 1}, {AF_INET6, "::", "127.0.0.1", 0}, {AF_INET6, "::1", "::1", 0}};
    for (int n = 0; n < 5; n++) {
        int fd = listener(all[n].family, all[n].bound, 9100 + n, all[n].only6), got; address a; socklen_t size;
        printf("-- %s %d\n", all[n].bound, all[n].only6); names("listener", fd);
        caller(all[n].host, 9100 + n, 0); size = sizeof a; memset(&a, 0, sizeof a);
        got = accept(fd, &a.any, &size); show("from accept", &a, size); met("blocking", got);
        caller(all[n].host, 9100 + n, 200); met("held", accept(fd, NULL, NULL));
        caller(all[n].host, 9100 + n, 100); memset(&a, 0x77, sizeof a); size = 3;
        got = accept4(fd, &a.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC); printf("cut: %u, rest untouched %d\n", size, ((char *)&a)[3] == 0x77);
        met("accept4", got);
        fcntl(fd, F_SETFL, O_NONBLOCK); met("nothing there", accept(fd, NULL, NULL));
        caller(all[n].host, 9100 + n, 100); struct pollfd p = {fd, POLLIN, 0}; printf("poll %d\n", poll(&p, 1, 5000));
        met("polled", accept(fd, NULL, NULL));
        caller(all[n].host, 9100 + n, 100); fd_set set; FD_ZERO(&set); FD_SET(fd, &set); printf("select %d\n", select(fd + 1, &set, NULL, NULL, NULL));
        met("selected", accept(fd, NULL, NULL));
        int poller = epoll_create1(0); struct epoll_event e = {EPOLLIN | EPOLLET, {.fd = fd}}; epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
        caller(all[n].host, 9100 + n, 100); printf("epoll %d\n", epoll_wait(poller, &e, 1, 5000)); met("edge", accept4(fd, NULL, NULL, 0));
        close(poller); close(fd);
    }
    address a; socklen_t size = sizeof a; int fd = listener(AF_INET, "0.0.0.0", 9120, 0);
    TRY(syscall(SYS_accept4, fd, NULL, NULL, 0x40)); TRY(accept(99, NULL, NULL)); TRY(accept(0, NULL, NULL)); TRY(accept(tcp(AF_INET), &a.any, &size));
    caller("127.0.0.1", 9120, 0); TRY(accept(fd, &a.any, NULL) < 0 ? -1 : 0); wait(NULL);
}

static volatile int rings;
static void rang(int number) { (void)number; rings++; }

static void interrupted(void) {
    int fd = listener(AF_INET, "0.0.0.0", 9130, 0); struct sigaction action = {.sa_handler = rang};
    struct itimerval soon = {{0, 0}, {0, 200000}};
    sigaction(SIGALRM, &action, NULL); setitimer(ITIMER_REAL, &soon, NULL); TRY(accept(fd, NULL, NULL)); printf("rang %d\n", rings);
    action.sa_flags = SA_RESTART; sigaction(SIGALRM, &action, NULL); setitimer(ITIMER_REAL, &soon, NULL);
    caller("127.0.0.1", 9130, 600); met("restarted", accept(fd, NULL, NULL)); printf("rang %d\n", rings);
    signal(SIGALRM, SIG_IGN); setitimer(ITIMER_REAL, &soon, NULL); caller("127.0.0.1", 9130, 500); met("ignored", accept(fd, NULL, NULL));
    struct timeval limit = {0, 300000}; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit); TRY(accept(fd, NULL, NULL));
    caller("127.0.0.1", 9130, 100); met("within the limit", accept(fd, NULL, NULL));
    limit.tv_usec = 0; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    pid_t child = fork();
    if (!child) { signal(SIGALRM, SIG_DFL); accept(fd, NULL, NULL); _exit(0); }
    usleep(200000); kill(child, SIGTERM); int how; waitpid(child, &how, 0); printf("killed by %d\n", WTERMSIG(how));
    child = fork();
    if (!child) { accept(fd, NULL, NULL); _exit(0); }
    usleep(200000); kill(child, SIGSTOP); usleep(100000); kill(child, SIGCONT); caller("127.0.0.1", 9130, 100);
    printf("stopped and continued: %d\n", waitpid(child, &how, 0) == child && WIFEXITED(how)); wait(NULL);
}

static void binding(void) {
    address a; socklen_t n = to(&a, "0.0.0.0", 0); int fd = tcp(AF_INET), other;
    names("unbound", fd); TRY(bind(fd, &a.any, n)); TRY(listen(fd, 5)); names("any port", fd);
    n = sizeof a; getsockname(fd, &a.any, &n); int port = ntohs(a.v4.sin_port);
    caller("127.0.0.1", port, 0); met("on a random port", accept(fd, NULL, NULL)); TRY(bind(fd, &a.any, n));
    TRY(dial(fd, "127.0.0.1", port)); close(fd);
    fd = tcp(AF_INET); TRY(listen(fd, 5)); n = sizeof a; getsockname(fd, &a.any, &n); port = ntohs(a.v4.sin_port);
    caller("127.0.0.1", port, 0); met("never bound", accept(fd, NULL, NULL)); close(fd);
    fd = tcp(AF_INET6); to(&a, "::1", 0); TRY(bind(fd, &a.any, sizeof a.v6)); TRY(listen(fd, 5)); n = sizeof a; getsockname(fd, &a.any, &n);
    caller("::1", ntohs(a.v6.sin6_port), 0); met("random, six", accept(fd, NULL, NULL)); close(fd);
    int one = 1; fd = tcp(AF_INET); n = to(&a, "0.0.0.0", 9140); setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    TRY(bind(fd, &a.any, n)); TRY(bind(fd, &a.any, n));
    other = tcp(AF_INET); TRY(bind(other, &a.any, n)); TRY(listen(fd, 5)); TRY(listen(fd, 50)); TRY(bind(other, &a.any, n));
    TRY(connect(fd, &a.any, n));
    TRY(dial(other, "127.0.0.1", 9140)); names("own client", other); int end = accept(fd, NULL, NULL); names("own server", end);
    close(other); close(end); close(fd); fd = tcp(AF_INET); setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    TRY(bind(fd, &a.any, n)); TRY(listen(fd, 5)); caller("127.0.0.1", 9140, 0); met("bound again", accept(fd, NULL, NULL)); close(fd);
    fd = tcp(AF_INET); TRY(dial(fd, "127.0.0.1", 9140));
    fd = tcp(AF_INET); n = to(&a, "10.77.0.10", 9141); TRY(bind(fd, &a.any, n)); TRY(listen(fd, 5)); names("the target's own address", fd);
    fd = tcp(AF_INET); n = to(&a, "0.0.0.0", 9142); TRY(bind(fd, &a.any, 4)); TRY(bind(fd, NULL, n)); TRY(bind(99, &a.any, n)); TRY(bind(0, &a.any, n));
    int first = -1;
    for (int k = 0; k < 3; k++) {
        fd = tcp(AF_INET); TRY(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one)); TRY(bind(fd, &a.any, n)); TRY(listen(fd, 5));
        if (!k) first = fd;
    }
    names("shared", first); names("shared too", fd);
}

static void listening_child(void) {
    int fd = listener(AF_INET, "0.0.0.0", 9150, 0), ends[2]; char line[9] = "";
    if (pipe(ends)) return;
    for (int n = 0; n < 3; n++) if (!fork()) {
        int got = accept(fd, NULL, NULL); address a; socklen_t size = sizeof a; getpeername(got, &a.any, &size);
        if (write(ends[1], a.v4.sin_addr.s_addr == htonl(INADDR_LOOPBACK) ? "ok\n" : "no\n", 3) < 0) perror("write");
        _exit(0);
    }
    close(fd);  /* the children still have it */
    usleep(800000);
    for (int n = 0; n < 3; n++) caller("127.0.0.1", 9150, 0);
    for (int n = 0; n < 3; n++) if (read(ends[0], line, 3) == 3) printf("%s", line);
    while (wait(NULL) > 0) continue;
}

static void talk(const char *what, int fd, address *to_whom, socklen_t n) {
    char got[99] = ""; address from; socklen_t size = sizeof from; memset(&from, 0, sizeof from);
    long code = to_whom ? sendto(fd, what, strlen(what), 0, &to_whom->any, n) : send(fd, what, strlen(what), 0);
    if (code < 0) { try(what, code); return; }
    code = recvfrom(fd, got, sizeof got - 1, 0, &from.any, &size);
    if (code < 0) try(what, code); else { printf("%s: '%s' ", what, got); show("from", &from, size); }
}

static void datagrams(void) {
    struct timeval limit = {2, 0}; address a, b; socklen_t n = to(&a, DEPENDENCY, 7000), size; char got[4][99] = {{0}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0); setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    talk("unconnected", fd, &a, n); talk("twice", fd, &a, n); names("unconnected", fd);
    TRY(connect(fd, &a.any, n)); talk("connected", fd, NULL, 0); names("connected", fd); talk("connected, with address", fd, &a, n);
    memset(&b, 0, sizeof b); b.any.sa_family = AF_UNSPEC; TRY(connect(fd, &b.any, sizeof b.any)); TRY(send(fd, "x", 1, 0)); talk("dissolved", fd, &a, n);
    struct iovec in = {"vector", 6}, out = {got[0], 98}; struct msghdr m = {.msg_name = &a, .msg_namelen = n, .msg_iov = &in, .msg_iovlen = 1};
    printf("sendmsg %ld\n", (long)sendmsg(fd, &m, 0)); m = (struct msghdr){.msg_name = &b, .msg_namelen = sizeof b, .msg_iov = &out, .msg_iovlen = 1};
    printf("recvmsg %ld '%s' flags %d\n", (long)recvmsg(fd, &m, 0), got[0], m.msg_flags); show("recvmsg", &b, m.msg_namelen);
    struct mmsghdr many[3]; struct iovec parts[3]; memset(many, 0, sizeof many);
    for (int k = 0; k < 3; k++) { parts[k] = (struct iovec){"many", 4}; many[k].msg_hdr = (struct msghdr){.msg_name = &a, .msg_namelen = n, .msg_iov = &parts[k], .msg_iovlen = 1}; }
    int sent = 0; while (sent < 3) { int code = sendmmsg(fd, many + sent, 3 - sent, 0); if (code < 1) { try("sendmmsg", code); break; } sent += code; }
    printf("sent %d, length %u\n", sent, many[2].msg_len);
    for (int k = 0; k < 3; k++) { memset(got[k], 0, 99); parts[k] = (struct iovec){got[k], 98}; many[k].msg_hdr = (struct msghdr){.msg_iov = &parts[k], .msg_iovlen = 1}; many[k].msg_len = 0; }
    int had = 0; while (had < 3) { int code = recvmmsg(fd, many + had, 3 - had, MSG_WAITFORONE, NULL); if (code < 1) { try("recvmmsg", code); break; } had += code; }
    printf("received %d '%s' '%s' '%s' %u\n", had, got[0], got[1], got[2], many[2].msg_len);
    TRY(recvfrom(fd, got[0], 9, MSG_DONTWAIT, NULL, NULL)); limit.tv_sec = 0, limit.tv_usec = 200000; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    size = sizeof b; TRY(recvfrom(fd, got[0], 9, 0, &b.any, &size));
    TRY(sendto(fd, "x", 1, 0, &a.any, 4)); TRY(sendto(fd, NULL, 5, 0, &a.any, n)); TRY(sendto(99, "x", 1, 0, &a.any, n));
    talk("", fd, &a, n);
    int own = socket(AF_INET, SOCK_DGRAM, 0), other = socket(AF_INET, SOCK_DGRAM, 0); size = to(&b, "127.0.0.1", 0);
    TRY(bind(own, &b.any, size)); size = sizeof b; getsockname(own, &b.any, &size); TRY(sendto(other, "to myself", 9, 0, &b.any, size));
    memset(got[0], 0, 99); printf("read %ld '%s'\n", (long)recv(own, got[0], 98, MSG_DONTWAIT), got[0]);
    TRY(connect(other, &b.any, size)); TRY(send(other, "and again", 9, 0)); printf("read %ld '%s'\n", (long)recv(own, got[0], 98, MSG_DONTWAIT), got[0]);
    fd = socket(AF_INET6, SOCK_DGRAM, 0); setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit); n = to(&a, MAPPED, 7000);
    talk("mapped", fd, &a, n); n = to(&a, DEPENDENCY6, 7000); talk("six", fd, &a, n); TRY(connect(fd, &a.any, n)); talk("six connected", fd, NULL, 0); names("six connected", fd);
    limit.tv_sec = 2;
    fd = socket(AF_INET, SOCK_DGRAM, 0); n = to(&a, "10.77.0.10", 9160); TRY(bind(fd, &a.any, n)); names("bound to the target's address", fd);
    n = to(&a, DEPENDENCY, 7000); setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit); talk("from there", fd, &a, n);
}

int main(int argc, char **argv) {
    static const test tests[] = {{"accepting", accepting}, {"interrupted", interrupted}, {"binding", binding},
        {"listening_child", listening_child}, {"datagrams", datagrams}, {NULL, NULL}};
    return choose(tests, argc, argv);
}

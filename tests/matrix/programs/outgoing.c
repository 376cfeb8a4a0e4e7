/* connect and its relatives, as the kernel sees them. */
#include "calls.h"
#include <netinet/in.h>
#include <netinet/tcp.h>

extern char **environ;
static const char *self;

static void addresses(void) {
    static const struct { int family; const char *host; } all[] = {
        {AF_INET, DEPENDENCY}, {AF_INET6, MAPPED}, {AF_INET6, DEPENDENCY6}};
    for (int n = 0; n < 3; n++) {
        int fd = tcp(all[n].family); address a; socklen_t size;
        names("before", fd);
        TRY(dial(fd, all[n].host, 7000));
        names(all[n].host, fd);
        static const int rooms[] = {0, 1, 8, 15, 200};
        for (int k = 0; k < 5; k++) {
            unsigned char raw[256]; memset(raw, 0x77, sizeof raw);
            size = rooms[k];
            long code = getpeername(fd, (struct sockaddr *)raw, &size);
            unsigned room = rooms[k] > 128 ? 128 : rooms[k];
            printf("room %d: %ld, length %u, untouched after it: %d, port byte %d\n", rooms[k], code, size,
                raw[room > size ? size : room] == 0x77, room > 3 ? raw[3] : -1);
        }
        size = -1; TRY(getpeername(fd, &a.any, &size));
        size = sizeof a; TRY(getpeername(fd, NULL, &size));
        TRY(getpeername(fd, &a.any, NULL));
        TRY(getpeername(99, &a.any, &size));
        TRY(getpeername(0, &a.any, &size));
        TRY(dial(fd, all[n].host, 7000));
        echo("still connected", fd);
        TRY(shutdown(fd, SHUT_WR));
        char c; printf("end of file: %ld\n", (long)read(fd, &c, 1));
        names("after the end", fd);
    }
    address a; int fd = tcp(AF_INET);
    to(&a, DEPENDENCY, 7000); TRY(connect(fd, &a.any, 8));
    TRY(connect(fd, NULL, 16)); TRY(connect(fd, &a.any, 200)); TRY(connect(fd, &a.any, -1));
    to(&a, DEPENDENCY6, 7000); TRY(connect(fd, &a.any, sizeof a.v6));
    fd = tcp(AF_INET6); to(&a, DEPENDENCY, 7000); TRY(connect(fd, &a.any, sizeof a.v4));
    TRY(connect(99, &a.any, sizeof a.v4)); TRY(connect(0, &a.any, sizeof a.v4));
    fd = tcp(AF_INET); TRY(dial(fd, DEPENDENCY, 7999)); TRY(dial(fd, DEPENDENCY, 7000)); echo("the same socket again", fd);
    fd = tcp(AF_INET); TRY(dial(fd, "10.99.99.99", 80));
}

static void wait_for(int fd) { struct pollfd p = {fd, POLLOUT, 0}; printf("poll: %d\n", poll(&p, 1, 5000)); }

static void so_error(int fd) {
    int code = -1; socklen_t size = sizeof code;
    TRY(getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size));
    printf("SO_ERROR: %s, length %u\n", strerror(code), size);
}

static void pending(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    TRY(dial(fd, DEPENDENCY, 7000)); wait_for(fd); so_error(fd); names("connected", fd);
    printf("flags kept: %d\n", !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    fcntl(fd, F_SETFL, 0); echo("pending", fd); TRY(dial(fd, DEPENDENCY, 7000)); TRY(dial(fd, DEPENDENCY, 7000));
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    TRY(dial(fd, DEPENDENCY, 7999)); wait_for(fd); so_error(fd); so_error(fd);
    TRY(dial(fd, DEPENDENCY, 7000)); wait_for(fd); so_error(fd); fcntl(fd, F_SETFL, 0); echo("after a refusal", fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    TRY(dial(fd, DEPENDENCY, 7999)); wait_for(fd); TRY(dial(fd, DEPENDENCY, 7999)); so_error(fd);
    fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    TRY(dial(fd, DEPENDENCY6, 7000)); wait_for(fd); so_error(fd); names("six", fd);
    fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    TRY(dial(fd, DEPENDENCY6, 7999)); wait_for(fd); so_error(fd);
    struct linger hard = {1, 0};  /* closed at once, many times: nothing may be left or mixed up */
    for (int n = 0; n < 50; n++) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (n % 2) setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        dial(fd, DEPENDENCY, n % 3 ? 7000 : 7999);
        close(fd);
    }
    fd = tcp(AF_INET); TRY(dial(fd, DEPENDENCY, 7000)); echo("in between", fd);
}

static void edge(void) {
    int poller = epoll_create1(0), fds[8]; struct epoll_event event;
    for (int n = 0; n < 8; n++) {
        fds[n] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET; event.data.u32 = n;
        epoll_ctl(poller, EPOLL_CTL_ADD, fds[n], &event);
        if (dial(fds[n], DEPENDENCY, n < 6 ? 7000 : 7999) == 0 || errno != EINPROGRESS) perror("connect");
    }
    int done = 0, sent[8] = {0}, got[8] = {0}; char text[99];
    while (done < 8 && epoll_wait(poller, &event, 1, 5000) == 1) {
        int n = event.data.u32, fd = fds[n], code; socklen_t size = sizeof code;
        if (!sent[n]) {
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size);
            sent[n] = 1;
            if (code) { got[n] = -code; done++; close(fd); continue; }
            snprintf(text, sizeof text, "edge %d", n);
            if (write(fd, text, strlen(text)) < 0) perror("write");
        }
        ssize_t size_read;
        while (got[n] < 6 && (size_read = read(fd, text, sizeof text)) > 0) got[n] += size_read;
        if (got[n] == 6 && sent[n] == 1) { sent[n] = 2; done++; }
    }
    for (int n = 0; n < 8; n++) printf("%d: %s\n", n, got[n] < 0 ? strerror(-got[n]) : got[n] == 6 ? "all" : "short");
}

static void inherited(void) {
    int fd = tcp(AF_INET), other; TRY(dial(fd, DEPENDENCY, 7000));
    if (!fork()) { names("forked", fd); echo("forked", fd); exit(0); }
    wait(NULL);
    names("dup", other = dup(fd)); echo("dup", other);
    names("dup2", dup2(fd, 50)); close(fd); echo("dup2", 50);
    names("dup3", dup3(50, 60, O_CLOEXEC));
    char *const argv[] = {(char *)self, "child", "50", NULL}, *const gone[] = {(char *)self, "child", "60", NULL};
    if (!fork()) { execv(self, argv); _exit(9); }
    wait(NULL);
    if (!fork()) { execv(self, gone); _exit(9); }
    wait(NULL);
    if (!vfork()) { execv(self, argv); _exit(9); }
    wait(NULL);
    pid_t pid; int code = posix_spawn(&pid, self, NULL, NULL, argv, environ); wait(NULL); printf("posix_spawn %d\n", code);
    int pair[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control; char c = 'x';
    struct iovec part = {&c, 1}; struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
        .msg_controllen = sizeof control};
    if (!fork()) {
        close(50); close(60); close(other);
        TRY(recvmsg(pair[1], &message, 0));
        memcpy(&fd, CMSG_DATA(&control.head), sizeof fd); names("passed", fd); echo("passed", fd); exit(0);
    }
    control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    fd = 50; memcpy(CMSG_DATA(&control.head), &fd, sizeof fd); if (sendmsg(pair[0], &message, 0) < 0) exit(1); wait(NULL);
    TRY(syscall(SYS_close_range, 3, ~0U, 0));
    address a; socklen_t size = sizeof a; TRY(getpeername(50, &a.any, &size));
    fd = tcp(AF_INET); printf("descriptor %d\n", fd); TRY(dial(fd, DEPENDENCY, 7000)); echo("after closefrom", fd);
}

static void child(int fd) {
    if (fcntl(fd, F_GETFD) < 0) { try("descriptor", -1); return; }
    names("child", fd); echo("child", fd);
    int own = tcp(AF_INET); TRY(dial(own, DEPENDENCY, 7000)); echo("child's own", own);
}

static pthread_barrier_t together;
static int reached;

static void *one(void *port) {
    pthread_barrier_wait(&together);
    for (int n = 0; n < 10; n++) {
        int fd = tcp(AF_INET); char c = 0;
        int code = dial(fd, DEPENDENCY, (int)(long)port);
        if (port == (void *)7000 ? !code && write(fd, "t", 1) == 1 && read(fd, &c, 1) == 1 && c == 't' : code < 0 && errno == ECONNREFUSED)
            __atomic_add_fetch(&reached, 1, __ATOMIC_SEQ_CST);
        close(fd);
    }
    return NULL;
}

static void *last(void *leader) {
    pthread_join(*(pthread_t *)leader, NULL); usleep(100000);
    int fd = tcp(AF_INET); TRY(dial(fd, DEPENDENCY, 7000)); names("without a leader", fd); echo("without a leader", fd);
    char line[99] = ""; int file = open("/srv/config.txt", O_RDONLY); if (read(file, line, 98) < 0) perror("read"); printf("%s", line);
    exit(0);
}

static void threads(void) {
    pthread_t all[20]; static pthread_t leader; pthread_barrier_init(&together, NULL, 20);
    for (long n = 0; n < 20; n++) pthread_create(&all[n], NULL, one, (void *)(n % 4 ? 7000L : 7999L));
    for (int n = 0; n < 20; n++) pthread_join(all[n], NULL);
    printf("%d of 200\n", reached);
    leader = pthread_self(); pthread_create(all, NULL, last, &leader); pthread_exit(NULL);
}

static void rang(int number) { (void)number; }

static void signals(void) {
    struct sigaction action = {.sa_handler = rang, .sa_flags = SA_RESTART}; sigaction(SIGALRM, &action, NULL);
    struct itimerval fast = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}}; int good = 0;
    setitimer(ITIMER_REAL, &fast, NULL);
    for (int n = 0; n < 100; n++) {
        int fd = tcp(AF_INET); char c = 0;
        if (!dial(fd, DEPENDENCY, 7000) && write(fd, "s", 1) == 1 && read(fd, &c, 1) == 1) good++;
        close(fd);
        fd = open("/srv/config.txt", O_RDONLY); if (fd < 0) perror("open"); else close(fd);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    printf("%d connections under a fast timer\n", good);
}

static void misc(void) {
    struct statfs fs; TRY(statfs("/srv", &fs)); printf("type %lx block %ld name %ld\n", (long)fs.f_type, (long)fs.f_bsize, (long)fs.f_namelen);
    TRY(statfs("/srv/none", &fs));
    int one = 1, fd = tcp(AF_INET); TRY(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    TRY(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one)); TRY(dial(fd, DEPENDENCY, 7000));
    int got = 0; socklen_t size = sizeof got; getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &got, &size); printf("nodelay %d\n", !!got);
    getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &got, &size); printf("keepalive %d\n", !!got);
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &got, &size); printf("type %d\n", got);
    address a; memset(&a, 0, sizeof a); a.any.sa_family = AF_UNSPEC; TRY(connect(fd, &a.any, sizeof a.any));
    names("dissolved", fd); TRY(dial(fd, DEPENDENCY, 7000)); echo("again", fd);
    fd = tcp(AF_INET); to(&a, "10.77.0.10", 0); TRY(bind(fd, &a.any, sizeof a.v4));
    TRY(dial(fd, DEPENDENCY, 7000)); names("from the target's address", fd); echo("bound first", fd);
}

int main(int argc, char **argv) {
    static const test tests[] = {{"addresses", addresses}, {"pending", pending}, {"edge", edge}, {"inherited", inherited},
        {"threads", threads}, {"signals", signals}, {"misc", misc}, {NULL, NULL}};
    self = argv[0];
    if (argc > 2) { setvbuf(stdout, NULL, _IOLBF, 0); child(atoi(argv[2])); return 0; }
    return choose(tests, argc, argv);
}

/* A server that prints each request's path and its client, as accept and as getpeername say. blocking|epoll|poll, 4|6|dual */
#include "calls.h"

static int prefork;

static const char *text(address *a) {
    static char room[2][99]; static int turn;
    char *host = room[turn ^= 1];
    if (a->any.sa_family == AF_INET) inet_ntop(AF_INET, &a->v4.sin_addr, host, 99);
    else inet_ntop(AF_INET6, &a->v6.sin6_addr, host, 99);
    return strncmp(host, "::ffff:", 7) ? host : host + 7;
}

static void serve(int fd, address *accepted) {
    char got[1000] = ""; address peer; socklen_t n = sizeof peer;
    ssize_t size;
    while ((size = read(fd, got, sizeof got - 1)) < 0 && errno == EAGAIN) usleep(1000);
    if (getpeername(fd, &peer.any, &n)) perror("getpeername");
    char *path = size > 0 ? strchr(got, ' ') : NULL, *end = path ? strchr(path + 1, ' ') : NULL;
    if (end) { *end = 0; printf("%s %s %s\n", path + 1, text(accepted), text(&peer)); fflush(stdout); }
    if (write(fd, "HTTP/1.0 200 OK\r\n\r\nlocal", 24) < 0) perror("write");
    close(fd);
}

int main(int argc, char **argv) {
    int six = strcmp(argv[2], "4"), fd = listener(six ? AF_INET6 : AF_INET, six ? "::" : "0.0.0.0", 8080, !strcmp(argv[2], "6"));
    address a; socklen_t n; int end;
    (void)argc; signal(SIGPIPE, SIG_IGN); puts("listening"); fflush(stdout);
    if (!strcmp(argv[1], "prefork")) { prefork = 1; for (int k = 0; k < 3; k++) if (!fork()) break; }
    if (!strcmp(argv[1], "blocking") || prefork) while (1) {
        n = sizeof a; if ((end = accept(fd, &a.any, &n)) >= 0) serve(end, &a); else perror("accept");
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct pollfd p = {fd, POLLIN, 0}; int poller = epoll_create1(0); struct epoll_event e = {EPOLLIN | EPOLLET, {.fd = fd}};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    while (1) {
        if (!strcmp(argv[1], "epoll")) epoll_wait(poller, &e, 1, -1); else poll(&p, 1, -1);
        while (n = sizeof a, (end = accept4(fd, &a.any, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) serve(end, &a);
        if (errno != EAGAIN) perror("accept4");
    }
}

/* An HTTP/1.1 server and a load generator for steal.py, both one epoll loop: they must cost less than what is measured.
 *   http serve HOST PORT                        answers every request with 13 bytes, connections are kept
 *   http load HOST PORT CONNECTIONS SECONDS RATE
 *       one request at a time on each connection, as fast as answers come (RATE 0) or RATE a second in all: the time is then
 *       counted from when a request was due, so that a stall is seen by all who had to wait. Prints: requests/s, p50, p99 in us.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX 4096
static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nhello, world\n";
static const char REQUEST[] = "GET /orders/17 HTTP/1.1\r\nHost: orders.staging\r\nUser-Agent: bench\r\nAccept: */*\r\n"
                              "X-Request-Id: 9f8e7d6c\r\nX-User: nobody\r\n\r\n";

static void die(const char *what) { perror(what); exit(1); }

static struct sockaddr_in address(char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
    inet_pton(AF_INET, argv[2], &to.sin_addr);
    return to;
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void serve(struct sockaddr_in at) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, epoll = epoll_create1(0);
    struct epoll_event events[256];
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) die("listen");
    watch(epoll, listener);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            char data[4096];
            if (fd == listener) {
                int client = accept4(listener, 0, 0, SOCK_NONBLOCK);
                if (client >= 0) watch(epoll, client);
            } else if (read(fd, data, sizeof data) <= 0) {
                close(fd);
            } else if (write(fd, ANSWER, sizeof ANSWER - 1) < 0) { /* a request comes in one piece here */
                close(fd);
            }
        }
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void ask(int fd, double *since, double at) {
    *since = at;
    if (write(fd, REQUEST, sizeof REQUEST - 1) < 0) die("write");
}

static void load(struct sockaddr_in to, int count, double seconds, double rate) {
    static double since[MAX];
    static int fds[MAX], waiting[MAX], late[MAX];
    int epoll = epoll_create1(0), next = 0;
    size_t done = 0, room = 1 << 24;
    float *took = malloc(room * sizeof *took);
    struct epoll_event events[256];
    for (int i = 0; i < count; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fds[i], (struct sockaddr *)&to, sizeof to)) die("connect");
        watch(epoll, fds[i]);
    }
    double start = now(), t = start, due = start;
    for (int i = 0; i < count && !rate; i++) ask(fds[i], &since[fds[i]], now());
    while (t < start + seconds) {
        struct timespec pause = {1, 0};
        for (; rate && due <= t; due += 1 / rate, next = (next + 1) % count) {
            int fd = fds[next];
            if (waiting[fd]) { late[fd]++; continue; } /* sent when its answer is there, and counted from when it was due */
            waiting[fd] = 1;
            ask(fd, &since[fd], due);
        }
        if (rate) pause = (struct timespec){0, due > t ? (due - t) * 1e9 : 0};
        int n = epoll_pwait2(epoll, events, 256, &pause, 0);
        t = now();
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            char data[4096];
            ssize_t got = read(fd, data, sizeof data);
            if (got != sizeof ANSWER - 1) { fprintf(stderr, "an answer of %zd bytes\n", got); exit(1); }
            t = now();
            if (done < room) took[done++] = (t - since[fd]) * 1e6;
            if (!rate) ask(fd, &since[fd], t);
            else if (late[fd]) late[fd]--, ask(fd, &since[fd], since[fd] + count / rate);
            else waiting[fd] = 0;
        }
        if (!n && !rate) { fprintf(stderr, "no answer within a second\n"); exit(1); }
    }
    if (!done) { fprintf(stderr, "no answer\n"); exit(1); }
    qsort(took, done, sizeof *took, compare);
    printf("%.0f %.1f %.1f\n", done / (t - start), took[done / 2], took[done * 99 / 100]);
}

int main(int argc, char **argv) {
    if (argc == 4) serve(address(argv));
    if (argc != 7 || atoi(argv[4]) > MAX - 16) return 2;
    load(address(argv), atoi(argv[4]), atof(argv[5]), atof(argv[6]));
    return 0;
}

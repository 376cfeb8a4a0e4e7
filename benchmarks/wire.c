/* A longer way to the API server: a port on loopback that passes each connection on to HOST:PORT, every byte DELAY ms after it came, both
   ways, and never more than WINDOW KiB under way in a direction, as TCP's window limits one connection on a real way of that length.
   usage: wire HOST PORT DELAY WINDOW; prints its port. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE (64 << 10)
#define PIECES 4096

struct way {
    int from, to, *left; /* left: directions that still use both sockets */
    size_t under_way, first, last;
    struct { struct timespec due; size_t size; char *data; } piece[PIECES];
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static long delay, window;

static void *take(void *argument) {
    struct way *w = argument;
    ssize_t size;
    do {
        char *data = malloc(PIECE);
        size = read(w->from, data, PIECE);
        pthread_mutex_lock(&w->lock);
        while (w->last - w->first == PIECES || (w->under_way && (long)w->under_way >= window))
            pthread_cond_wait(&w->changed, &w->lock);
        struct timespec due;
        clock_gettime(CLOCK_MONOTONIC, &due);
        due.tv_nsec += delay * 1000000;
        due.tv_sec += due.tv_nsec / 1000000000;
        due.tv_nsec %= 1000000000;
        size_t at = w->last++ % PIECES;
        w->piece[at].due = due;
        w->piece[at].size = size > 0 ? size : 0;
        w->piece[at].data = data;
        w->under_way += w->piece[at].size;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
    } while (size > 0);
    return NULL;
}

static void *give(void *argument) {
    struct way *w = argument;
    size_t size;
    do {
        pthread_mutex_lock(&w->lock);
        while (w->first == w->last)
            pthread_cond_wait(&w->changed, &w->lock);
        size_t at = w->first % PIECES;
        pthread_mutex_unlock(&w->lock);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &w->piece[at].due, NULL);
        size = w->piece[at].size;
        for (size_t done = 0; done < size;) {
            ssize_t sent = send(w->to, w->piece[at].data + done, size - done, MSG_NOSIGNAL);
            if (sent <= 0)
                break; /* the other end is gone: what comes is swallowed until this end goes too */
            done += sent;
        }
        free(w->piece[at].data);
        pthread_mutex_lock(&w->lock);
        w->first++;
        w->under_way -= size;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
    } while (size);
    shutdown(w->to, SHUT_WR);
    if (!__atomic_sub_fetch(w->left, 1, __ATOMIC_SEQ_CST)) {
        close(w->from);
        close(w->to);
    }
    return NULL;
}

static void start(int from, int to, int *left) {
    struct way *w = calloc(1, sizeof *w);
    pthread_t thread;
    w->from = from;
    w->to = to;
    w->left = left;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    pthread_create(&thread, NULL, take, w);
    pthread_detach(thread);
    pthread_create(&thread, NULL, give, w);
    pthread_detach(thread);
}

int main(int argc, char **argv) {
    if (argc != 5)
        errx(2, "usage: wire HOST PORT DELAY WINDOW");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))}, here = {.sin_family = AF_INET};
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    inet_pton(AF_INET, "127.0.0.1", &here.sin_addr);
    delay = atol(argv[3]);
    window = atol(argv[4]) << 10;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    socklen_t size = sizeof here;
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 64) || getsockname(listener, (void *)&here, &size))
        err(1, "listen");
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        int near = accept(listener, NULL, NULL), far = socket(AF_INET, SOCK_STREAM, 0);
        if (near < 0)
            err(1, "accept");
        if (connect(far, (void *)&to, sizeof to)) {
            close(near);
            close(far);
            continue;
        }
        setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(far, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        int *left = malloc(sizeof *left);
        *left = 2;
        start(near, far, left);
        start(far, near, left);
    }
}

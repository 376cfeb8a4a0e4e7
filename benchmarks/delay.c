/* A longer way to the agent: stands in for its interpreter (configuration key agent.python), starts the real one, and passes the stream
   on, each byte DELAY ms after it came, both ways. Nothing else is changed: what is under way is bounded only by QUEUE bytes a
   direction, so that 20 ms there and back still let 6 GB/s through. DELAY and PYTHON are compiled in (-D): the agent's
   arguments are the interpreter's. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define QUEUE (64 << 20)
#define CHUNKS 65536
#define PIECE (256 << 10)

struct way {
    int from, to, ended; /* ended: 1 at the stream's end, 2 when that was passed on too */
    char *ring;
    size_t head, tail; /* bytes that came, and that went */
    struct { double due; size_t end; } chunk[CHUNKS];
    unsigned first, last;
};

static double now(void) { /* ms */
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int has_room(struct way *w) { return !w->ended && w->head - w->tail < QUEUE && w->last - w->first < CHUNKS; }

static void take(struct way *w) {
    size_t at = w->head % QUEUE, room = QUEUE - (w->head - w->tail);
    if (room > QUEUE - at)
        room = QUEUE - at;
    ssize_t n = recv(w->from, w->ring + at, room < PIECE ? room : PIECE, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        w->ended = 1, n = 0;
    w->head += n;
    w->chunk[w->last % CHUNKS].due = now() + DELAY;
    w->chunk[w->last++ % CHUNKS].end = w->head;
}

static void pass(struct way *w) {
    while (w->first != w->last && w->chunk[w->first % CHUNKS].due <= now()) {
        size_t at = w->tail % QUEUE, size = w->chunk[w->first % CHUNKS].end - w->tail;
        if (size > QUEUE - at)
            size = QUEUE - at;
        ssize_t n = size ? send(w->to, w->ring + at, size, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0)
            exit(1);
        w->tail += n;
        if (w->tail == w->chunk[w->first % CHUNKS].end)
            w->first++;
    }
    if (w->ended == 1 && w->first == w->last)
        shutdown(w->to, SHUT_WR), w->ended = 2;
}

int main(int argc, char **argv) {
    static struct way up, down;
    int pair[2], status = 0, size = 1 << 20;
    (void)argc;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        err(1, "socketpair");
    for (int i = 0; i < 2; i++)
        setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pair[1], 0), dup2(pair[1], 1);
        close(pair[0]), close(pair[1]);
        execv(argv[0] = PYTHON, argv);
        err(127, PYTHON);
    }
    close(pair[1]);
    up.from = 0, up.to = down.from = pair[0], down.to = 1;
    up.ring = malloc(QUEUE), down.ring = malloc(QUEUE);
    while (down.ended < 2) {
        struct way *ways[] = {&up, &down};
        struct pollfd polls[4];
        double wait = 1000, at = now();
        for (int i = 0; i < 2; i++) {
            struct way *w = ways[i];
            int waiting = w->first != w->last, due = waiting && w->chunk[w->first % CHUNKS].due <= at;
            polls[2 * i] = (struct pollfd){has_room(w) ? w->from : -1, POLLIN, 0};
            polls[2 * i + 1] = (struct pollfd){due ? w->to : -1, POLLOUT, 0};
            if (waiting && !due && w->chunk[w->first % CHUNKS].due - at < wait)
                wait = w->chunk[w->first % CHUNKS].due - at;
        }
        ppoll(polls, 4, &(struct timespec){wait / 1000, (long)(wait * 1e6) % 1000000000}, NULL);
        for (int i = 0; i < 2; i++) {
            if (polls[2 * i].revents)
                take(ways[i]);
            pass(ways[i]);
        }
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

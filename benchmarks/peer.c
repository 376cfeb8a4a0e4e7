/* The service in the target that the work talks to: `peer ADDRESS PORT`, a thread a connection. The first byte says what is wanted:
   e  all is sent back, the e too;   u + length (8 bytes)  takes so many, answers their number;   d + length  sends so many. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (1 << 20)

static void *serve(void *arg) {
    int sock = (int)(long)arg;
    char *block = calloc(1, SIZE), what;
    long long wanted, done = 0;
    long n;
    if (recv(sock, &what, 1, MSG_PEEK) != 1)
        goto out;
    if (what == 'e') {
        while ((n = recv(sock, block, SIZE, 0)) > 0 && send(sock, block, n, 0) == n)
            ;
        goto out;
    }
    if (recv(sock, block, 9, MSG_WAITALL) != 9)
        goto out;
    memcpy(&wanted, block + 1, 8);
    while (done < wanted) {
        long want = wanted - done < SIZE ? wanted - done : SIZE;
        n = what == 'u' ? recv(sock, block, want, 0) : send(sock, block, want, 0);
        if (n <= 0)
            goto out;
        done += n;
    }
    if (what == 'u')
        send(sock, &done, 8, 0);
    recv(sock, block, 1, 0); /* until the other side closes: else what is unsent would be lost with a reset */
out:
    free(block);
    close(sock);
    return NULL;
}

int main(int argc, char **argv) {
    struct sockaddr_in here = {.sin_family = AF_INET};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), sock;
    pthread_t thread;
    if (argc != 3)
        errx(2, "peer ADDRESS PORT");
    signal(SIGPIPE, SIG_IGN);
    inet_aton(argv[1], &here.sin_addr);
    here.sin_port = htons(atoi(argv[2]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 512))
        err(1, "%s:%s", argv[1], argv[2]);
    puts("ready");
    fflush(stdout);
    while ((sock = accept(listener, NULL, NULL)) >= 0) {
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!pthread_create(&thread, NULL, serve, (void *)(long)sock))
            pthread_detach(thread);
    }
    err(1, "accept");
}

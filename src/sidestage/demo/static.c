/* A static program: no dynamic loader, so nothing could be preloaded into it. */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

int main(void) {
    struct utsname name;
    char text[200];
    uname(&name);
    printf("    host name    %s\n", name.nodename);
    FILE *file = fopen("/srv/orders/config.json", "r");
    if (!file || !fgets(text, sizeof text, file)) { perror("/srv/orders/config.json"); return 1; }
    printf("    file         %s\n", text);
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(getenv("DATABASE_HOST"), getenv("DATABASE_PORT"), &hints, &found)) { fputs("DNS failed\n", stderr); return 1; }
    int fd = socket(found->ai_family, found->ai_socktype, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen)) { perror("connect"); return 1; }
    if (write(fd, "SELECT count(*)\n", 16) != 16) return 1;
    ssize_t size = read(fd, text, sizeof text - 1);
    if (size <= 0) return 1;
    text[size] = 0;
    printf("    database     %s", text);
    return strncmp(text, "42 orders", 9) != 0;
}

/* A program of the target: tells its arguments, its environment and what it is by /proc. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    char exe[4096] = "";
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0) perror("readlink");
    printf("I am %s:", exe);
    for (int n = 0; n < argc; n++) printf(" [%s]", argv[n]);
    int variables = 0;
    while (environ[variables]) variables++;
    printf(" %s\n", variables < 3 ? environ[0] ? environ[0] : "no environment" : "an environment");
    return argc;
}

/* What holds a Pod's namespaces: it sleeps until it is told to end. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void end(int signal) { (void)signal; _exit(0); }

int main(int argc, char **argv)
{
    /* a Job by which `kubeadm upgrade` tests the cluster asks for it (1.37.2: cmd/kubeadm/app/phases/upgrade/health.go) */
    if (argc > 1 && strcmp(argv[1], "-v") == 0)
        return puts("pause.c") < 0;
    signal(SIGINT, end);
    signal(SIGTERM, end);
    for (;;)
        pause();
}

/*
 * A guest that is this one program: no shell, no directory but those that the kernel itself makes.
 *
 * As PID 1 it says on the console that it is up, and collects orphans. As a PID 1 called `systemd` it sleeps before that, and
 * then makes the file at which the real systemd listens. Started otherwise it does what its arguments say:
 *
 *     bare echo WORD…      writes the words
 *     bare exit NUMBER     ends with this code
 *     bare cat             copies its input to its output
 *     bare sleep           until it is killed
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int as_init(void)
{
	puts("bare guest: up");
	fflush(stdout);
	for (;;) {
		if (wait(NULL) < 0)
			pause();
	}
}

/* Asleep, but not ready: how a systemd looks that waits for a console's answer. */
static void become_ready(void)
{
	sleep(1);
	mkdir("/run", 0755);
	mkdir("/run/systemd", 0755);
	close(open("/run/systemd/private", O_CREAT | O_WRONLY, 0600));
}

static int copy(void)
{
	char buffer[4096];
	ssize_t count;

	while ((count = read(STDIN_FILENO, buffer, sizeof(buffer))) > 0) {
		if (write(STDOUT_FILENO, buffer, count) != count)
			return 1;
	}
	return count < 0;
}

int main(int argc, char **argv)
{
	const char *act = argc > 1 ? argv[1] : "";

	if (getpid() == 1 && !strcmp(argv[0], "/systemd"))
		become_ready();
	if (getpid() == 1)
		return as_init();
	if (!strcmp(act, "echo")) {
		for (int i = 2; i < argc; i++)
			printf(i > 2 ? " %s" : "%s", argv[i]);
		putchar('\n');
		return 0;
	}
	if (!strcmp(act, "exit") && argc > 2)
		return atoi(argv[2]);
	if (!strcmp(act, "cat"))
		return copy();
	if (!strcmp(act, "sleep"))
		return pause();
	fprintf(stderr, "bare: unknown act `%s`\n", act);
	return 2;
}
